"""Several processes that train one Defender together, one a device: data parallel, or with FSDP2, as
accelerate has set them up.

All of them draw the same questions. Each samples the answers to its own share of them, and every process is
told all answers, so that all agree on which groups are kept. Then each learns from its own share of these.
The update is the one that a single process would make of the same questions, whatever the number of
processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from sparring.data.errors import TrainingError

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


class Ranks:
    """The processes of one training, and which of them this is. Without an accelerator it is the only one,
    and everything here does nothing.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        """Raises TrainingError for an accelerator that shards weights otherwise than FSDP2 (FSDP 1,
        DeepSpeed).
        """
        kind = "NO" if accelerator is None else accelerator.distributed_type.value
        self.accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.number: int = 0 if accelerator is None else accelerator.process_index
        self.sharded = accelerator is not None and bool(accelerator.is_fsdp2)
        if kind not in ("NO", "MULTI_CPU", "MULTI_GPU") and not self.sharded:
            raise TrainingError(
                f"a Defender trains on one process, data parallel, or with FSDP2 (fsdp_version 2), not with "
                f"{kind}"
            )

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

    def largest(self, value: float) -> float:
        """The largest of the processes' values."""
        return max(self.gather([value]))

    def total(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The sums of the processes' values."""
        parts = self.gather([dict(metrics)])
        return {name: sum(part[name] for part in parts) for name in metrics}

    def prepare(self, model: nn.Module) -> None:
        """Let the model's weights be sharded in place, where they are to be. Its parameters are other ones
        afterwards.
        """
        if self.sharded and self.accelerator is not None:
            # Accelerate insists on an optimizer beside the model. The trainer's own is made later, on the
            # weights as they are then.
            self.accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model's weights are not sharded, so that processes may run it each at its own pace. For
        sampling: gradients are not for here.
        """
        modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.reshard()
                module.set_reshard_after_forward(module is not model, recurse=False)

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
        for parameter, users in zip(every, used.tolist(), strict=True):
            if users:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                distributed.all_reduce(parameter.grad)
