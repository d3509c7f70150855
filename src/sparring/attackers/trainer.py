"""The Attacker learns: edits of the same picture with the same instruction are a group, and the judge's
rewards turn into one update.

The loop is one; what an algorithm adds to it is how roll-outs are stochastic and what gradients some of
their rows give: objectives.py. Letters: P questions, G edits of one question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.crops import crops_of, cut_all
from sparring.attackers.distillation import with_start_kl
from sparring.attackers.objectives import FlowGRPO, ForwardProcess, Policies, copied
from sparring.attackers.rollout import Rollout, by_size, roll_out, sample_seed
from sparring.config import AttackerSettings, FlowGRPOSettings
from sparring.data.errors import TrainingError
from sparring.data.records import VisualQuestion
from sparring.engine.optimizer import Optimizer, under
from sparring.models.editors import FlowEditor
from sparring.rl.advantages import group_advantages
from sparring.seeds import derive_seed

RewardFunction = Callable[[list[list[Image]]], Tensor | Sequence[Sequence[float]]]
STATE = "attacker.safetensors"
BEST, REWARDS = "best/", "rewards"
SAME_REWARD = 1e-6


class BestWeights:
    """The mean of the weights that made the edits of the best stretch: `window` updates in a row, by mean
    reward.

    A mean, because the weights of neighbouring updates differ by noise as much as by what was learned. With
    a window of 0, or fewer updates than the window, none are kept. The earliest of equal stretches is the
    best.
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
        self.recent = [*self.recent, copied(weights)][-self.window :]
        if self.update == len(self.rewards) - 1:
            self.weights = {name: torch.stack([one[name] for one in self.recent]).mean(0) for name in weights}

    def _means(self) -> list[float]:
        """The mean reward of every stretch, the oldest first."""
        if not self.window:
            return []
        ends = range(self.window, len(self.rewards) + 1)
        return [sum(self.rewards[end - self.window : end]) / self.window for end in ends]

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        numbered = enumerate(self.recent)
        recent = {f"{number}/{name}": tensor for number, one in numbered for name, tensor in one.items()}
        kept = {f"kept/{name}": tensor for name, tensor in self.weights.items()}
        return {REWARDS: torch.tensor(self.rewards, dtype=torch.float64), **recent, **kept}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.rewards, self.weights = tensors[REWARDS].tolist(), under("kept/", tensors)
        self.recent = [under(f"{number}/", tensors) for number in range(min(self.window, len(self.rewards)))]


