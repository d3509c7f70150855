"""The Defender learns: DAPO (arXiv 2503.14476), or a relative of it, on groups of its own answers.

One update is: sample groups until enough have a signal, advantages within each group, and for each of its AdamW steps, as a rule a single one, a pass
over its share of the groups in micro-batches. An update is a function of the trainer's state and of (seed, step); nothing else is random.

Letters: P groups, G answers of each, N = P * G answers, T tokens of the longest.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparring.config import ClippedSettings, DefenderSettings, ImitationSettings, NormalisedSettings, RewardedAlgorithm
from sparring.data.errors import RunError, TrainingError
from sparring.defenders.consistency import ConsistencyJudge
from sparring.defenders.rollout import Group, Items, Metrics, Rollout, Sampled, collect, micro_batches, mini_batches, of_all_steps
from sparring.defenders.weights import Reference
from sparring.engine.ranks import Ranks
from sparring.models.vlms.base import VLM
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.lora import full, placed_like, writes_files
from sparring.models.vlms.server import RolloutServer
from sparring.rl.advantages import constrained_advantages, dual_ascent, group_advantages
from sparring.rl.policy import MeanOver, RatioOver, Surrogate, clipped_surrogate
from sparring.rl.schedule import rate_factor
from sparring.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Objective:
    """See `rl.policy.clipped_surrogate` and `rl.advantages.group_advantages`. Numbers are a recipe's, or not read."""

    ratio_over: RatioOver
    surrogate: Surrogate
    mean_over: MeanOver
    std_over: Literal["group", "none"]
    clip_low: float = 0.0
    clip_high: float = 0.0
    dual_clip: float | None = None
    epsilon: float = 0.0


OBJECTIVES = {
    "dapo": Objective("token", "clipped", "token", "group"),
    "grpo": Objective("token", "clipped", "sequence", "group"),
    "dr_grpo": Objective("token", "clipped", "constant", "none"),
    "gspo": Objective("sequence", "clipped", "sequence", "group"),
    "cispo": Objective("token", "detached", "token", "group"),
}


def objective_of(algorithm: RewardedAlgorithm) -> Objective:
    """The objective that a recipe asks for, with its numbers."""
    objective = replace(OBJECTIVES[algorithm.type], clip_high=algorithm.clip_high)
    if isinstance(algorithm, ClippedSettings):
        objective = replace(objective, clip_low=algorithm.clip_low, dual_clip=algorithm.dual_clip)
    if isinstance(algorithm, NormalisedSettings):
        objective = replace(objective, epsilon=algorithm.advantage_epsilon)
    return objective


BROKEN_IN_A_ROW = 5
STATE, NUMBERS = "trainer.safetensors", "trainer.json"


