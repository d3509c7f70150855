"""The Attacker learns: edits of the same picture with the same instruction are a group, and the judge's
rewards turn into one update.

The loop is one; what an algorithm adds to it is how roll-outs are stochastic and what gradients some of
their rows give: objectives.py. Letters: P questions, G edits of one question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.crops import crops_of, cut_all
from sparring.attackers.distillation import with_start_kl
from sparring.attackers.objectives import FlowGRPO, ForwardProcess, Policies, copied
from sparring.attackers.rollout import Rollout, by_size, nobodys, roll_out, sample_seed, velocities
from sparring.config import AttackerSettings, FlowGRPOSettings
from sparring.data.errors import TrainingError
from sparring.data.records import VisualQuestion
from sparring.engine.optimizer import Optimizer, under
from sparring.engine.ranks import Ranks, placed_like
from sparring.models.editors import FlowEditor
from sparring.rl.advantages import group_advantages
from sparring.seeds import derive_seed

RewardFunction = Callable[[list[list[Image]]], Tensor | Sequence[Sequence[float]]]
Made = Callable[[list[int], list[list[Image]]], object]
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
        """The number of the best stretch's last update, from 0, of those whose edits somebody could judge."""
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

    def load_state(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, sharded as the parameters are."""
        self.rewards = tensors[REWARDS].tolist()
        self.weights, *self.recent = (
            {name: placed_like(tensor, parameters[name]) for name, tensor in under(prefix, tensors).items()}
            for prefix in ("kept/", *(f"{n}/" for n in range(min(self.window, len(self.rewards)))))
        )


@dataclass(frozen=True, slots=True)
class Edited:
    """A roll-out of pictures of one size, and the places of their questions in the update."""

    places: list[int]
    made: Rollout

    def rows(self, items: Sequence[tuple[int, int]], group: int) -> Tensor:
        """The rows of those (place, sample) among `items` that are this one's, in their order."""
        first = {place: number * group for number, place in enumerate(self.places)}
        return torch.tensor(
            [first[place] + sample for place, sample in items if place in first], dtype=torch.long
        )


@torch.no_grad()
def _pass_again(editor: FlowEditor, made: Rollout) -> None:
    """One pass through the editor for nothing."""
    editor.velocity(made.final_BTC[:1], made.sigmas[0], made.conditions.select(slice(0, 1)))


class AttackerTrainer:
    """Trains an editor in place: its LoRA (a new one where it has none), or all weights of its transformer
    when `settings.lora` is null.
    """

    def __init__(
        self, editor: FlowEditor, settings: AttackerSettings, seed: int, ranks: Ranks | None = None
    ) -> None:
        """ranks: the processes that train the editor together; each is given the same questions."""
        if settings.lora is None and editor.has_lora:
            raise TrainingError(
                "attacker.lora is null, but the editor carries a LoRA: merge_lora() or remove_lora() first"
            )
        if settings.lora is not None and not editor.has_lora:
            own = settings.lora
            editor.add_lora(own.rank, own.alpha, derive_seed(seed, "lora"), own.targets)
        settings = with_start_kl(settings, step_distilled=editor.step_distilled)
        self.editor, self.settings, self.seed = editor, settings, seed
        self.ranks = ranks or Ranks()
        self.ranks.prepare(editor.transformer)
        self.optimizer = Optimizer(
            editor.trainable_parameters(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            ranks=self.ranks,
        )
        self.policies = Policies(editor, self.optimizer.parameters, settings, self.ranks)
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
        made: Made = lambda places, edits: None,
    ) -> dict[str, float]:
        """Edit every question's picture G times, have the edits rewarded, and learn from groups whose rewards
        differ.

        questions, images: P of each; pictures may differ in size, and of large ones a crop is edited
        (`attackers.crops`). reward_fn: edits (P lists of G pictures, of the sizes of `images`) ->
        rewards_PG; the row of a question that nobody could judge is empty, and its edits are left out. Of
        several processes each rewards the edits of its own share of the questions (`Ranks.share`). made: is
        given places of these with their edits, of one question or some, while others' are still to be made.
        step: number of the update, from 0; what the update draws depends on it and on the trainer's seed
        alone.
        Where edits were left out, the metrics have left_out, of how many questions; where all were, that
        alone. Returns reward_mean, reward_std (mean over groups), dead_groups (share without signal), loss,
        grad_norm, skipped (optimiser steps left out because their gradient was not finite); Flow-GRPO and
        AWM also ratio_mean and clip_fraction, Flow-GRPO ratio_first (the ratio farthest from 1 before the
        first optimiser step); with a KL weight, kl.
        """
        crops, group = (
            crops_of(questions, images, self.settings.crop, self.editor.multiple),
            self.settings.group_size,
        )
        cuts, own = cut_all(images, crops), range(len(questions))[self.ranks.share(len(questions))]
        edits: list[list[Image]] = [[] for _ in questions]

        def collect(places: Sequence[int], first: int, fresh: Sequence[Image]) -> None:
            rows = range(first, first + len(fresh))
            for row, edit in zip(rows, fresh, strict=True):
                place = places[row // group]
                edits[place].append(crops[place].compose(images[place], edit))
            if whole := [places[row // group] for row in rows if row % group == group - 1]:
                made(whole, [edits[place] for place in whole])

        rollouts = self._edit(questions, cuts, own, step, collect)
        rewarded = reward_fn([edits[place] for place in own])
        rows = self.ranks.gather([torch.as_tensor(row, dtype=torch.float32).cpu() for row in rewarded])
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
        live = [place for places in by_size(cuts) for place in places if live_P[place]]
        metrics = self._learn(
            rollouts, advantages_PG, live, step, f"attacker update {step} on questions {names}"
        )
        self.policies.follow(step)
        shares = {"reward_mean": rewards_PG.mean().item(), "reward_std": rewards_PG.std(1).mean().item()}
        return {**shares, "dead_groups": 1 - live_P[judged].float().mean().item(), **metrics, **left_out}

    def _edit(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        own: Sequence[int],
        step: int,
        collect: Callable[[Sequence[int], int, Sequence[Image]], None],
    ) -> list[Edited]:
        """Roll-outs by size of what is edited, of this process's own questions; collect: is given the places
        of a roll-out's questions, a batch's first row and its edits. Where the process has none but must run
        the sharded editor with the others all the same: one edit that is nobody's.
        """
        settings, chance, group = self.settings, self.algorithm.chance(step), self.settings.group_size
        shares = [[place for place in places if place in own] for places in by_size(images)]
        idle = self.ranks.sharded and not own
        if idle:
            shares, group = [[0]], 1
        rollouts = list[Edited]()
        # Sharded weights come together for every pass, so all processes make as many.
        own_passes = sum(
            velocities(len(places) * group, len(places), settings.rollout_steps, chance, settings.micro_batch)
            for places in shares
        )
        missing = int(self.ranks.largest(own_passes)) - own_passes if self.ranks.sharded else 0
        with self.policies.as_sampler():
            for places in filter(None, shares):
                instructions = [settings.instruct(questions[place].question) for place in places]
                conditions = self.editor.encode(
                    [images[place] for place in places], instructions, guidance_scale=settings.guidance_scale
                )
                rows_B = torch.arange(len(places)).repeat_interleave(group)
                seeds = [
                    sample_seed(self.seed, step, questions[place].id, sample)
                    for place in places
                    for sample in range(group)
                ]
                made = roll_out(
                    self.editor,
                    conditions,
                    rows_B,
                    seeds,
                    steps=settings.rollout_steps,
                    chance=chance,
                    batch=settings.micro_batch,
                    made=nobodys if idle else partial(collect, places),
                )
                rollouts.append(Edited([] if idle else places, made))
            for _ in range(missing):
                _pass_again(self.editor, rollouts[-1].made)
        return rollouts

    def _learn(
        self, rollouts: list[Edited], advantages_PG: Tensor, live: list[int], step: int, where: str
    ) -> dict[str, float]:
        """The optimiser steps of one update, over the rows that have a signal: those of the `live`
        questions, in that order whatever the number of processes.
        """
        settings, group = self.settings, self.settings.group_size
        self.optimizer.set_rate(step, settings.steps, settings.learning_rate_end)
        items = [(place, sample) for place in live for sample in range(group)]
        if settings.optimizer_steps > 1:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "shares", step))
            items = [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]
        shares = [
            share
            for first in range(settings.optimizer_steps)
            if (share := items[first :: settings.optimizer_steps])
        ]
        advantages = [advantages_PG[one.places].flatten().to(self.editor.device) for one in rollouts]
        sums = dict.fromkeys((*self.algorithm.metrics, *(("kl",) if settings.kl_weight else ())), 0.0)
        worst, norms, skipped = 1.0, 0.0, 0
        for number, share in enumerate(shares):
            parts = [
                (which, part)
                for which, one in enumerate(rollouts)
                if len(rows := one.rows(share, group))
                for part in torch.split(rows, settings.micro_batch)
            ]
            # Sharded weights come together for every pass, so all processes make as many; what some have too
            # few of weighs nothing.
            passes = int(self.ranks.largest(len(parts))) if self.ranks.sharded else len(parts)
            filler = [(0, torch.zeros(1, dtype=torch.long))] * (passes - len(parts))
            for turn, (which, part) in enumerate(parts + filler):
                counts = turn < len(parts)
                own = advantages[which][part] if counts else torch.zeros(1, device=self.editor.device)
                metrics = self.algorithm.learn(rollouts[which].made, part, own, len(share), counts=counts)
                if not counts:
                    continue
                for name in sums:
                    sums[name] += metrics[name] * len(part) / len(items)
                if number == 0 and abs(metrics.get("ratio_worst", 1.0) - 1) > abs(worst - 1):
                    worst = metrics["ratio_worst"]
            norm = self.optimizer.step(where)
            norms, skipped = norms + (norm or 0.0) / len(shares), skipped + (norm is None)
        sums = self.ranks.total(sums)
        worst = max(self.ranks.gather([worst]), key=lambda ratio: abs(ratio - 1))
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
        with torch.no_grad():
            for name, weight in self.best.weights.items():
                self.optimizer.parameters[name].copy_(weight)
        return self.best.update

    def save(self, folder: str | Path) -> None:
        """Write all that a resumed training needs: weights, optimiser, old policy, reference, best weights.
        Replaces an earlier state at once. Several processes all call it.
        """
        best = {f"{BEST}{name}": tensor for name, tensor in self.best.state().items()}
        self.optimizer.save(Path(folder) / STATE, extra=self.policies.state() | best)

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote; training then goes on as if it had never stopped. Raises RunError."""
        _, extra = self.optimizer.load(Path(folder) / STATE)
        self.policies.load_state(extra)
        self.best.load_state(under(BEST, extra), self.optimizer.parameters)
