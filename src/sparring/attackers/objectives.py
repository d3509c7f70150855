"""The Attacker's losses: on its own steps (Flow-GRPO) and on freshly noised pictures (DiffusionNFT, AWM).

Beside them the policies that they compare the present weights with.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from sparring.attackers.rollout import Chance, Rollout, replay
from sparring.config import (
    AttackerSettings,
    AWMSettings,
    DiffusionNFTSettings,
    FlowGRPOSettings,
    ForwardProcessSettings,
)
from sparring.data.errors import TrainingError
from sparring.engine.ranks import Ranks, placed_like
from sparring.models.editors import FlowEditor
from sparring.rl import flow, nft
from sparring.rl.flow import Window, choose_window
from sparring.rl.nft import awm_loss, distance, goodness, nft_loss, noised
from sparring.seeds import derive_seed

Parameters = Mapping[str, torch.nn.Parameter]


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of the weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


class Policies:
    """`old` makes the samples of DiffusionNFT and AWM and follows the present weights slowly.

    With Flow-GRPO there is none. `reference` is what the KL term holds on to: the editor as it was at the
    start where all weights are trained; with a LoRA it is the editor without it, and nothing is stored.
    """

    def __init__(
        self,
        editor: FlowEditor,
        parameters: Parameters,
        settings: AttackerSettings,
        ranks: Ranks | None = None,
    ) -> None:
        self.editor, self.parameters, self.settings = editor, parameters, settings
        self.ranks = ranks or Ranks()
        self.old = copied(parameters) if isinstance(settings.algorithm, ForwardProcessSettings) else {}
        self.reference = copied(parameters) if settings.kl_weight and settings.lora is None else {}

    def as_sampler(self) -> AbstractContextManager[None]:
        """Inside, the editor is the policy that makes the samples. Not for code that computes gradients."""
        return self._as(self.old) if self.old else nullcontext()

    def sampler(self) -> dict[str, Tensor]:
        """The weights of the policy that makes the samples, not copied."""
        return self.old or {name: parameter.data for name, parameter in self.parameters.items()}

    def as_reference(self) -> AbstractContextManager[None]:
        """Inside, the editor is the reference. Not for code that computes gradients."""
        return self._as(self.reference) if self.reference else self.editor.lora_disabled()

    def _as(self, weights: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        return self.ranks.using(self.parameters, weights)

    def follow(self, step: int) -> None:
        """After update `step`: the old policy moves towards the present weights."""
        own = self.settings.algorithm
        if isinstance(own, ForwardProcessSettings):
            nft.blend(
                self.old, dict(self.parameters), nft.old_decay(step, own.old_ema_slope, own.old_ema_max)
            )

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs of them."""
        return {f"{kind}/{name}": tensor for kind, own in self._stored() for name, tensor in own.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for kind, own in self._stored():
            for name in own:
                own[name].copy_(placed_like(tensors[f"{kind}/{name}"], own[name]))

    def _stored(self) -> tuple[tuple[str, dict[str, Tensor]], ...]:
        return ("old", self.old), ("reference", self.reference)


def _different(owners_B: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows differ in what the editor is given, and for every row the place of its like among them.

    The edits of a group share noise and level; at level 1 nothing is left of the edits themselves.
    """
    places: dict[tuple[int, int], int] = {}
    first, back = list[int](), list[int]()
    for row, (owner, sigma) in enumerate(zip(owners_B.tolist(), sigma_B.tolist(), strict=True)):
        key = (owner, -1 if sigma == 1 else row)
        if key not in places:
            places[key] = len(first)
            first.append(row)
        back.append(places[key])
    return torch.tensor(first), torch.tensor(back)


class ForwardProcess:
    """The gradients of DiffusionNFT or AWM, by the settings of the one or the other."""

    def __init__(
        self,
        editor: FlowEditor,
        settings: AttackerSettings,
        algorithm: DiffusionNFTSettings | AWMSettings,
        policies: Policies,
    ) -> None:
        self.editor, self.settings, self.algorithm, self.policies = editor, settings, algorithm, policies
        self.metrics = (
            ("loss", "ratio_mean", "clip_fraction") if isinstance(algorithm, AWMSettings) else ("loss",)
        )

    def chance(self, step: int) -> Chance:
        """Deterministic roll-outs: a group's edits differ by the noise that they begin from."""
        return Chance()

    def learn(
        self, rollout: Rollout, rows: Tensor, advantages_B: Tensor, rows_in_all: int, *, counts: bool = True
    ) -> dict[str, float]:
        """Gradients of some rows, of `rows_in_all` in the optimiser step: each final latent is noised to some
        of the roll-out's noise levels, all of a group alike. Rows that do not count leave the gradients as
        they are.
        """
        settings, editor = self.settings, self.editor
        levels, count = torch.tensor(rollout.sigmas[:-1]), self.algorithm.forward_timesteps
        # The edits of a group share noise and levels: advantages add up to nothing over a group, so what the
        # noise alone would do to the gradient cancels, and what differs between good and bad edits stays.
        owners = rollout.rows_B.tolist()
        generators = [
            torch.Generator().manual_seed(derive_seed(rollout.seeds[owners.index(owners[row])], "forward"))
            for row in rows.tolist()
        ]
        chosen_KB = torch.stack(
            [
                torch.randperm(len(levels), generator=generator).repeat(count)[:count]
                for generator in generators
            ],
            dim=1,
        )
        x0, conditions = rollout.final_BTC[rows], rollout.conditions.select(rollout.rows_B[rows])
        totals = dict.fromkeys((*self.metrics, "kl"), 0.0)
        for chosen_B in chosen_KB:
            sigma_B = levels[chosen_B].to(x0)
            noise = torch.stack(
                [torch.randn(x0.shape[1:], generator=generator) for generator in generators]
            ).to(x0)
            x, u = noised(x0, noise, sigma_B)
            first, back_B = _different(rollout.rows_B[rows], sigma_B)
            inputs = x[first], sigma_B[first], conditions.select(first)
            with torch.no_grad():
                with self.policies.as_sampler():
                    v_old = editor.velocity(*inputs)[back_B]
                v_reference = None
                if settings.kl_weight:
                    with self.policies.as_reference():
                        v_reference = editor.velocity(*inputs)[back_B]
            v = editor.velocity(*inputs)[back_B]
            loss, metrics = self._loss(v, v_old, u, sigma_B, advantages_B, rows_in_all * count)
            if v_reference is not None and settings.kl_weight:
                kl_B = distance(v, v_reference)
                loss = loss + settings.kl_weight * kl_B.sum() / (rows_in_all * count)
                totals["kl"] += kl_B.mean().item() / count
            self.policies.ranks.backward(loss if counts else loss * 0.0)
            totals["loss"] += loss.item() * rows_in_all / len(rows)
            for name in self.metrics[1:]:
                totals[name] += metrics[name] / count
        return totals

    def _loss(
        self, v: Tensor, v_old: Tensor, u: Tensor, sigma_B: Tensor, advantages_B: Tensor, denominator: int
    ) -> tuple[Tensor, dict[str, float]]:
        algorithm, clip = self.algorithm, self.settings.advantage_clip
        if isinstance(algorithm, AWMSettings):
            loss, metrics = awm_loss(
                v,
                v_old,
                u,
                sigma_B,
                advantages_B,
                power=algorithm.power,
                clip_range=algorithm.clip_range,
                denominator=denominator,
            )
            if algorithm.old_weight:
                loss = loss + algorithm.old_weight * distance(v, v_old).sum() / denominator
            return loss, metrics
        r_B = goodness(advantages_B, clip)
        loss, metrics = nft_loss(v, v_old, u, sigma_B, r_B, algorithm.beta, denominator)
        # r is the advantage over twice the clip: undone here, so that the clip does not set the size of the
        # gradient.
        return loss * clip, metrics


class FlowGRPO:
    """How roll-outs are stochastic, and the gradients that they give."""

    metrics = ("loss", "ratio_mean", "clip_fraction")

    def __init__(
        self,
        editor: FlowEditor,
        settings: AttackerSettings,
        algorithm: FlowGRPOSettings,
        policies: Policies,
        seed: int,
    ) -> None:
        if algorithm.noise_level == 0:
            raise TrainingError(
                "attacker.algorithm.noise_level is 0: Flow-GRPO learns from its own noise (0.7 is usual)"
            )
        self.editor, self.settings, self.algorithm, self.policies = editor, settings, algorithm, policies
        self.seed = seed
        self.chance(0)

    def chance(self, step: int) -> Chance:
        """Where the roll-outs of update `step` are stochastic, the same in every process. Raises
        TrainingError where no window fits.
        """
        algorithm, window = self.algorithm, self.algorithm.window
        try:
            steps = choose_window(
                self.seed,
                step,
                self.settings.rollout_steps,
                Window(**window.model_dump(exclude={"shared_start"})),
            )
        except ValueError as error:
            raise TrainingError(f"attacker.algorithm.window: {error}") from error
        return Chance(
            steps,
            algorithm.sampler,
            algorithm.noise_level,
            shared_start=window.shared_start,
            state_dtype=getattr(torch, algorithm.state_dtype),
            keep_means=algorithm.grpo_guard,
        )

    def learn(
        self, rollout: Rollout, rows: Tensor, advantages_B: Tensor, rows_in_all: int, *, counts: bool = True
    ) -> dict[str, float]:
        """Gradients of some rows, of `rows_in_all` in the optimiser step: every step of the window is
        replayed. Rows that do not count leave the gradients as they are.
        """
        settings, algorithm, window = self.settings, self.algorithm, rollout.chance.window
        width = len(window)
        totals = dict.fromkeys((*self.metrics, "kl"), 0.0)
        worst = 1.0
        for place in range(width):
            reference, length = None, rollout.sigmas[window[place]] - rollout.sigmas[window[place] + 1]
            if settings.kl_weight:
                with torch.no_grad(), self.policies.as_reference():
                    _, reference, _ = replay(self.editor, rollout, place, rows)
            log_ratio_B, mean, std = replay(self.editor, rollout, place, rows)
            loss, metrics = flow.clipped_loss(
                log_ratio_B, advantages_B, algorithm.clip_range, rows_in_all * width
            )
            if algorithm.grpo_guard:
                # The mean moves with v dt: without this a long step would weigh more than a short one
                # (GRPO-Guard, section 4.2).
                loss = loss / length
            if reference is not None and settings.kl_weight:
                kl_B = flow.reference_divergence(rollout.chance.sampler, mean, reference, std, length)
                loss = loss + settings.kl_weight * kl_B.sum() / (rows_in_all * width)
                totals["kl"] += kl_B.mean().item() / width
            self.policies.ranks.backward(loss if counts else loss * 0.0)
            totals["loss"] += loss.item() * rows_in_all / len(rows)
            totals["ratio_mean"] += metrics["ratio_mean"] / width
            totals["clip_fraction"] += metrics["clip_fraction"] / width
            worst = max(worst, metrics["ratio_worst"], key=lambda ratio: abs(ratio - 1))
        return {**totals, "ratio_worst": worst}