class DefenderTrainer:
    """Trains a Defender in place. `sampled` holds every answer that the last update sampled."""

    def __init__(
        self,
        vlm: LocalVLM,
        settings: DefenderSettings,
        seed: int,
        *,
        judge: VLM | None = None,
        accelerator: Accelerator | None = None,
        server: RolloutServer | None = None,
    ) -> None:
        """judge: the model that settings.consistency.model names. accelerator: where several processes train together, see `Ranks`.

        server: what settings.rollout_server names. It samples the answers; the updates' tokens then count by truncated importance sampling.
        """
        self.server = server
        self.ranks = Ranks(accelerator)
        self.vlm, self.settings, self.seed = vlm, settings, seed
        self.consistency = ConsistencyJudge(settings.consistency, judge) if settings.consistency.role != "off" else None
        self.multiplier = settings.consistency.weight
        self.sampled: list[Sampled] = []
        self.updates = 0
        self.broken_in_a_row = 0
        self.micro_batch = settings.micro_batch
        lora = settings.lora
        self.reference = Reference(vlm, adapted=lora is not None) if settings.kl_weight else None
        vlm.prepare_training(
            train_vision=settings.train_vision,
            lora_rank=lora.rank if lora else None,
            lora_alpha=lora.alpha if lora else 1,
            seed=derive_seed(seed, "lora"),
        )
        vlm.checkpoint_gradients(settings.gradient_checkpointing)
        self.ranks.prepare(vlm.model)
        self.parameters = vlm.trainable_parameters()
        # Steps of this size vanish when added to 16-bit weights: the optimizer works on 32-bit copies of those.
        self.master = {
            name: parameter if parameter.dtype == torch.float32 else parameter.detach().float()
            for name, parameter in self.parameters.items()
        }
        self.start = {name: master.detach().clone() for name, master in self.master.items()} if settings.interpolation < 1 else {}
        self.optimizer = torch.optim.AdamW(self.master.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def update(self, items: Items, step: int) -> Metrics:
        """One update; its metrics. `items`: see `rollout.Items`; `step` is the update's number.

        Without any group that has a signal nothing is learned (`kept_groups` is 0). A loss or gradient that is not finite is not stepped
        on (`broken` is the share of such steps); TrainingError, naming the questions, when that happens in five updates in a row. Where memory runs
        out, the micro-batch is halved for good (`micro_batch_halved` is 1) and the step begun again; TrainingError when that does not help.
        """
        self._set_rate(step)
        if self.server is not None:
            self.server.adapter = self.ranks.gather([self.server.publish(self.vlm)])[0]
        with self.ranks.whole(self.vlm.model):
            rollout = collect(
                self.server or self.vlm, items, self.settings, seed=self.seed, step=step, judge=self.consistency, ranks=self.ranks
            )
        self.sampled = rollout.sampled()
        groups = [rollout.groups[place] for place in rollout.kept]
        metrics = self._sampling_metrics(rollout)
        if groups:
            learned = of_all_steps([self._learn_within_memory(own, step) for own in mini_batches(groups, self.settings.optimizer_steps)])
            metrics |= learned
            self._note_broken(learned["broken"] > 0, step, [group.question.id for group in groups])
        if self.settings.consistency.role == "constraint":
            metrics["consistency_weight"] = self.multiplier
            self._raise_multiplier(metrics["consistent"])
        self.updates += 1
        return metrics

    @cached_property
    def objective(self) -> Objective:
        """What the rewards are turned into."""
        algorithm = self.settings.algorithm
        assert not isinstance(algorithm, ImitationSettings)  # which has no rewards
        return objective_of(algorithm)

    def _set_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate_factor(step, self.settings.steps, self.settings.learning_rate_end)

    def _note_broken(self, broken: bool, step: int, questions: Sequence[str]) -> None:
        """Count updates in a row whose loss or gradient was not finite, and give up after five."""
        self.broken_in_a_row = self.broken_in_a_row + 1 if broken else 0
        if self.broken_in_a_row >= BROKEN_IN_A_ROW:
            raise TrainingError(
                f"Defender, update {step}: the loss or its gradient was not finite in {BROKEN_IN_A_ROW} updates in a row. The last was on questions "
                f"{', '.join(questions)}. Lower defender.learning_rate, or set defender.dtype to float32."
            )

    @torch.no_grad()
    def settle(self) -> None:
        """After the last update: go back to `settings.interpolation` of the way from the weights that the trainer was made with.

        WiSE-FT (arXiv 2109.01903). Training cannot go on after it.
        """
        for name, start in self.start.items():
            self.parameters[name].copy_(torch.lerp(start, self.master[name], self.settings.interpolation))

    def _learn_within_memory(self, groups: Sequence[Group], step: int) -> Metrics | None:
        """`_learn`, if need be with half the micro-batch from here on."""
        advice = "Lower defender.micro_batch, set defender.gradient_checkpointing, or train a LoRA."
        try:
            return self._learn(groups)
        except torch.OutOfMemoryError as error:
            if self.ranks.count > 1:  # the others wait for this one in the middle of the update
                raise TrainingError(f"Defender, update {step}: out of memory in process {self.ranks.number}. {advice}") from error
            if self.micro_batch < self.settings.micro_batch or self.micro_batch == 1:
                raise TrainingError(f"Defender, update {step}: out of memory with micro-batches of {self.micro_batch}. {advice}") from error
        # Outside of the handler, whose exception holds on to the activations.
        self._clear_gradients()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.micro_batch //= 2
        warnings.warn(f"Defender, update {step}: out of memory; micro-batches of {self.micro_batch} completions from here on", stacklevel=3)
        try:
            return self._learn(groups)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"Defender, update {step}: out of memory, also with micro-batches of {self.micro_batch}. {advice}"
            ) from error

    def _learn(self, groups: Sequence[Group]) -> Metrics | None:
        """One optimizer step on the groups; None where the loss or the gradient is not finite, the weights being left as they were."""
        advantages_PG = self._advantages(groups)
        counted = [self._counts(reply.finished) * len(reply.token_ids) for group in groups for reply in group.replies]
        tokens, answers = max(1, sum(counted)), max(1, sum(length > 0 for length in counted))
        total: Metrics = {}
        ratio_first = 0.0
        self._clear_gradients()
        own = self.ranks.share(len(groups))
        batches = micro_batches(groups[own], advantages_PG[own], self.micro_batch)
        # All processes make as many passes, because sharded weights come together for each; what some have too few of weighs nothing.
        filler = micro_batches(groups[:1], advantages_PG[:1], self.micro_batch)[:1] * (int(self.ranks.largest(len(batches))) - len(batches))
        for number, (part, advantages_N) in enumerate(batches + filler):
            loss, metrics, deviation = self._loss(part, advantages_N, tokens, answers)
            if number >= len(batches):
                loss, metrics, deviation = loss * 0.0, dict.fromkeys(metrics, 0.0), 0.0
            if self.ranks.largest(not math.isfinite(loss.item())):
                self._clear_gradients()
                return None
            self.ranks.backward(loss)
            ratio_first = max(ratio_first, deviation)
            for name, value in metrics.items():
                total[name] = total.get(name, 0.0) + value
        self.ranks.sum_gradients(self.parameters.values())
        norm = self._step()
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
        std_over, eps = self.objective.std_over, self.objective.epsilon
        if self.settings.consistency.role != "constraint":
            return group_advantages(rewards_PG, std_over=std_over, eps=eps)
        consistent_PG = torch.tensor([[answer.notes["consistent"] for answer in group.answers] for group in groups])
        return constrained_advantages(
            rewards_PG,
            consistent_PG,
            self.multiplier,
            std_over=std_over,
            eps=eps,
        )

    def _raise_multiplier(self, consistent: float) -> None:
        """Dual ascent, on all the answers that were sampled."""
        settings = self.settings.consistency
        self.multiplier = dual_ascent(
            self.multiplier, consistent, target=settings.target, rate=settings.weight_rate, upper=settings.weight_max
        )

    def _loss(self, groups: Sequence[Group], advantages_N: Tensor, tokens: int, answers: int) -> tuple[Tensor, Metrics, float]:
        """A micro-batch's share of the loss and of the metrics, and the largest |ratio - 1| of its tokens; tokens, answers: of the whole step."""
        settings, vlm, objective = self.settings, self.vlm, self.objective
        batch = vlm.encode([group.image for group in groups], [group.prompt for group in groups], [group.start for group in groups])
        replies = [[reply.token_ids for reply in group.replies] for group in groups]
        reference_NT = None if self.reference is None else self.reference.logprobs(batch, replies, settings.temperature)
        logprobs_NT, mask_NT = vlm.completion_logprobs(batch, replies, temperature=settings.temperature)
        recorded_NT = _padded([reply.logprobs for group in groups for reply in group.replies], mask_NT)
        counts_N = torch.tensor([self._counts(reply.finished) for group in groups for reply in group.replies], device=mask_NT.device)
        old_NT, weights_NT = recorded_NT, None
        if settings.rollout_server is not None and self.server is not None:
            # The server's arithmetic differs, and its adapter may be an older one: the policy of now is the one to stay near, and weights make up for it.
            old_NT = logprobs_NT.detach()
            weights_NT = (old_NT - recorded_NT).exp().clamp(max=settings.rollout_server.importance_cap)
        loss, metrics = clipped_surrogate(
            logprobs_NT,
            old_NT,
            advantages_N.to(mask_NT.device),
            mask_NT & counts_N.unsqueeze(1),
            clip_low=objective.clip_low,
            clip_high=objective.clip_high,
            dual_clip=objective.dual_clip,
            weights_NT=weights_NT,
            ratio_over=objective.ratio_over,
            surrogate=objective.surrogate,
            mean_over=objective.mean_over,
            longest=settings.max_new_tokens,
            denominator=tokens,
            answers=answers,
            reference_logprobs_NT=reference_NT,
            kl_weight=settings.kl_weight,
        )
        deviation = ((logprobs_NT.detach() - recorded_NT).exp() - 1).abs().masked_fill(~mask_NT, 0.0).amax().item()
        return loss, {"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}}, deviation

    def _counts(self, finished: bool) -> bool:
        """Is this answer in the loss? Overlong filtering leaves out those that were cut off."""
        return finished or not self.settings.overlong_filter

    def _clear_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def _step(self) -> float | None:
        """Clip the gradient and step; the gradient's norm before clipping, or None, without a step, where it is not finite."""
        norm = full(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_grad_norm)).item()
        if math.isfinite(norm):
            for name, parameter in self.parameters.items():
                master = self.master[name]
                if master is not parameter:
                    master.grad = None if parameter.grad is None else parameter.grad.float()
            self.optimizer.step()
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    if self.master[name] is not parameter:
                        parameter.copy_(self.master[name])
        self._clear_gradients()
        return norm if math.isfinite(norm) else None

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
            **{name: fmean(own[name] for own in notes if name in own) for name in dict.fromkeys(key for own in notes for key in own)},
        }

    # ---- state

    def save(self, folder: Path) -> None:
        """Write everything that the next update depends on: trained weights, optimizer state, counters. Several processes all call it."""
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        for name, master in self.master.items():
            if master is not self.parameters[name]:
                tensors[f"master.{name}"] = master
            tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state.get(master, {}).items()}
        whole = {name: full(tensor).contiguous().cpu().clone() for name, tensor in tensors.items()}
        if not writes_files():
            return
        folder.mkdir(parents=True, exist_ok=True)
        save_file(whole, folder / STATE)
        numbers = {
            "updates": self.updates,
            "broken_in_a_row": self.broken_in_a_row,
            "seed": self.seed,
            "multiplier": self.multiplier,
            "micro_batch": self.micro_batch,
        }
        (folder / NUMBERS).write_text(json.dumps(numbers) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from a saved state. RunError where it is missing or belongs to another model, other settings or another seed."""
        try:
            tensors, numbers = load_file(folder / STATE), json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{folder}: no state of a Defender's training that can be read: {error}") from error
        saved = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        same = saved.keys() == self.parameters.keys() and all(
            saved[name].shape == parameter.shape for name, parameter in self.parameters.items()
        )
        if not same or numbers["seed"] != self.seed:
            raise RunError(f"{folder}: this state was saved by the training of another model, with other settings or another seed")
        self.updates, self.broken_in_a_row, self.multiplier, self.micro_batch = (
            numbers[key] for key in ("updates", "broken_in_a_row", "multiplier", "micro_batch")
        )
        self.optimizer.state.clear()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(placed_like(saved[name], parameter))
                master = self.master[name]
                if master is not parameter:
                    master.copy_(placed_like(tensors[f"master.{name}"], master))
                state = {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors}
                if state:
                    self.optimizer.state[master] = {
                        key: value if key == "step" else placed_like(value, master) for key, value in state.items()
                    }


def _padded(rows: Sequence[Sequence[float]], like_NT: Tensor) -> Tensor:
    """Rows of numbers as a float32 tensor of that shape, with zeros behind."""
    width = like_NT.shape[1]
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], device=like_NT.device)
