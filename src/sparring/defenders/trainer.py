"""The Defender learns: DAPO (arXiv 2503.14476), or a relative of it, on groups of its own answers.

One update is: sample groups until enough have a signal, advantages within each group, and for each of its
AdamW steps, as a rule a single one, a pass over its share of the groups in micro-batches. An update is a
function of the trainer's state and of (seed, step); nothing else is random.

Letters: P groups, G answers of each, N = P * G answers, T tokens of the longest.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from sparring.config import (
    DefenderSettings,
)
from sparring.data.errors import RunError, TrainingError
from sparring.data.pictures import shown
from sparring.data.records import VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.defenders.objectives import Reference, objective_of, spread_of
from sparring.defenders.rollout import (
    Group,
    Item,
    Items,
    Metrics,
    Rollout,
    Sampled,
    add_batches,
    micro_batches,
    mini_batches,
    of_all_steps,
)
from sparring.engine.optimizer import Optimizer
from sparring.engine.ranks import Ranks
from sparring.models.vlms.base import VLM
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.server import RolloutServer
from sparring.rl.advantages import constrained_advantages, dual_ascent, group_advantages
from sparring.rl.policy import Surrogate, policy_loss
from sparring.seeds import derive_seed

STATE = "trainer.safetensors"


class DefenderTrainer:
    """Trains a Defender in place. `sampled` holds every answer that the last update sampled."""

    def __init__(
        self,
        vlm: LocalVLM,
        settings: DefenderSettings,
        seed: int,
        *,
        judge: VLM | None = None,
        ranks: Ranks | None = None,
        server: RolloutServer | None = None,
    ) -> None:
        """judge: the model that settings.consistency.model names. ranks: the processes that train the
        Defender together; each is given the same questions.

        server: what settings.rollout_server names. It samples the answers; the updates' tokens then count by
        truncated importance sampling.
        """
        self.server = server
        self.ranks = ranks or Ranks()
        self.vlm, self.settings, self.seed = vlm, settings, seed
        self.consistency = (
            ConsistencyJudge(settings.consistency, judge) if settings.consistency.role != "off" else None
        )
        self.multiplier = settings.consistency.weight
        self.sampled: list[Sampled] = []
        self.served: Metrics = {}
        self.updates = 0
        self.micro_batch = settings.micro_batch
        adapter = settings.lora
        self.reference = Reference(vlm, adapted=adapter is not None) if settings.kl_weight else None
        vlm.prepare_training(
            train_vision=settings.train_vision,
            lora_rank=adapter.rank if adapter else None,
            lora_alpha=adapter.alpha if adapter else 1,
            seed=derive_seed(seed, "lora"),
        )
        vlm.checkpoint_gradients(settings.gradient_checkpointing)
        self.ranks.prepare(vlm.model)
        self.optimizer = Optimizer(
            vlm.trainable_parameters(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            ranks=self.ranks,
        )
        master = self.optimizer.master if settings.interpolation < 1 else {}
        self.start = {name: tensor.detach().clone() for name, tensor in master.items()}

    def update(self, items: Items, step: int) -> Metrics:
        """One update; its metrics. `items`: see `rollout.Items`; `step` is the update's number.

        Without any group that has a signal nothing is learned (`kept_groups` is 0). A loss or gradient that
        is not finite is not stepped on (`broken` is the share of such steps); TrainingError, naming the
        questions, after five of them in a row. Where memory runs out, the micro-batch is halved for good
        (`micro_batch_halved` is 1) and the step begun again; TrainingError when that does not help.
        """
        rollout, done = Rollout(), False
        while not done:
            batch = (
                items(rollout.batches) if callable(items) else islice(items, self.settings.prompts_per_step)
            )
            done = self.sample(rollout, [list(batch)], step)
        return self.learn(rollout, step)

    def sample(self, rollout: Rollout, batches: Sequence[Sequence[Item]], step: int) -> bool:
        """Sample more batches of items for update `step`; True when no more are wanted."""
        first = rollout.batches == 0
        if self.server is not None and first:
            self.server.published = self.ranks.gather([self.server.publish(self.vlm)])[0]
        with self.ranks.whole(self.vlm.model):
            if self.server is not None and first:
                self.served = {"server_difference": self.server.look(self.vlm, self.settings.temperature)}
            return add_batches(
                rollout,
                self.server or self.vlm,
                batches,
                self.settings,
                seed=self.seed,
                step=step,
                judge=self.consistency,
                ranks=self.ranks,
            )

    def learn(self, rollout: Rollout, step: int) -> Metrics:
        """The rest of update `step`, when all is sampled; its metrics."""
        self._set_rate(step)
        self.sampled = rollout.sampled()
        groups = [rollout.groups[place] for place in rollout.kept]
        metrics = self._sampling_metrics(rollout) | self.served
        if groups:
            shares = mini_batches(groups, self.settings.optimizer_steps)
            metrics |= of_all_steps([self._learn_within_memory(own, step) for own in shares])
        if self.settings.consistency.role == "constraint":
            metrics["consistency_weight"] = self.multiplier
            self._raise_multiplier(metrics["consistent"])
        self.updates += 1
        return metrics

    @cached_property
    def objective(self) -> Surrogate:
        """What the rewards are turned into."""
        return objective_of(self.settings)

    def _set_rate(self, step: int) -> None:
        self.optimizer.set_rate(step, self.settings.steps, self.settings.learning_rate_end)

    @staticmethod
    def _where(step: int, questions: Iterable[VisualQuestion]) -> str:
        """An update, as errors name it."""
        return f"Defender, update {step} on questions {', '.join(question.id for question in questions)}"

    @torch.no_grad()
    def settle(self) -> None:
        """After the last update: go back to `settings.interpolation` of the way from the weights that the
        trainer was made with.

        WiSE-FT (arXiv 2109.01903). Training cannot go on after it.
        """
        for name, start in self.start.items():
            trained = torch.lerp(start, self.optimizer.master[name], self.settings.interpolation)
            self.optimizer.parameters[name].copy_(trained)

    def _learn_within_memory(self, groups: Sequence[Group], step: int) -> Metrics | None:
        """`_learn`, if need be with half the micro-batch from here on."""
        advice = "Lower defender.micro_batch, set defender.gradient_checkpointing, or train a LoRA."
        try:
            return self._learn(groups, step)
        except torch.OutOfMemoryError as error:
            if self.ranks.count > 1:  # the others wait for this one in the middle of the update
                raise TrainingError(
                    f"Defender, update {step}: out of memory in process {self.ranks.number}. {advice}"
                ) from error
            if self.micro_batch < self.settings.micro_batch or self.micro_batch == 1:
                raise TrainingError(
                    f"Defender, update {step}: out of memory with micro-batches of {self.micro_batch}. "
                    f"{advice}"
                ) from error
        # Outside of the handler, whose exception holds on to the activations.
        self.optimizer.clear_gradients()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.micro_batch //= 2
        warnings.warn(
            f"Defender, update {step}: out of memory; micro-batches of {self.micro_batch} completions from "
            f"here on",
            stacklevel=3,
        )
        try:
            return self._learn(groups, step)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"Defender, update {step}: out of memory, also with micro-batches of {self.micro_batch}. "
                f"{advice}"
            ) from error

    def _learn(self, groups: Sequence[Group], step: int) -> Metrics | None:
        """One optimizer step on the groups; None where the loss or the gradient is not finite, the weights
        being left as they were.
        """
        advantages_PG = self._advantages(groups)
        counted = [
            self._counts(reply.finished) * len(reply.token_ids) for group in groups for reply in group.replies
        ]
        tokens, answers = max(1, sum(counted)), max(1, sum(length > 0 for length in counted))
        where = self._where(step, (group.question for group in groups))
        total: Metrics = {}
        ratio_first = 0.0
        self.optimizer.clear_gradients()
        own = self.ranks.share(len(groups))
        batches = micro_batches(groups[own], advantages_PG[own], self.micro_batch)
        # All processes make as many passes, because sharded weights come together for each; what some have
        # too few of weighs nothing.
        filler = micro_batches(groups[:1], advantages_PG[:1], self.micro_batch)[:1] * (
            int(self.ranks.largest(len(batches))) - len(batches)
        )
        for number, (part, advantages_N) in enumerate(batches + filler):
            loss, metrics, deviation = self._loss(part, advantages_N, tokens, answers)
            if number >= len(batches):
                loss, metrics, deviation = loss * 0.0, dict.fromkeys(metrics, 0.0), 0.0
            if self.ranks.largest(not math.isfinite(loss.item())):
                self.optimizer.leave_out(where)
                return None
            self.ranks.backward(loss)
            ratio_first = max(ratio_first, deviation)
            for name, value in metrics.items():
                total[name] = total.get(name, 0.0) + value
        norm = self.optimizer.step(where)
        if norm is None:
            return None
        counters = {
            "grad_norm": norm,
            "trained_tokens": float(tokens),
            "micro_batch_halved": float(self.micro_batch < self.settings.micro_batch),
        }
        return {**self.ranks.total(total), "ratio_first": self.ranks.largest(ratio_first), **counters}

    def _advantages(self, groups: Sequence[Group]) -> Tensor:
        """advantages_PG: of the rewards, and with a constraint of the consistency too."""
        rewards_PG = torch.tensor([group.rewards for group in groups])
        spread = spread_of(self.settings)
        if self.settings.consistency.role != "constraint":
            return group_advantages(rewards_PG, **spread)
        consistent_PG = torch.tensor(
            [[answer.notes["consistent"] for answer in group.answers] for group in groups]
        )
        return constrained_advantages(rewards_PG, consistent_PG, self.multiplier, **spread)

    def _raise_multiplier(self, consistent: float) -> None:
        """Dual ascent, on all the answers that were sampled."""
        settings = self.settings.consistency
        self.multiplier = dual_ascent(
            self.multiplier,
            consistent,
            target=settings.target,
            rate=settings.weight_rate,
            upper=settings.weight_max,
        )

    def _loss(
        self, groups: Sequence[Group], advantages_N: Tensor, tokens: int, answers: int
    ) -> tuple[Tensor, Metrics, float]:
        """A micro-batch's share of the loss and of the metrics, and the largest |ratio - 1| of its tokens;
        tokens, answers: of the whole step.
        """
        settings, vlm = self.settings, self.vlm
        batch = vlm.encode(
            [shown(group.image) for group in groups],
            [group.prompt for group in groups],
            [group.start for group in groups],
        )
        replies = [[reply.token_ids for reply in group.replies] for group in groups]
        reference_NT = (
            None if self.reference is None else self.reference.logprobs(batch, replies, settings.temperature)
        )
        logprobs_NT, mask_NT = vlm.completion_logprobs(batch, replies, temperature=settings.temperature)
        recorded_NT = _padded([reply.logprobs for group in groups for reply in group.replies], mask_NT)
        counts_N = torch.tensor(
            [self._counts(reply.finished) for group in groups for reply in group.replies],
            device=mask_NT.device,
        )
        old_NT, weights_NT, own = recorded_NT, None, dict[str, float]()
        if settings.rollout_server is not None and self.server is not None:
            # The server's arithmetic differs, and its adapter may be an older one: the policy of now is the
            # one to stay near, and weights make up for it.
            old_NT = logprobs_NT.detach()
            weights_NT = (old_NT - recorded_NT).exp().clamp(max=settings.rollout_server.importance_cap)
            # Its tokens still count in the step's means, as if they weighed nothing.
            trusted_N = (
                weights_NT.masked_fill(~mask_NT, 1.0).amin(1) >= settings.rollout_server.importance_floor
            )
            own["untrusted"] = float((counts_N & ~trusted_N).sum().item())
            counts_N = counts_N & trusted_N
        loss, metrics = policy_loss(
            self.objective,
            logprobs_NT,
            old_NT,
            advantages_N.to(mask_NT.device),
            mask_NT & counts_N.unsqueeze(1),
            weights_NT=weights_NT,
            reference_logprobs_NT=reference_NT,
            whole=(tokens, answers),
        )
        deviation = (
            ((logprobs_NT.detach() - recorded_NT).exp() - 1).abs().masked_fill(~mask_NT, 0.0).amax().item()
        )
        return (
            loss,
            {"loss": loss.item(), **own, **{name: value.item() for name, value in metrics.items()}},
            deviation,
        )

    def _counts(self, finished: bool) -> bool:
        """Is this answer in the loss? Overlong filtering leaves out those that were cut off."""
        return finished or not self.settings.overlong_filter

    def _sampling_metrics(self, rollout: Rollout) -> Metrics:
        replies = [reply for group in rollout.groups for reply in group.replies]
        rewards = [sample.reward for sample in self.sampled]
        notes = [sample.answer.notes for sample in self.sampled]
        return {
            "reward_mean": sum(rewards) / len(rewards),
            "right_mean": sum(sample.answer.right for sample in self.sampled) / len(self.sampled),
            "unparsed": sum(sample.answer.choice is None for sample in self.sampled) / len(self.sampled),
            "length_mean": sum(len(reply.token_ids) for reply in replies) / len(replies),
            "finished": sum(reply.finished for reply in replies) / len(replies),
            "rollouts": float(len(replies)),
            "batches": float(rollout.batches),
            "kept_groups": float(len(rollout.kept)),
            "thrown_low": float(rollout.thrown_low),
            "thrown_high": float(rollout.thrown_high),
            "surplus_groups": float(rollout.surplus),
            **{
                name: fmean(own[name] for own in notes if name in own)
                for name in dict.fromkeys(key for own in notes for key in own)
            },
        }

    # ---- state

    def save(self, folder: Path) -> None:
        """Write everything that the next update depends on: trained weights, optimizer state, counters.
        Several processes all call it.
        """
        numbers = {
            "updates": self.updates,
            "seed": self.seed,
            "multiplier": self.multiplier,
            "micro_batch": self.micro_batch,
        }
        self.optimizer.save(folder / STATE, numbers)

    def load(self, folder: Path) -> None:
        """Go on from a saved state. RunError where it is missing or belongs to another model, other settings
        or another seed.
        """
        numbers, _ = self.optimizer.load(folder / STATE)
        if numbers["seed"] != self.seed:
            raise RunError(
                f"{folder}: this training state belongs to another seed, {numbers['seed']} instead of "
                f"{self.seed}. Go on with that seed, or remove the stage's folder to train it afresh."
            )
        self.updates, self.multiplier = int(numbers["updates"]), numbers["multiplier"]
        self.micro_batch = int(numbers["micro_batch"])


def _padded(rows: Sequence[Sequence[float]], like_NT: Tensor) -> Tensor:
    """Rows of numbers as a float32 tensor of that shape, with zeros behind."""
    width = like_NT.shape[1]
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], device=like_NT.device)
