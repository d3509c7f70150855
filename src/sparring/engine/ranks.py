"""Several processes that train one player together, one a device: data parallel, or with FSDP2.

All of them draw the same questions. Each makes the samples of its own share of them, edits or answers, and
every process is told what they earn, so that all agree on advantages and on which groups are learned from.
Then each learns from its own share of these. The update is the one that a single process would make of the
same questions, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Thing = TypeVar("Thing")


def full(tensor: Tensor) -> Tensor:
    """A tensor as a whole, wherever its parts are. All processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the other's device, and in parts as the other is."""
    moved = tensor.to(other.device)
    return (
        distribute_tensor(moved, other.device_mesh, other.placements) if isinstance(other, DTensor) else moved
    )


def writes_files() -> bool:
    """Of several processes that hold the same model, the first one writes it."""
    return not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0


PATIENCE = timedelta(hours=2)
"""How long a process waits for the others before it gives up: one may have much longer replies to write."""


def meet(count: int, number: int, address: str, *, device: torch.device) -> None:
    """Meet the other processes at "host:port", where number 0 listens; waits for all of them."""
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl",
        init_method=f"tcp://{address}",
        world_size=count,
        rank=number,
        timeout=PATIENCE,
    )


class Ranks:
    """The processes of one training, and which of them this is. Made without arguments it is the only one,
    and everything here does nothing.
    """

    def __init__(self, count: int = 1, number: int = 0, *, sharded: bool = False) -> None:
        """sharded: weights are shared out among the processes (FSDP2); else each has all."""
        self.count, self.number, self.sharded = count, number, sharded and count > 1

    @classmethod
    def here(cls, *, sharded: bool = False) -> Self:
        """The processes that have met, of which this is one; alone where none have."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_world_size(), distributed.get_rank(), sharded=sharded)

    def share(self, length: int) -> slice:
        """This process's part of so many things in a row; the parts of all processes are nearly equal."""
        borders = [number * length // self.count for number in (self.number, self.number + 1)]
        return slice(*borders)

    def gather(self, own: Sequence[Thing]) -> list[Thing]:
        """What all processes have, in their order."""
        if self.count == 1:
            return list(own)
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, list(own))
        return [thing for part in parts for thing in part]

    def before(self, length: int) -> int:
        """How many things the processes before this one have together; length: how many this one has."""
        return sum(self.gather([length])[: self.number])

    def largest(self, value: float) -> float:
        """The largest of the processes' values."""
        return max(self.gather([value]))

    def total(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The sums of the processes' values."""
        parts = self.gather([dict(metrics)])
        return {name: sum(part[name] for part in parts) for name in metrics}

    def prepare(self, model: nn.Module) -> None:
        """Let the model's weights be sharded in place, where they are to be, block by block. Its parameters
        are other ones afterwards.
        """
        if not self.sharded:
            return
        mesh = init_device_mesh(next(model.parameters()).device.type, (self.count,))
        blocks = set(getattr(model, "_no_split_modules", None) or ())
        for module in reversed([one for one in model.modules() if type(one).__name__ in blocks]):
            fully_shard(module, mesh=mesh)
        # What is left of the model, too, leaves again after a pass: its weights may change before the next.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model's weights are not sharded, so that processes may run it each at its own pace. For
        sampling: gradients are not for here.
        """
        modules: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.reshard()
                module.set_reshard_after_forward(True, recurse=False)

    def using(
        self, parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]
    ) -> AbstractContextManager[None]:
        """Inside, the parameters hold other weights. Not for code that computes gradients."""
        return _copied_in(parameters, weights) if self.sharded else _put_in(parameters, weights)

    def backward(self, loss: Tensor) -> None:
        """Gradients of this process's share of a loss. FSDP2 means over the processes what is to be summed
        here.
        """
        (loss * self.count if self.sharded else loss).backward()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of the gradients of all; FSDP2 has done it already. A weight that none
        of them used keeps no gradient.
        """
        if self.count == 1 or self.sharded:
            return
        every = list(parameters)
        used = torch.tensor(
            [parameter.grad is not None for parameter in every], dtype=torch.int32, device=every[0].device
        )
        distributed.all_reduce(used)
        gradients = []
        for parameter, users in zip(every, used.tolist(), strict=True):
            if users:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            if len(bucket) == 1 and bucket[0].is_contiguous():  # a large one is not copied
                distributed.all_reduce(bucket[0])
                continue
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([own.numel() for own in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))


BUCKET = 25 * 2**20
"""Bytes of gradients that are summed by one message: of many small ones each waits for an answer."""


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """In their order, of one type each, and no more than `BUCKET` bytes but for a single one."""
    bucket, size = list[Tensor](), 0
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or size + tensor.nbytes > BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


@contextmanager
def _put_in(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> Iterator[None]:
    present = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = present[name]


@contextmanager
def _copied_in(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """FSDP2 gathers from storage of its own, so weights are copied into it."""

    @torch.no_grad()
    def fill(values: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(values[name])

    present = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        fill(weights)
        yield
    finally:
        fill(present)