class AttackerTrainer:
    """Trains an editor in place: its LoRA (a new one where it has none), or all weights of its transformer
    when `settings.lora` is null.
    """

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, seed: int) -> None:
        if settings.lora is None and editor.has_lora:
            raise TrainingError(
                "attacker.lora is null, but the editor carries a LoRA: merge_lora() or remove_lora() first"
            )
        if settings.lora is not None and not editor.has_lora:
            own = settings.lora
            editor.add_lora(own.rank, own.alpha, derive_seed(seed, "lora"), own.targets)
        settings = with_start_kl(settings, step_distilled=editor.step_distilled)
        self.editor, self.settings, self.seed = editor, settings, seed
        self.optimizer = Optimizer(
            editor.trainable_parameters(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )
        self.policies = Policies(editor, self.optimizer.parameters, settings)
        self.algorithm: FlowGRPO | ForwardProcess
        if isinstance(settings.algorithm, FlowGRPOSettings):
            self.algorithm = FlowGRPO(editor, settings, settings.algorithm, self.policies, seed)
        else:
            self.algorithm = ForwardProcess(editor, settings, settings.algorithm, self.policies)
        self.best = BestWeights(settings.keep_best)

    def update(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        reward_fn: RewardFunction,
        step: int,
    ) -> dict[str, float]:
        """Edit every question's picture G times, have the edits rewarded, and learn from groups whose rewards
        differ.

        questions, images: P of each; pictures may differ in size, and of large ones a crop is edited
        (`attackers.crops`). reward_fn: edits (P lists of G pictures, of the sizes of `images`) ->
        rewards_PG; the row of a question that nobody could judge is empty, and its edits are left out. step:
        number of the update, from 0; what the update draws depends on it and on the trainer's seed alone.
        Where edits were left out, the metrics have left_out, of how many questions; where all were, that
        alone. Returns reward_mean, reward_std (mean over groups), dead_groups (share without signal), loss,
        grad_norm, skipped (optimiser steps left out because their gradient was not finite); Flow-GRPO and
        AWM also ratio_mean and clip_fraction, Flow-GRPO ratio_first (the ratio farthest from 1 before the
        first optimiser step); with a KL weight, kl.
        """
        crops = crops_of(questions, images, self.settings.crop, self.editor.multiple)
        rollouts, owners = self._edit(questions, cut_all(images, crops), step)
        group = self.settings.group_size
        edits: list[list[Image]] = [[] for _ in questions]
        for rollout, places in zip(rollouts, owners, strict=True):
            for row, place in enumerate(places):
                edits[place] = [
                    crops[place].compose(images[place], edit)
                    for edit in rollout.edits[row * group : (row + 1) * group]
                ]
        rows = [torch.as_tensor(row, dtype=torch.float32).cpu() for row in reward_fn(edits)]
        names = ", ".join(question.id for question in questions)
        judged = [place for place, row in enumerate(rows) if row.shape != (0,)]
        if len(rows) != len(questions) or any(
            rows[i].shape != (group,) or not bool(rows[i].isfinite().all()) for i in judged
        ):
            raise TrainingError(
                f"attacker update {step} on questions {names}: rewards must be {len(questions)} x {group} "
                f"finite numbers"
            )
        left_out = {"left_out": float(len(questions) - len(judged))} if len(judged) < len(questions) else {}
        if not judged:
            self.policies.follow(step)
            return left_out
        rewards_PG = torch.stack([rows[i] for i in judged])  # of the judged ones
        self.best.see(rewards_PG.mean().item(), self.policies.sampler())
        advantages_PG, live_P = (
            torch.zeros(len(questions), group),
            torch.zeros(len(questions), dtype=torch.bool),
        )
        advantages_PG[judged] = group_advantages(
            rewards_PG, std_over=self.settings.std_over, clip=self.settings.advantage_clip
        )
        live_P[judged] = rewards_PG.amax(1) - rewards_PG.amin(1) > SAME_REWARD
        advantages = [advantages_PG[places].flatten().to(self.editor.device) for places in owners]
        live = [live_P[places].repeat_interleave(group) for places in owners]
        metrics = self._learn(
            rollouts, advantages, live, step, f"attacker update {step} on questions {names}"
        )
        self.policies.follow(step)
        shares = {"reward_mean": rewards_PG.mean().item(), "reward_std": rewards_PG.std(1).mean().item()}
        return {**shares, "dead_groups": 1 - live_P[judged].float().mean().item(), **metrics, **left_out}

    def _edit(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], step: int
    ) -> tuple[list[Rollout], list[list[int]]]:
        """Roll-outs by size of what is edited, and which questions each one holds."""
        settings, rollouts, owners = self.settings, [], by_size(images)
        chance = self.algorithm.chance(step)
        for places in owners:
            instructions = [settings.instruct(questions[place].question) for place in places]
            conditions = self.editor.encode(
                [images[place] for place in places], instructions, guidance_scale=settings.guidance_scale
            )
            rows_B = torch.arange(len(places)).repeat_interleave(settings.group_size)
            seeds = [
                sample_seed(self.seed, step, questions[place].id, sample)
                for place in places
                for sample in range(settings.group_size)
            ]
            with self.policies.as_sampler():
                rollouts.append(
                    roll_out(
                        self.editor,
                        conditions,
                        rows_B,
                        seeds,
                        steps=settings.rollout_steps,
                        chance=chance,
                        batch=settings.micro_batch,
                    )
                )
        return rollouts, owners

    def _learn(
        self, rollouts: list[Rollout], advantages: list[Tensor], live: list[Tensor], step: int, where: str
    ) -> dict[str, float]:
        """The optimiser steps of one update, over the rows that have a signal."""
        settings = self.settings
        self.optimizer.set_rate(step, settings.steps, settings.learning_rate_end)
        items = [
            (number, row) for number, alive in enumerate(live) for row in alive.nonzero().flatten().tolist()
        ]
        if settings.optimizer_steps > 1:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "shares", step))
            items = [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]
        shares = [
            share
            for first in range(settings.optimizer_steps)
            if (share := items[first :: settings.optimizer_steps])
        ]
        sums = dict.fromkeys((*self.algorithm.metrics, *(("kl",) if settings.kl_weight else ())), 0.0)
        worst, norms, skipped = 1.0, 0.0, 0
        for number, share in enumerate(shares):
            for which, rollout in enumerate(rollouts):
                rows = torch.tensor([row for owner, row in share if owner == which], dtype=torch.long)
                for part in torch.split(rows, settings.micro_batch) if len(rows) else ():
                    metrics = self.algorithm.learn(rollout, part, advantages[which][part], len(share))
                    for name in sums:
                        sums[name] += metrics[name] * len(part) / len(items)
                    if number == 0 and abs(metrics.get("ratio_worst", 1.0) - 1) > abs(worst - 1):
                        worst = metrics["ratio_worst"]
            norm = self.optimizer.step(where)
            norms, skipped = norms + (norm or 0.0) / len(shares), skipped + (norm is None)
        first = {"ratio_first": worst} if isinstance(self.algorithm, FlowGRPO) else {}
        if not items and "ratio_mean" in sums:
            sums["ratio_mean"] = 1.0  # nothing was replayed, nothing moved
        return {
            **{name: value if value == value else 0.0 for name, value in sums.items()},
            **first,
            "grad_norm": norms,
            "skipped": float(skipped),
        }

    def settle(self) -> int | None:
        """After the last update: go back to the mean weights of the best stretch of `settings.keep_best`
        updates. Training cannot go on after it.

        Returns the number of the stretch's last update; None where the last weights stay, because there was
        no such stretch.
        """
        for name, weight in self.best.weights.items():
            self.optimizer.parameters[name].data.copy_(weight)
        return self.best.update

    def save(self, folder: str | Path) -> None:
        """Write all that a resumed training needs: weights, optimiser, old policy, reference, best weights.
        Replaces an earlier state at once.
        """
        best = {f"{BEST}{name}": tensor for name, tensor in self.best.state().items()}
        self.optimizer.save(Path(folder) / STATE, extra=self.policies.state() | best)

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote; training then goes on as if it had never stopped. Raises RunError."""
        _, extra = self.optimizer.load(Path(folder) / STATE)
        self.policies.load_state(extra)
        self.best.load_state(under(BEST, extra))
