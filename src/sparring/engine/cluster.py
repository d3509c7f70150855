"""Workers that are actors of a Ray cluster: one placement group for a phase's crew, its first member on the
machine of this process, and all of it given back at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from sparring.config.engine import PHASES, EngineSettings
from sparring.data.errors import RecipeError
from sparring.engine.pool import WorkersLostError, free_address

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
except ImportError as error:
    raise RecipeError(
        f"engine.kind is ray, but Ray cannot be imported ({error}): pip install 'sparring[ray]', or set "
        "engine.kind to local."
    ) from error

PATIENCE = 600.0
"""Seconds in which the cluster must have room for a phase: machines may be on their way."""


def connect(settings: EngineSettings) -> Callable[[], None]:
    """Join the cluster, or begin one on this machine; gives what ends that. RecipeError where there is
    none at the address.
    """
    if ray.is_initialized():
        return lambda: None
    address = settings.address or os.environ.get("RAY_ADDRESS")
    own = {"num_cpus": max(os.cpu_count() or 1, *(settings.workers_of(phase) for phase in PHASES))}
    try:
        ray.init(
            address=address,
            include_dashboard=False if address is None else None,
            logging_level="error",
            log_to_driver=False,
            **({} if address else own),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"engine.address: no Ray cluster at {address or 'this machine'}: {error}"
        ) from error
    shutdown: Callable[[], None] = ray.shutdown
    return shutdown


@contextmanager
def actors(count: int, gpus: float) -> Iterator[Sequence[RayWorker]]:
    """So many actors with one CPU each and GPUs, in a placement group of their own that goes with the block.

    Raises WorkersLostError where the cluster has no room for them within `PATIENCE`.
    """
    bundle = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    group = placement_group(
        [bundle] * count, strategy="PACK", bundle_label_selector=[here, *({} for _ in range(count - 1))]
    )
    workers = list[RayWorker]()
    try:
        try:
            ray.get(group.ready(), timeout=PATIENCE)
        except GetTimeoutError as error:
            raise WorkersLostError(
                f"the cluster has no room for {count} workers of {bundle} each, the first of them on this "
                f"machine: it has {ray.available_resources()} free"
            ) from error
        workers += [RayWorker(group, number, gpus) for number in range(count)]
        try:
            ray.get([worker.process() for worker in workers], timeout=PATIENCE)
        except RayError as error:  # a machine may die before its worker begins
            raise WorkersLostError(f"not all of {count} workers have begun: {error}") from error
        yield workers
    finally:
        for worker in workers:
            worker.end()
        remove_placement_group(group)


class RayWorker:
    """An actor in one bundle of a placement group."""

    def __init__(self, group: Any, number: int, gpus: float) -> None:
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
        kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, scheduling_strategy=place)(Actor)
        self._actor = kind.remote()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return _relayed(self._actor.call.remote(function, *arguments).future())

    def process(self) -> Any:
        """Reference to its process's number, which is there once it has begun."""
        return self._actor.call.remote(os.getpid)

    def share(self, value: Any) -> Any:
        return ray.put(value)

    def address(self) -> Callable[[], str]:
        return address_of_node

    def end(self) -> None:
        ray.kill(self._actor)


def _relayed(source: Future[Any]) -> Future[Any]:
    """The same future, in which an error of Ray is the loss of the worker."""
    target = Future[Any]()

    def pass_on(done: Future[Any]) -> None:
        if done.cancelled():
            target.cancel()
            target.set_running_or_notify_cancel()  # wakes who waits for it
            return
        error = done.exception()
        if isinstance(error, RayError):
            told = WorkersLostError(f"a worker has died: {error}")
            told.__cause__ = error
            target.set_exception(told)
        elif error is not None:
            target.set_exception(error)
        else:
            target.set_result(done.result())

    source.add_done_callback(pass_on)
    return target


class Actor:
    """Calls functions in a process of its own."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


def address_of_node() -> str:
    """An address at which other machines reach this one."""
    return free_address(ray.util.get_node_ip_address())
