"""Sampling groups of answers until one update's worth of them has a signal (DAPO's dynamic sampling, arXiv 2503.14476, section 3.2).

Letters: P groups (prompts), G answers of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from PIL.Image import Image

from sparring.config import DefenderSettings
from sparring.data.errors import TrainingError
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.defenders.play import read
from sparring.defenders.prompts import render_prompt
from sparring.defenders.rewards import PREFIX, answer_reward
from sparring.models.vlms.local import Completion, LocalVLM
from sparring.rl.sampling import keep_groups, overlong_penalty
from sparring.rl.seeds import derive_seed

Item = tuple[Image, VisualQuestion]
Items = Iterator[Item] | Callable[[int], Sequence[Item]]
"""What an update is fed with: an endless iterator, or a function of the number of the batch. Either must depend on (seed, step) alone."""


@dataclass(frozen=True, slots=True)
class Group:
    """The sampled answers to one question about one picture. rewards: what is learned from, the overlong punishment included.

    The notes of the answers hold the parts of their rewards and, where it is asked for, whether they are `consistent`, 0 or 1.
    """

    image: Image
    question: VisualQuestion
    prompt: str
    replies: tuple[Completion, ...]
    answers: tuple[Answer, ...]
    rewards: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled answer, as the ledger wants it. `kept`: its group had a signal and was trained on."""

    answer: Answer
    reward: float
    kept: bool


@dataclass(slots=True)
class Rollout:
    """All groups sampled for one update, and which of them are trained on. thrown_low and thrown_high: groups (nearly) all wrong, all right."""

    groups: list[Group] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    batches: int = 0
    thrown_low: int = 0
    thrown_high: int = 0
    surplus: int = 0

    def sampled(self) -> list[Sampled]:
        """Every sampled answer, in the order of sampling."""
        kept = set(self.kept)
        return [
            Sampled(answer, reward, place in kept)
            for place, group in enumerate(self.groups)
            for answer, reward in zip(group.answers, group.rewards, strict=True)
        ]


def collect(
    vlm: LocalVLM, items: Items, settings: DefenderSettings, *, seed: int, step: int, judge: ConsistencyJudge | None = None
) -> Rollout:
    """Sample batches of `prompts_per_step` groups until as many groups have a signal, at most `max_refills` batches.

    A group has a signal if the mean of its answers' rewards, before any overlong punishment, lies strictly between keep_reward_above and
    keep_reward_below. Groups beyond the number needed are not trained on. Fewer than needed may remain; none is no error. `judge`: reads whether
    answers are consistent, where the settings ask for it.
    """
    rollout = Rollout()
    while rollout.batches < settings.max_refills and len(rollout.kept) < settings.prompts_per_step:
        batch = list(items(rollout.batches) if callable(items) else islice(items, settings.prompts_per_step))
        if not batch:
            raise TrainingError(f"Defender, update {step}: there is nothing to train on (batch {rollout.batches} of prompts is empty)")
        groups, accuracy_PG = _sample(vlm, batch, settings, derive_seed(seed, "answers", step, rollout.batches), judge)
        for group, rewards_G, keep in zip(
            groups, accuracy_PG, keep_groups(accuracy_PG, settings.keep_reward_above, settings.keep_reward_below).tolist(), strict=True
        ):
            if not keep:
                low = rewards_G.mean().item() <= settings.keep_reward_above
                rollout.thrown_low, rollout.thrown_high = rollout.thrown_low + low, rollout.thrown_high + (not low)
            elif len(rollout.kept) < settings.prompts_per_step:
                rollout.kept.append(len(rollout.groups))
            else:
                rollout.surplus += 1
            rollout.groups.append(group)
        rollout.batches += 1
    return rollout


def _sample(
    vlm: LocalVLM, items: Sequence[Item], settings: DefenderSettings, seed: int, judge: ConsistencyJudge | None
) -> tuple[list[Group], torch.Tensor]:
    """Groups of answers to every item, and accuracy_PG: their rewards without the overlong punishment."""
    prompts = [render_prompt(question, settings.prompt) for _, question in items]
    replies = vlm.generate(
        [image for image, _ in items],
        prompts,
        n=settings.group_size,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=seed,
        # Sampling keeps nothing for a backward pass, so several times as many fit.
        batch=4 * settings.micro_batch,
    )
    answers = [[read(reply, question, vlm.name) for reply in own] for own, (_, question) in zip(replies, items, strict=True)]
    if judge is not None:
        answers = _with_consistency(answers, [question for _, question in items], judge)
    parts = [
        [answer_reward(a.text, question, settings, consistent=bool(a.notes.get("consistent"))) for a in own]
        for own, (_, question) in zip(answers, items, strict=True)
    ]
    accuracy_PG = torch.tensor([[sum(one.values()) for one in own] for own in parts])
    lengths_PG = torch.tensor([[len(reply.token_ids) for reply in own] for own in replies])
    length_PG = overlong_penalty(lengths_PG, settings.max_new_tokens, settings.overlong_cache)
    rewards_PG = accuracy_PG + length_PG
    if settings.overlong_cache > 0:
        parts = [[one | {"length": cost} for one, cost in zip(*own, strict=True)] for own in zip(parts, length_PG.tolist(), strict=True)]
    answers = [
        [replace(a, notes=a.notes | {PREFIX + name: value for name, value in one.items()}) for a, one in zip(*own, strict=True)]
        for own in zip(answers, parts, strict=True)
    ]
    groups = [
        Group(image, question, prompt, tuple(own), tuple(said), tuple(rewards))
        for (image, question), prompt, own, said, rewards in zip(items, prompts, replies, answers, rewards_PG.tolist(), strict=True)
    ]
    return groups, accuracy_PG


def _with_consistency(
    answers: Sequence[Sequence[Answer]], questions: Sequence[VisualQuestion], judge: ConsistencyJudge
) -> list[list[Answer]]:
    """The answers with notes: `consistent` with their own reasoning, and `verdict_unread` where that could not be read."""
    flat = [(question, answer) for own, question in zip(answers, questions, strict=True) for answer in own]
    verdicts = iter(judge.verdicts([question for question, _ in flat], [answer.text for _, answer in flat]))
    judged: list[list[Answer]] = []
    for own in answers:
        judged.append([])
        for answer, verdict in zip(own, verdicts, strict=False):
            consistent = verdict.letter is not None and verdict.letter == answer.choice
            notes = {"consistent": float(consistent), "verdict_unread": float(verdict.letter is None)}
            judged[-1].append(replace(answer, notes=answer.notes | notes))
    return judged
