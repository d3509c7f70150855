"""DiffusionNFT (arXiv 2509.16117) and AWM (arXiv 2509.25050): learning on the forward process.

Both noise the final latents of a roll-out afresh and compare the present velocity there with that of the old policy, which made the roll-out; they
need neither likelihoods nor a stochastic sampler, and keep no states. Letters: B rows of a batch, K noise levels a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparring.attackers.policies import Policies
from sparring.attackers.rollout import Chance, Rollout
from sparring.config import AttackerSettings
from sparring.models.editors import FlowEditor
from sparring.rl import awm, nft
from sparring.rl.seeds import derive_seed


class ForwardProcess:
    """The gradients of DiffusionNFT or AWM, by `settings.algorithm`."""

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, policies: Policies) -> None:
        self.editor, self.settings, self.policies = editor, settings, policies
        self.metrics = ("loss", "ratio_mean", "clip_fraction") if settings.algorithm == "awm" else ("loss",)

    def chance(self, step: int) -> Chance:
        """Deterministic roll-outs: a group's edits differ by the noise that they begin from."""
        return Chance()

    def learn(self, rollout: Rollout, rows: Tensor, advantages_B: Tensor, rows_in_all: int) -> dict[str, float]:
        """Gradients of some rows, of `rows_in_all` in the optimiser step: each final latent is noised to some of the roll-out's noise levels."""
        settings, editor = self.settings, self.editor
        levels, count = torch.tensor(rollout.sigmas[:-1]), settings.forward_timesteps
        generators = [torch.Generator().manual_seed(derive_seed(rollout.seeds[row], "forward")) for row in rows.tolist()]
        chosen_KB = torch.stack([torch.randperm(len(levels), generator=generator).repeat(count)[:count] for generator in generators], dim=1)
        x0, conditions = rollout.final_BTC[rows], rollout.conditions.select(rollout.rows_B[rows])
        totals = dict.fromkeys((*self.metrics, "kl"), 0.0)
        for chosen_B in chosen_KB:
            sigma_B = levels[chosen_B].to(x0)
            noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators]).to(x0)
            x, u = nft.noised(x0, noise, sigma_B)
            with torch.no_grad():
                with self.policies.as_sampler():
                    v_old = editor.velocity(x, sigma_B, conditions)
                v_reference = None
                if settings.kl_weight:
                    with self.policies.as_reference():
                        v_reference = editor.velocity(x, sigma_B, conditions)
            v = editor.velocity(x, sigma_B, conditions)
            loss, metrics = self._loss(v, v_old, u, sigma_B, advantages_B, rows_in_all * count)
            if v_reference is not None and settings.kl_weight:
                kl_B = ((v - v_reference) ** 2).flatten(1).mean(1)
                loss = loss + settings.kl_weight * kl_B.sum() / (rows_in_all * count)
                totals["kl"] += kl_B.mean().item() / count
            torch.autograd.backward(loss)
            totals["loss"] += loss.item() * rows_in_all / len(rows)
            for name in self.metrics[1:]:
                totals[name] += metrics[name] / count
        return totals

    def _loss(
        self, v: Tensor, v_old: Tensor, u: Tensor, sigma_B: Tensor, advantages_B: Tensor, denominator: int
    ) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        if settings.algorithm == "awm":
            return awm.awm_loss(
                v,
                v_old,
                u,
                sigma_B,
                advantages_B,
                power=settings.awm_power,
                clip_range=settings.awm_clip_range,
                old_weight=settings.awm_old_weight,
                denominator=denominator,
            )
        r_B = nft.goodness(advantages_B, settings.advantage_clip)
        loss, metrics = nft.nft_loss(v, v_old, u, sigma_B, r_B, settings.nft_beta, denominator)
        # r is the advantage over twice the clip: undone here, so that the clip does not set the size of the gradient.
        return loss * settings.advantage_clip, metrics
