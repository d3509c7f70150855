"""The weights that an update compares: the editor's present ones, those of an old policy, and those of a reference that never changes."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor

from sparring.attackers.learner import Learner
from sparring.config import AttackerSettings
from sparring.models.editors import FlowEditor
from sparring.rl import nft


class Policies:
    """`old` makes the samples of DiffusionNFT and AWM and follows the present weights slowly; with Flow-GRPO there is none.

    `reference` is what the KL term holds on to: the editor as it was at the start where all weights are trained; with a LoRA it is the editor
    without it, and nothing is stored.
    """

    def __init__(self, editor: FlowEditor, learner: Learner, settings: AttackerSettings) -> None:
        self.editor, self.learner, self.settings = editor, learner, settings
        self.old = {} if settings.algorithm == "flow_grpo" else learner.snapshot()
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
        if self.old:
            settings = self.settings
            nft.blend(self.old, dict(self.learner.parameters), nft.old_decay(step, settings.old_ema_slope, settings.old_ema_max))

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
