"""Who does the work of a phase: a crew, made for it and let go after it.

Every member of a crew has a host, an object with the players of its own, and there are two shapes of work:
`map` (items in, results out, in order) and `all` (every member does the same call; members that were made
`together` train one player as `Ranks`). The crew of one is this process. Others are processes of this
machine, or Ray's actors (`engine.cluster`).
"""

from __future__ import annotations

import math
import socket
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from sparring.config.engine import EngineSettings, Phase
from sparring.data.errors import ModelError, RecipeError, SparringError
from sparring.engine.pool import LocalWorker, WorkersLostError, gpus_of
from sparring.engine.ranks import meet

Host = TypeVar("Host")
Item = TypeVar("Item")
Result = TypeVar("Result")
Tell = Callable[[str], object]
AHEAD = 2
"""Items that are under way or done for every member before the first of them is given back: bounds memory,
and what a kill can cost.
"""
GRACE = 10.0
"""Seconds in which the others of a group may say why they fail too, once one has."""


class Crew(Generic[Host]):
    """The members of a phase."""

    count = 1

    def map(self, work: Callable[[Host, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """work(host, item) of every item, by any member, in the order of the items. What it raises comes
        through, when its turn is.
        """
        raise NotImplementedError

    def all(self, work: Callable[..., Result], *arguments: Any) -> list[Result]:
        """work(host, *arguments) by every member; the results in the members' order."""
        raise NotImplementedError


class Alone(Crew[Host]):
    """The crew of one: this process."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def map(self, work: Callable[[Host, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return (work(self.host, item) for item in items)

    def all(self, work: Callable[..., Result], *arguments: Any) -> list[Result]:
        return [work(self.host, *arguments)]


@dataclass(frozen=True)
class Make:
    """How a member makes its host: function(*arguments), importable by name. together: the members meet as
    `Ranks` first, on that device.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    together: bool = False
    device: str = "cpu"


class Worker(Protocol):
    """A process that calls functions, one after the other. Its futures raise WorkersLostError where it is
    lost; whatever the function raises they give back (see `_work`).
    """

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]: ...

    def share(self, value: Any) -> Any:
        """A value as it is best handed to several workers."""

    def address(self) -> Callable[[], str]:
        """What gives an address at which others can meet this worker, called in it."""

    def end(self) -> None:
        """End the process, whatever it does."""


class Team(Crew[Host]):
    """Several members. tell: is told what their hosts have to say."""

    def __init__(self, workers: Sequence[Worker], make: Make, tell: Tell) -> None:
        self.workers, self.count, self._tell = workers, len(workers), tell
        first = workers[0]
        address = self._result(first.submit(_work, False, first.address())) if make.together else None
        make = first.share(make)
        self._together(
            [
                worker.submit(_work, False, begin, make, number, self.count, address)
                for number, worker in enumerate(workers)
            ]
        )

    def map(self, work: Callable[[Host, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        waiting: deque[tuple[Worker, Future[Any]]] = deque()
        for item in items:
            busy = [worker for worker, future in waiting if not future.done()]
            idlest = min(self.workers, key=busy.count)
            waiting.append((idlest, idlest.submit(_work, True, work, item)))
            if len(waiting) >= AHEAD * self.count:
                yield self._result(waiting.popleft()[1])
        while waiting:
            yield self._result(waiting.popleft()[1])

    def all(self, work: Callable[..., Result], *arguments: Any) -> list[Result]:
        shared = [self.workers[0].share(value) for value in arguments]
        return self._together([worker.submit(_work, True, work, *shared) for worker in self.workers])

    def _together(self, futures: Sequence[Future[Any]]) -> list[Any]:
        """All results. Where one member fails the others may wait for it for ever: they are not waited
        for, but to hear who failed first.
        """
        pending, failed = set(futures), list[Exception]()
        while pending:
            done, pending = wait(pending, timeout=GRACE if failed else None, return_when=FIRST_COMPLETED)
            failed += [error for future in done if (error := _error(future)) is not None]
            if not done:
                break
        own = [error for error in failed if not isinstance(error, WorkersLostError)]
        if failed:
            raise (own or failed)[0]
        return [self._result(future) for future in futures]

    def _result(self, future: Future[Any]) -> Any:
        if (error := _error(future)) is not None:
            raise error
        result, _, said = future.result()
        for text in said:
            self._tell(text)
        return result


def _error(future: Future[Any]) -> Exception | None:
    """Why a call gives no result: what it raised, or the loss of its worker."""
    try:
        error: Exception | None = future.result()[1]
    except WorkersLostError as lost:
        return lost
    return error


# ---- inside a worker

_host: Any = None
_said: list[str] = []


def say_to_driver(text: str) -> None:
    """What a worker's host has to say; the driver says it when the present call is over."""
    _said.append(text)


def begin(make: Make, number: int, count: int, address: str | None) -> None:
    """Make this worker's host."""
    global _host
    if address is not None:
        meet(count, number, address, device=torch.device(make.device))
    try:
        _host = make.function(*make.arguments)
    except ModelError as error:  # models must be on every machine, at the same path
        raise ModelError(f"on {socket.gethostname()}: {error}") from error


def _work(
    hosted: bool, function: Callable[..., Any], *arguments: Any
) -> tuple[Any, Exception | None, list[str]]:
    """(result, None, what was said) or (None, error, what was said)."""
    _said.clear()
    try:
        result = function(_host, *arguments) if hosted else function(*arguments)
        return result, None, list(_said)
    except Exception as error:  # noqa: BLE001  it is raised where the result is asked for
        if _of_connection(error):
            error = WorkersLostError(f"the others of the group cannot be reached: {error}")
        elif not isinstance(error, SparringError):
            error.add_note("".join(traceback.format_exception(error)))  # what pickle leaves out
        return None, error, list(_said)


def _of_connection(error: Exception) -> bool:
    """Has a collective failed because another process is gone? gloo says it in words only."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


# ---- what a phase asks


@dataclass(frozen=True)
class Luggage:
    """Files below a folder, for a worker that does not see the folder."""

    files: dict[str, bytes]

    @classmethod
    def pack(cls, root: Path, folders: Iterable[Path]) -> Self:
        """All files of these folders, by their paths below the root."""
        paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
        return cls({path.relative_to(root).as_posix(): path.read_bytes() for path in paths})

    def unpack(self, root: Path) -> Path:
        """Write them below a root, which is given back, and let go of them."""
        while self.files:
            name, content = self.files.popitem()
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root


class Engine:
    """Crews for phases, as the settings have them."""

    def __init__(self, settings: EngineSettings, device: torch.device, tell: Tell) -> None:
        """device: what the workers compute on. Raises RecipeError where Ray is asked for and is not there,
        or where this machine has fewer GPUs than workers.
        """
        self.settings, self.device, self._tell = settings, device, tell
        if settings.kind == "ray":
            from sparring.engine.cluster import connect

            self._disconnect = connect(settings)
        elif device.type == "cuda":
            trainings: tuple[Phase, ...] = ("attacker", "defender")
            wanted = max(
                math.ceil(settings.workers_of(phase) * settings.gpus_of(phase, "cuda")) for phase in trainings
            )
            if wanted > (there := torch.cuda.device_count()):
                raise RecipeError(
                    f"engine.workers: need {wanted} GPUs of this machine, which has {there}. Lower it or "
                    "engine.gpus_per_worker, or use several machines: engine.kind ray."
                )

    def close(self) -> None:
        """End what was begun for all phases together."""
        if self.settings.kind == "ray":
            self._disconnect()

    def outlive(self, work: Callable[[], Result]) -> Result:
        """What work() gives. Where its workers are lost it begins anew, at most `engine.restarts` times, and
        must find what it had saved.
        """
        lost = 0
        while True:
            try:
                return work()
            except WorkersLostError as error:
                lost += 1
                if lost > self.settings.restarts:
                    raise
                self._tell(f"{error}. It goes on ({lost} of {self.settings.restarts})")

    def is_here(self, phase: Phase) -> bool:
        """Is a phase's crew this process alone?"""
        return self.settings.kind == "local" and self.settings.workers_of(phase) == 1

    def carried(self, root: Path, folders: Iterable[Path]) -> Path | Luggage:
        """Folders below a root, as workers can have them: the root itself, or the files where workers share
        no disk with this process.
        """
        return root if self.settings.kind == "local" else Luggage.pack(root, folders)

    @contextmanager
    def crew(
        self, phase: Phase, make: Make, here: Callable[[], Host], workers: int = 0
    ) -> Iterator[Crew[Host]]:
        """A phase's crew, which ends with the block. here: makes the host where the crew is this process
        alone. workers: how many, if not as many as the settings say.
        """
        if self.is_here(phase):
            yield Alone(here())
            return
        count = workers or self.settings.workers_of(phase)
        with self._workers(phase, count) as own:
            yield Team(own, replace(make, device=self.device.type), self._tell)

    @contextmanager
    def _workers(self, phase: Phase, count: int) -> Iterator[Sequence[Worker]]:
        gpus = self.settings.gpus_of(phase, self.device.type)
        if self.settings.kind == "ray":
            from sparring.engine.cluster import actors

            with actors(count, gpus) as own:
                yield own
            return
        if phase == "play" and gpus:  # frozen players may share a GPU
            gpus = min(gpus, torch.cuda.device_count() / count)
        local = list[LocalWorker]()
        try:
            local += (LocalWorker(gpus_of(number, count, gpus)) for number in range(count))
            yield local
        finally:
            for worker in local:
                worker.end()


class OnCall(Generic[Host]):
    """A crew of frozen players that is made when it is first asked for, and again after `close`."""

    def __init__(self, engine: Engine, make: Make | None, here: Callable[[], Host]) -> None:
        """As for `Engine.crew`. make: None where it is this process alone, whatever the engine."""
        self._engine, self._make, self._here = engine, make, here
        self._made = ExitStack()
        self._crew: Crew[Host] | None = None

    def __call__(self) -> Crew[Host]:
        if self._crew is None:
            self._crew = (
                Alone(self._here())
                if self._make is None
                else self._made.enter_context(self._engine.crew("play", self._make, self._here))
            )
        return self._crew

    def close(self) -> None:
        """Let the crew go."""
        self._crew = None
        self._made.close()


@contextmanager
def landing(place: Path | Luggage) -> Iterator[Path]:
    """In a worker: the root of what was carried there, until the block ends."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="sparring-") as folder:
        yield place.unpack(Path(folder))


def landed(place: Path | Luggage) -> Path:
    """In a worker: the root of what was carried there, as long as the process lives."""
    return _landed.enter_context(landing(place))


_landed = ExitStack()
