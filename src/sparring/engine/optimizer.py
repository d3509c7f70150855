"""The optimiser of both players: AdamW over named weights, its schedule, and its state on disk.

Weights may be sharded, and gradients may be those of a process's share of the loss: see `engine.ranks`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparring.data.errors import RunError, TrainingError
from sparring.engine.ranks import Ranks, full, placed_like, writes_files

PATIENCE = 5
MOMENTS = ("exp_avg", "exp_avg_sq")


def rate_factor(step: int, steps: int, end: float) -> float:
    """What the learning rate of update `step` (from 0) of `steps` is multiplied by.

    1 at the first update, `end` at the last and after it, in a straight line between.
    """
    return 1 + (end - 1) * min(1.0, step / max(1, steps - 1))


class Optimizer:
    """AdamW (arXiv 1711.05101, PyTorch's form) with the gradient's norm clipped, over parameters by name.

    A step whose loss or gradient is not finite is left out; `skipped_in_a_row` counts these. `master` is what
    AdamW works on: the parameters, but `copies` in float32 of those in 16 bits, which would lose its steps by
    rounding. From here on such a parameter follows its copy, whatever else is written into it.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        ranks: Ranks | None = None,
    ) -> None:
        """ranks: the processes whose gradients are summed. TrainingError where there are no parameters."""
        if not parameters:
            raise TrainingError("the model has no trainable weights")
        self.parameters, self.ranks = dict(parameters), ranks or Ranks()
        self.learning_rate, self.max_grad_norm = learning_rate, max_grad_norm
        self.copies = {name: p.detach().float() for name, p in parameters.items() if p.dtype != torch.float32}
        self.master: dict[str, Tensor] = {**parameters, **self.copies}
        # One tensor at a time: all at once, torch's way on a GPU, takes another copy of the weights.
        self.adamw = torch.optim.AdamW(
            self.master.values(), lr=learning_rate, weight_decay=weight_decay, foreach=False
        )
        self.skipped_in_a_row = 0

    def set_rate(self, step: int, steps: int, end: float) -> None:
        """The learning rate of update `step` of `steps`: see `rate_factor`."""
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate * rate_factor(step, steps, end)

    def step(self, where: str) -> float | None:
        """Sum the processes' gradients, clip them, take a step, and forget them.

        Returns the norm of the gradient before clipping, or None where it was not finite and no step was
        taken. `where` names the step in the TrainingError after five in a row that were left out.
        """
        self.ranks.sum_gradients(self.parameters.values())
        norm: float = full(nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm)).item()
        if not math.isfinite(norm):
            self.leave_out(where)
            return None
        for name, copy in self.copies.items():
            gradient = self.parameters[name].grad
            copy.grad = None if gradient is None else gradient.float()
        self.adamw.step()
        with torch.no_grad():
            for name, copy in self.copies.items():
                self.parameters[name].copy_(copy)
        self.clear_gradients()
        self.skipped_in_a_row = 0
        return norm

    def leave_out(self, where: str) -> None:
        """Count a step that is not taken, its loss or gradient not being finite, and forget its gradients.

        Raises TrainingError when it is the fifth in a row.
        """
        self.clear_gradients()
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= PATIENCE:
            raise TrainingError(
                f"{where}: the loss or its gradient was not finite in {PATIENCE} steps in a row. "
                "Lower learning_rate, or set dtype to float32."
            )

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for tensor in (*self.parameters.values(), *self.copies.values()):
            tensor.grad = None

    # ---- state

    def save(self, path: Path, numbers: Mapping[str, float] = {}, extra: Mapping[str, Tensor] = {}) -> None:
        """Write weights, AdamW's state, numbers and other tensors as one file, put in place at once.

        Several processes all call it; the first one writes.
        """
        tensors = {f"extra/{name}": tensor for name, tensor in extra.items()}
        tensors |= {name: tensor.detach() for name, tensor in self._weights().items()}
        for name, master in self.master.items():
            tensors |= {f"{field}/{name}": value for field, value in self.adamw.state.get(master, {}).items()}
        whole = {}
        for name, tensor in tensors.items():
            gathered = full(tensor)
            if writes_files():
                whole[name] = gathered.contiguous().cpu()
        if not writes_files():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        counted = {**numbers, "skipped_in_a_row": self.skipped_in_a_row}
        save_file(whole, partial, metadata={"numbers": json.dumps(counted)})
        os.replace(partial, path)

    def load(self, path: Path) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Read what `save` wrote into weights and AdamW; returns the numbers and the other tensors.

        Raises RunError, with everything left as it was, where the file is missing, damaged, of an older form,
        or belongs to other weights.
        """
        tensors, numbers = _read(path)
        _require_same(path, under("weight/", tensors), self.parameters)
        _require_same(path, under("master/", tensors), self.copies)
        with torch.no_grad():
            for name, weight in self._weights().items():
                weight.copy_(placed_like(tensors[name], weight))
        self.adamw.state.clear()
        for name, master in self.master.items():
            if f"step/{name}" in tensors:
                moments = {field: placed_like(tensors[f"{field}/{name}"], master) for field in MOMENTS}
                self.adamw.state[master] = {"step": tensors[f"step/{name}"], **moments}
        self.skipped_in_a_row = int(numbers["skipped_in_a_row"])
        return numbers, under("extra/", tensors)

    def _weights(self) -> dict[str, Tensor]:
        """All that steps change, by its name in a state."""
        parameters = {f"weight/{name}": parameter for name, parameter in self.parameters.items()}
        return {**parameters, **{f"master/{name}": copy for name, copy in self.copies.items()}}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _require_same(path: Path, saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """RunError unless both have the same names and shapes."""
    for name in sorted(saved.keys() | wanted.keys()):
        there, here = (list(of[name].shape) if name in of else "missing" for of in (saved, wanted))
        if there != here:
            raise RunError(
                f"{path}: this training state belongs to other trainable weights or another dtype: {name} is "
                f"{there} there and {here} here. Go on with the settings that it was saved with, or remove "
                "the stage's folder to train it afresh."
            )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors and the numbers of a state's file. RunError where they cannot be had."""
    advice = "Remove the stage's folder to train it afresh"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            told = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: no readable training state ({error}). {advice}.") from error
    if "numbers" not in told:
        raise RunError(f"{path}: a training state in an older version's form. {advice}, or use that version.")
    numbers: dict[str, float] = json.loads(told["numbers"])
    return tensors, numbers
