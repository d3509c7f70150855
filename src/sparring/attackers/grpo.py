"""Flow-GRPO (arXiv 2505.05470): the stochastic steps of a roll-out are replayed and weighed by their ratios.

What has a name of its own is a setting: Flow-GRPO-Fast is a short window whose groups share what comes before it; MixGRPO a window that slides;
DanceGRPO's steps are `sampler: constant`; GRPO-Guard is `grpo_guard`. Letters: B rows of a batch, W steps of the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparring.attackers.policies import Policies
from sparring.attackers.rollout import Chance, Rollout, replay
from sparring.config import AttackerSettings
from sparring.data.errors import TrainingError
from sparring.models.editors import FlowEditor
from sparring.rl import flow
from sparring.rl.window import choose_window


class FlowGRPO:
    """How roll-outs are stochastic, and the gradients that they give."""

    metrics = ("loss", "ratio_mean", "clip_fraction")

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, policies: Policies, seed: int) -> None:
        if settings.noise_level == 0:
            raise TrainingError("attacker.noise_level is 0: Flow-GRPO learns from its own noise and needs some (0.7 is usual)")
        self.editor, self.settings, self.policies, self.seed = editor, settings, policies, seed
        self.chance(0)

    def chance(self, step: int) -> Chance:
        """Where the roll-outs of update `step` are stochastic, the same in every process. Raises TrainingError where no window fits."""
        settings, window = self.settings, self.settings.window
        try:
            steps = choose_window(
                self.seed,
                step,
                settings.rollout_steps,
                size=window.size,
                first=window.first,
                last=window.last,
                move=window.move,
                every=window.every,
                stride=window.stride,
                wrap=window.wrap,
            )
        except ValueError as error:
            raise TrainingError(f"attacker.window: {error}") from error
        return Chance(
            steps,
            settings.sampler,
            settings.noise_level,
            shared_start=window.shared_start,
            state_dtype=getattr(torch, settings.state_dtype),
            keep_means=settings.grpo_guard,
        )

    def learn(self, rollout: Rollout, rows: Tensor, advantages_B: Tensor, rows_in_all: int) -> dict[str, float]:
        """Gradients of some rows, of `rows_in_all` in the optimiser step: every step of the window is replayed."""
        settings, window = self.settings, rollout.chance.window
        width = len(window)
        totals = dict.fromkeys((*self.metrics, "kl"), 0.0)
        worst = 1.0
        for place in range(width):
            reference, length = None, rollout.sigmas[window[place]] - rollout.sigmas[window[place] + 1]
            if settings.kl_weight:
                with torch.no_grad(), self.policies.as_reference():
                    _, reference, _ = replay(self.editor, rollout, place, rows)
            log_ratio_B, mean, std = replay(self.editor, rollout, place, rows)
            loss, metrics = flow.clipped_loss(log_ratio_B, advantages_B, settings.clip_range, rows_in_all * width)
            if settings.grpo_guard:
                # The mean moves with v dt: without this a long step would weigh more than a short one (GRPO-Guard, section 4.2).
                loss = loss / length
            if reference is not None and settings.kl_weight:
                kl_B = flow.reference_divergence(rollout.chance.sampler, mean, reference, std, length)
                loss = loss + settings.kl_weight * kl_B.sum() / (rows_in_all * width)
                totals["kl"] += kl_B.mean().item() / width
            torch.autograd.backward(loss)
            totals["loss"] += loss.item() * rows_in_all / len(rows)
            totals["ratio_mean"] += metrics["ratio_mean"] / width
            totals["clip_fraction"] += metrics["clip_fraction"] / width
            worst = max(worst, metrics["ratio_worst"], key=lambda ratio: abs(ratio - 1))
        return {**totals, "ratio_worst": worst}
