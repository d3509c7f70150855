"""The optimiser of an editor's trainable weights, and its state on disk: what the trainer and the fine-tuning share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparring.config import AttackerSettings, ForwardProcessSettings
from sparring.data.errors import RunError, TrainingError
from sparring.models.editors import FlowEditor
from sparring.rl import nft

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


REWARDS = "rewards"


class BestWeights:
    """Of every `window` updates in a row the mean reward is taken; of the best stretch the mean of the weights that made its edits is kept.

    A mean, because the weights of neighbouring updates differ by noise as much as by what was learned. With a window of 0, or fewer updates
    than the window, none are kept. The best stretch is the earliest where several are equal.
    """

    def __init__(self, window: int) -> None:
        self.window, self.rewards = window, list[float]()
        self.recent, self.weights = list[dict[str, Tensor]](), dict[str, Tensor]()

    @property
    def update(self) -> int | None:
        """The number of the best stretch's last update, from 0."""
        means = self._means()
        return means.index(max(means)) + self.window - 1 if means else None

    def see(self, reward: float, weights: Mapping[str, Tensor]) -> None:
        """The next update: the mean reward of its edits, and the weights that made them, which are copied."""
        if not self.window:
            return
        self.rewards.append(reward)
        self.recent = [*self.recent, {name: tensor.detach().clone() for name, tensor in weights.items()}][-self.window :]
        if self.update == len(self.rewards) - 1:
            self.weights = {name: torch.stack([one[name] for one in self.recent]).mean(0) for name in weights}

    def _means(self) -> list[float]:
        """The mean reward of every stretch, the oldest first."""
        if not self.window:
            return []
        return [sum(self.rewards[end - self.window : end]) / self.window for end in range(self.window, len(self.rewards) + 1)]

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        recent = {f"{number}/{name}": tensor for number, one in enumerate(self.recent) for name, tensor in one.items()}
        kept = {f"kept/{name}": tensor for name, tensor in self.weights.items()}
        return {REWARDS: torch.tensor(self.rewards, dtype=torch.float64), **recent, **kept}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.rewards, self.weights = tensors[REWARDS].tolist(), under("kept/")
        self.recent = [under(f"{number}/") for number in range(min(self.window, len(self.rewards)))]


class Policies:
    """`old` makes the samples of DiffusionNFT and AWM and follows the present weights slowly; with Flow-GRPO there is none.

    `reference` is what the KL term holds on to: the editor as it was at the start where all weights are trained; with a LoRA it is the editor
    without it, and nothing is stored.
    """

    def __init__(self, editor: FlowEditor, learner: Learner, settings: AttackerSettings) -> None:
        self.editor, self.learner, self.settings = editor, learner, settings
        self.old = learner.snapshot() if isinstance(settings.algorithm, ForwardProcessSettings) else {}
        self.reference = learner.snapshot() if settings.kl_weight and settings.lora is None else {}

    def as_sampler(self) -> AbstractContextManager[None]:
        """Inside, the editor is the policy that makes the samples. Not for code that computes gradients."""
        return self.learner.using(self.sampler())

    def sampler(self) -> dict[str, Tensor]:
        """The weights of the policy that makes the samples, not copied."""
        return self.old or {name: parameter.data for name, parameter in self.learner.parameters.items()}

    def as_reference(self) -> AbstractContextManager[None]:
        """Inside, the editor is the reference. Not for code that computes gradients."""
        return self.learner.using(self.reference) if self.reference else self.editor.lora_disabled()

    def follow(self, step: int) -> None:
        """After update `step`: the old policy moves towards the present weights."""
        own = self.settings.algorithm
        if isinstance(own, ForwardProcessSettings):
            nft.blend(self.old, dict(self.learner.parameters), nft.old_decay(step, own.old_ema_slope, own.old_ema_max))

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs of them."""
        return {f"{kind}/{name}": tensor for kind, own in self._stored() for name, tensor in own.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for kind, own in self._stored():
            for name in own:
                own[name].copy_(tensors[f"{kind}/{name}"])

    def _stored(self) -> tuple[tuple[str, dict[str, Tensor]], ...]:
        return ("old", self.old), ("reference", self.reference)
