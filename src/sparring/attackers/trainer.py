"""The Attacker learns: edits of the same picture with the same instruction are a group, and the judge's rewards turn into one update.

Two algorithms behind one call. Flow-GRPO (arXiv 2505.05470, with a window of stochastic steps as in Flow-GRPO-Fast and MixGRPO) replays the
stochastic steps and weighs them by their ratios; DiffusionNFT (arXiv 2509.16117) noises the final latents afresh and needs no likelihoods.
Letters: P questions, G edits of one question, B rows of a batch, W steps of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.learner import Learner
from sparring.attackers.rollout import Chance, Rollout, by_size, replay_logp, roll_out, sample_seed
from sparring.config import AttackerSettings
from sparring.data.errors import TrainingError
from sparring.data.records import VisualQuestion
from sparring.models.editors import FlowEditor
from sparring.rl import flow, nft
from sparring.rl.advantages import group_advantages
from sparring.rl.schedule import rate_factor
from sparring.rl.seeds import derive_seed

RewardFunction = Callable[[list[list[Image]]], Tensor]
STATE = "attacker.safetensors"
SAME_REWARD = 1e-6


class AttackerTrainer:
    """Trains an editor in place: its LoRA (a new one where it has none), or all weights of its transformer when `settings.lora` is null."""

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, seed: int) -> None:
        if settings.lora is None and editor.has_lora:
            raise TrainingError("attacker.lora is null, but the editor carries a LoRA: merge_lora() or remove_lora() first")
        if settings.lora is not None and not editor.has_lora:
            editor.add_lora(settings.lora.rank, settings.lora.alpha, derive_seed(seed, "lora"))
        if settings.algorithm == "flow_grpo":
            if settings.noise_level == 0:
                raise TrainingError("attacker.noise_level is 0: Flow-GRPO learns from its own noise and needs some (0.7 is usual)")
            self._window(settings, seed, 0)
        self.editor, self.settings, self.seed = editor, settings, seed
        self.learner = Learner(
            editor.trainable_parameters(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )
        self.old = self.learner.snapshot() if settings.algorithm == "diffusion_nft" else {}
        self.reference = self.learner.snapshot() if settings.kl_weight > 0 and settings.lora is None else {}

    def update(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], reward_fn: RewardFunction, step: int
    ) -> dict[str, float]:
        """Edit every question's picture G times, have the edits rewarded, and learn from groups whose rewards differ.

        questions, images: P of each; pictures may differ in size. reward_fn: edits (P lists of G pictures) -> rewards_PG.
        step: number of the update, from 0; what the update draws depends on it and on the trainer's seed alone.
        Returns reward_mean, reward_std (mean over groups), dead_groups (share without signal), loss, grad_norm, skipped (optimiser steps
        left out because their gradient was not finite); Flow-GRPO also ratio_mean, ratio_first (the ratio farthest from 1 before the first
        optimiser step), clip_fraction; with a KL weight, kl.
        """
        rollouts, owners = self._edit(questions, images, step)
        group = self.settings.group_size
        edits: list[list[Image]] = [[] for _ in questions]
        for rollout, places in zip(rollouts, owners, strict=True):
            for row, place in enumerate(places):
                edits[place] = rollout.edits[row * group : (row + 1) * group]
        rewards_PG = torch.as_tensor(reward_fn(edits), dtype=torch.float32).cpu()
        names = ", ".join(question.id for question in questions)
        if rewards_PG.shape != (len(questions), group) or not bool(rewards_PG.isfinite().all()):
            raise TrainingError(f"attacker update {step} on questions {names}: rewards must be {len(questions)} x {group} finite numbers")
        advantages_PG = group_advantages(rewards_PG, std_over=self.settings.std_over, clip=self.settings.advantage_clip)
        live_P = rewards_PG.amax(1) - rewards_PG.amin(1) > SAME_REWARD
        advantages = [advantages_PG[places].flatten().to(self.editor.device) for places in owners]
        live = [live_P[places].repeat_interleave(group) for places in owners]
        metrics = self._learn(rollouts, advantages, live, step, f"attacker update {step} on questions {names}")
        if self.old:
            nft.blend(self.old, dict(self.learner.parameters), nft.old_decay(step, self.settings.nft_ema_slope, self.settings.nft_ema_max))
        shares = {"reward_mean": rewards_PG.mean().item(), "reward_std": rewards_PG.std(1).mean().item()}
        return {**shares, "dead_groups": 1 - live_P.float().mean().item(), **metrics}

    def _edit(self, questions: Sequence[VisualQuestion], images: Sequence[Image], step: int) -> tuple[list[Rollout], list[list[int]]]:
        """Roll-outs by picture size, and which questions each one holds. DiffusionNFT's samples are the old policy's."""
        settings, rollouts, owners = self.settings, [], by_size(images)
        chance = Chance()
        if settings.algorithm == "flow_grpo":
            chance = Chance(self._window(settings, self.seed, step), settings.sampler, settings.noise_level)
        for places in owners:
            instructions = [settings.instruction.replace("{question}", questions[place].question) for place in places]
            conditions = self.editor.encode([images[place] for place in places], instructions, guidance_scale=settings.guidance_scale)
            rows_B = torch.arange(len(places)).repeat_interleave(settings.group_size)
            seeds = [sample_seed(self.seed, step, questions[place].id, sample) for place in places for sample in range(settings.group_size)]
            with self.learner.using(self.old or {name: parameter.data for name, parameter in self.learner.parameters.items()}):
                rollouts.append(
                    roll_out(
                        self.editor, conditions, rows_B, seeds, steps=settings.rollout_steps, chance=chance, batch=settings.micro_batch
                    )
                )
        return rollouts, owners

    def _learn(self, rollouts: list[Rollout], advantages: list[Tensor], live: list[Tensor], step: int, where: str) -> dict[str, float]:
        """The optimiser steps of one update, over the rows that have a signal."""
        settings = self.settings
        self.learner.set_rate(settings.learning_rate * rate_factor(step, settings.steps, settings.learning_rate_end))
        items = [(number, row) for number, alive in enumerate(live) for row in alive.nonzero().flatten().tolist()]
        if settings.optimizer_steps > 1:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "shares", step))
            items = [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]
        shares = [share for first in range(settings.optimizer_steps) if (share := items[first :: settings.optimizer_steps])]
        sums: dict[str, float] = {"loss": 0.0, **({"kl": 0.0} if settings.kl_weight > 0 else {})}
        if settings.algorithm == "flow_grpo":
            sums.update(ratio_mean=0.0, clip_fraction=0.0)
        worst, norms, skipped = 1.0, 0.0, 0
        for number, share in enumerate(shares):
            for which, rollout in enumerate(rollouts):
                rows = torch.tensor([row for owner, row in share if owner == which], dtype=torch.long)
                for part in torch.split(rows, settings.micro_batch) if len(rows) else ():
                    learn = self._learn_grpo if settings.algorithm == "flow_grpo" else self._learn_nft
                    metrics = learn(rollout, part, advantages[which][part], len(share))
                    for name in sums:
                        sums[name] += metrics[name] * len(part) / len(items)
                    if number == 0 and abs(metrics.get("ratio_worst", 1.0) - 1) > abs(worst - 1):
                        worst = metrics["ratio_worst"]
            norm, taken = self.learner.step(where)
            norms, skipped = norms + norm / len(shares), skipped + (not taken)
        first = {"ratio_first": worst} if settings.algorithm == "flow_grpo" else {}
        if not items and first:
            sums["ratio_mean"] = 1.0  # nothing was replayed, nothing moved
        return {
            **{name: value if value == value else 0.0 for name, value in sums.items()},
            **first,
            "grad_norm": norms,
            "skipped": float(skipped),
        }

    def _learn_grpo(self, rollout: Rollout, rows: Tensor, advantages_B: Tensor, rows_in_all: int) -> dict[str, float]:
        """Gradients of Flow-GRPO for some rows: every step of the window is replayed."""
        width = len(rollout.chance.window)
        totals = dict.fromkeys(("loss", "kl", "ratio_mean", "clip_fraction"), 0.0)
        worst = 1.0
        for place in range(width):
            reference = None
            if self.settings.kl_weight > 0:
                with torch.no_grad(), self._reference():
                    _, reference, _ = replay_logp(self.editor, rollout, place, rows)
            logp_B, mean, std = replay_logp(self.editor, rollout, place, rows)
            old_logp_B = rollout.old_logp_WB[place, rows].to(logp_B)
            loss, metrics = flow.flow_grpo_loss(logp_B, old_logp_B, advantages_B, self.settings.clip_range, rows_in_all * width)
            if reference is not None:
                scale = 1.0 if rollout.chance.sampler == "cps" else 1 / (2 * std**2)
                kl_B = ((mean - reference) ** 2).flatten(1).mean(1) * scale
                loss = loss + self.settings.kl_weight * kl_B.sum() / (rows_in_all * width)
                totals["kl"] += kl_B.mean().item() / width
            torch.autograd.backward(loss)
            totals["loss"] += loss.item() * rows_in_all / len(rows)
            totals["ratio_mean"] += metrics["ratio_mean"] / width
            totals["clip_fraction"] += metrics["clip_fraction"] / width
            worst = max(worst, metrics["ratio_worst"], key=lambda ratio: abs(ratio - 1))
        return {**totals, "ratio_worst": worst}

    def _learn_nft(self, rollout: Rollout, rows: Tensor, advantages_B: Tensor, rows_in_all: int) -> dict[str, float]:
        """Gradients of DiffusionNFT for some rows: each final latent is noised to some of the roll-out's own noise levels."""
        settings, editor = self.settings, self.editor
        levels, count = torch.tensor(rollout.sigmas[:-1]), settings.nft_timesteps
        generators = [torch.Generator().manual_seed(derive_seed(rollout.seeds[row], "forward")) for row in rows.tolist()]
        chosen_KB = torch.stack([torch.randperm(len(levels), generator=generator).repeat(count)[:count] for generator in generators], dim=1)
        x0, conditions = rollout.final_BTC[rows], rollout.conditions.select(rollout.rows_B[rows])
        r_B = nft.goodness(advantages_B, settings.advantage_clip)
        totals = {"loss": 0.0, "kl": 0.0}
        for chosen_B in chosen_KB:
            sigma_B = levels[chosen_B].to(x0)
            noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators]).to(x0)
            x, u = nft.noised(x0, noise, sigma_B)
            with torch.no_grad():
                with self.learner.using(self.old):
                    v_old = editor.velocity(x, sigma_B, conditions)
                v_reference = None
                if settings.kl_weight > 0:
                    with self._reference():
                        v_reference = editor.velocity(x, sigma_B, conditions)
            v = editor.velocity(x, sigma_B, conditions)
            loss, _ = nft.nft_loss(v, v_old, u, sigma_B, r_B, settings.nft_beta, rows_in_all * count)
            # r is the advantage over twice the clip: undone here, so that the clip does not set the size of the gradient.
            loss = loss * settings.advantage_clip
            if v_reference is not None:
                kl_B = ((v - v_reference) ** 2).flatten(1).mean(1)
                loss = loss + settings.kl_weight * kl_B.sum() / (rows_in_all * count)
                totals["kl"] += kl_B.mean().item() / count
            torch.autograd.backward(loss)
            totals["loss"] += loss.item() * rows_in_all / len(rows)
        return totals

    def _reference(self) -> AbstractContextManager[None]:
        """The editor that the KL term holds on to: without its LoRA, or as it was at the start where all weights are trained."""
        return self.learner.using(self.reference) if self.reference else self.editor.lora_disabled()

    @staticmethod
    def _window(settings: AttackerSettings, seed: int, step: int) -> range:
        window = settings.window
        try:
            return flow.choose_window(seed, step, settings.rollout_steps, size=window.size, first=window.first, last=window.last)
        except ValueError as error:
            raise TrainingError(f"attacker.window: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write all that a resumed training needs: weights, optimiser, old policy, reference. Replaces an earlier state at once."""
        extra = {f"old/{name}": tensor for name, tensor in self.old.items()}
        extra |= {f"reference/{name}": tensor for name, tensor in self.reference.items()}
        self.learner.save(Path(folder) / STATE, extra, {})

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote; training then goes on as if it had never stopped. Raises RunError."""
        extra, _ = self.learner.load(Path(folder) / STATE)
        for kind, tensors in (("old", self.old), ("reference", self.reference)):
            for name in tensors:
                tensors[name].copy_(extra[f"{kind}/{name}"])
