"""The optimiser of an editor's trainable weights, and its state on disk: what the trainer and the fine-tuning share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparring.data.errors import RunError, TrainingError

PATIENCE = 5
ADAM = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """AdamW with gradient clipping over named parameters. A step whose gradient is not finite is left out and counted."""

    def __init__(
        self, parameters: dict[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float, max_grad_norm: float
    ) -> None:
        if not parameters:
            raise TrainingError("the editor has no trainable weights")
        self.parameters = parameters
        self.max_grad_norm = max_grad_norm
        self.optimizer = torch.optim.AdamW(list(parameters.values()), lr=learning_rate, weight_decay=weight_decay)
        self.skipped_in_a_row = 0

    def set_rate(self, learning_rate: float) -> None:
        """The learning rate of the steps to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def step(self, where: str) -> tuple[float, bool]:
        """Clip, step, and forget the gradients. Returns (norm of the gradient before clipping, whether the step was taken).

        Raises TrainingError after five steps in a row that could not be taken; `where` names them in the message.
        """
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.max_grad_norm).item()
        finite = norm == norm and norm != float("inf")
        if finite:
            self.optimizer.step()
            self.skipped_in_a_row = 0
        else:
            self.skipped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.skipped_in_a_row >= PATIENCE:
            raise TrainingError(f"{where}: the gradient was not finite {PATIENCE} times in a row. Lower the learning rate, or use float32.")
        return (norm if finite else 0.0), finite

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the weights as they are."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @contextmanager
    def using(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """Inside, the parameters hold other weights. Not for code that computes gradients."""
        present = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = weights[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = present[name]

    def save(self, path: Path, extra: dict[str, Tensor], numbers: dict[str, int]) -> None:
        """Write weights, optimiser, other tensors and whole numbers as one safetensors file, put in place at once."""
        tensors = {f"extra/{name}": tensor for name, tensor in extra.items()}
        for name, parameter in self.parameters.items():
            tensors[f"weight/{name}"] = parameter.detach()
            for field in ADAM:
                if parameter in self.optimizer.state:
                    tensors[f"{field}/{name}"] = self.optimizer.state[parameter][field]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        numbers = {**numbers, "skipped_in_a_row": self.skipped_in_a_row}
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial, metadata={"numbers": json.dumps(numbers)})
        os.replace(partial, path)

    def load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Read what `save` wrote into weights and optimiser; returns the other tensors and the numbers.

        Raises RunError when the file is missing, damaged, or belongs to other weights.
        """
        try:
            with safe_open(path, framework="pt") as file:
                numbers: dict[str, int] = json.loads((file.metadata() or {})["numbers"])
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise RunError(f"{path}: no readable training state ({error}). Remove the stage's folder to train it afresh.") from error
        saved = {name.removeprefix("weight/"): tensor for name, tensor in tensors.items() if name.startswith("weight/")}
        if {name: tensor.shape for name, tensor in saved.items()} != {name: p.shape for name, p in self.parameters.items()}:
            raise RunError(
                f"{path}: the training state belongs to an editor with other trainable weights. Use the recipe that it was saved with."
            )
        self.optimizer.state.clear()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(saved[name])
                if f"step/{name}" in tensors:
                    state = {field: tensors[f"{field}/{name}"] for field in ADAM}
                    self.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
        self.skipped_in_a_row = numbers["skipped_in_a_row"]
        extra = {name.removeprefix("extra/"): tensor for name, tensor in tensors.items() if name.startswith("extra/")}
        return extra, numbers
