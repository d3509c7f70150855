"""Sampling groups of answers until one update's worth of them has a signal (DAPO's dynamic sampling, arXiv
2503.14476, section 3.2).

Letters: P groups (prompts), G answers of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import fmean

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.asking.conditions import Told, tell
from sparring.asking.questions import read
from sparring.config import DefenderSettings
from sparring.data.errors import TrainingError
from sparring.data.pictures import Picture, shown
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.defenders.rewards import PREFIX, answer_reward
from sparring.defenders.weights import as_of_clean, distort, strength
from sparring.engine.ranks import Ranks
from sparring.models.vlms.base import Completion, Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.server import RolloutServer
from sparring.rl.policy import keep_groups, overlong_penalty
from sparring.seeds import derive_seed

Item = tuple[Image | Picture, VisualQuestion]
"""What is not decoded yet is so by the process that needs it."""
Items = Iterator[Item] | Callable[[int], Sequence[Item]]
"""What an update is fed with: an endless iterator, or a function of the number of the batch. Either must
depend on (seed, step) alone.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """The sampled answers to one question about one picture. rewards: what is learned from, the overlong
    punishment included.

    The notes of the answers hold the parts of their rewards and, where it is asked for, whether they are
    `consistent`, 0 or 1. start: what every reply was begun with, which its answer's text holds and its
    tokens do not.
    """

    image: Image | Picture
    question: VisualQuestion
    prompt: str
    replies: tuple[Completion, ...]
    answers: tuple[Answer, ...]
    rewards: tuple[float, ...]
    start: str = ""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled answer, as the ledger wants it. `kept`: its group had a signal and was trained on."""

    answer: Answer
    reward: float
    kept: bool


@dataclass(slots=True)
class Rollout:
    """All groups sampled for one update, and which of them are trained on. thrown_low and thrown_high: groups
    (nearly) all wrong, all right.
    """

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


def add_batches(
    rollout: Rollout,
    vlm: LocalVLM | RolloutServer,
    batches: Sequence[Sequence[Item]],
    settings: DefenderSettings,
    *,
    seed: int,
    step: int,
    judge: ConsistencyJudge | None = None,
    ranks: Ranks | None = None,
) -> bool:
    """Sample the groups of the next batches of items, and keep those that have a signal. True when no more
    batches are wanted: there are `prompts_per_step` such groups, or `max_refills` batches.

    A group has a signal if the mean of its answers' rewards, before any overlong punishment, lies strictly
    between keep_reward_above and keep_reward_below. Groups beyond the `prompts_per_step` of an update are
    not trained on. Fewer than needed may remain; none is no error. `judge`: reads whether answers are
    consistent, where the settings ask for it.

    What is sampled of a batch depends on its number alone, so several at once give what they would give one
    by one; those after the last one that was wanted count for nothing.
    """
    first = rollout.batches
    numbered = list(enumerate(batches, first))
    for number, batch in numbered:
        if not batch:
            raise TrainingError(
                f"Defender, update {step}: there is nothing to train on (batch {number} of prompts is empty)"
            )
    told = [
        tell([question for _, question in batch], settings, seed, "texts", step, number)
        for number, batch in numbered
    ]
    places = [(seed, "answers", step, number) for number, _ in numbered]
    noise = strength(settings.noisy, step, settings.steps)
    ranks = ranks or Ranks()
    replies = _sample(vlm, batches, told, settings, places, noise, ranks)
    done = False
    for batch, own_told, own in zip(batches, told, replies, strict=True):
        if not done:
            _keep(rollout, *_rewarded(vlm, batch, own_told, own, settings, judge, ranks), settings)
            done = rollout.batches >= settings.max_refills or len(rollout.kept) >= settings.prompts_per_step
    if done and distorted(settings) and rollout.kept:
        _move_to_clean(vlm, rollout, settings)
    return done


def _keep(rollout: Rollout, groups: Sequence[Group], accuracy_PG: Tensor, settings: DefenderSettings) -> None:
    """Add a batch's groups. accuracy_PG: their rewards without the overlong punishment."""
    low, high = settings.keep_reward_above, settings.keep_reward_below
    signals = keep_groups(accuracy_PG, low, high).tolist()
    for group, rewards_G, signal in zip(groups, accuracy_PG, signals, strict=True):
        if not signal:
            wrong = rewards_G.mean().item() <= low
            rollout.thrown_low += wrong
            rollout.thrown_high += not wrong
        elif len(rollout.kept) < settings.prompts_per_step:
            rollout.kept.append(len(rollout.groups))
        else:
            rollout.surplus += 1
        rollout.groups.append(group)
    rollout.batches += 1


def distorted(settings: DefenderSettings) -> int:
    """How many answers of a group, the last ones, are given about a distorted picture."""
    return round(settings.noisy.share * settings.group_size)


def _sample(
    vlm: LocalVLM | RolloutServer,
    batches: Sequence[Sequence[Item]],
    told: Sequence[Sequence[Told]],
    settings: DefenderSettings,
    places: Sequence[tuple[int | str, ...]],
    noise: int,
    ranks: Ranks,
) -> list[list[list[Completion]]]:
    """The answers of every batch's groups; those about distorted pictures come last. Each process samples
    those of its share of all the groups, batch by batch: places are the batches' seeds.
    """
    share = ranks.share(sum(map(len, batches)))
    replies: list[list[Completion]] = []
    first = 0
    for batch, own_told, where in zip(batches, told, places, strict=True):
        borders = [min(max(border - first, 0), len(batch)) for border in (share.start, share.stop)]
        if borders[0] < borders[1]:
            replies += _sample_part(vlm, batch, own_told, slice(*borders), settings, where, noise)
        first += len(batch)
    every = iter(ranks.gather(replies))
    return [list(islice(every, len(batch))) for batch in batches]


def _sample_part(
    vlm: LocalVLM | RolloutServer,
    items: Sequence[Item],
    told: Sequence[Told],
    part: slice,
    settings: DefenderSettings,
    where: tuple[int | str, ...],
    noise: int,
) -> list[list[Completion]]:
    """The answers of a part of a batch's groups."""
    replies: list[list[Completion]] = [[] for _ in items[part]]
    noisy = distorted(settings)
    clean = [shown(image) for image, _ in items[part]]
    parts = [(clean, settings.group_size - noisy, derive_seed(*where))]
    if noisy:
        pictures = [
            distort(image, noise, derive_seed(*where, "noise", place))
            for place, image in enumerate(clean, part.start)
        ]
        parts.append((pictures, noisy, derive_seed(*where, "distorted")))
    prompts, starts = [one.prompt for one in told[part]], [one.start for one in told[part]]
    for pictures, count, seed in parts:
        if count:
            sampling = Sampling(
                settings.max_new_tokens,
                settings.temperature,
                settings.top_p,
                settings.top_k,
                seed=seed,
                n=count,
                numbers=range(part.start, part.stop),
                # Sampling keeps nothing for a backward pass, so several times as many fit.
                batch=4 * settings.micro_batch,
            )
            for own, more in zip(
                replies, vlm.generate(pictures, prompts, sampling, starts=starts), strict=True
            ):
                own += more
    return replies


def _move_to_clean(vlm: LocalVLM | RolloutServer, rollout: Rollout, settings: DefenderSettings) -> None:
    """Give the kept groups' answers about distorted pictures the log-probabilities that they have about the
    clean ones.
    """
    if isinstance(vlm, RolloutServer):
        raise TrainingError(
            "defender.noisy needs a Defender that samples its own answers: leave out defender.rollout_server"
        )
    groups, noisy = [rollout.groups[place] for place in rollout.kept], distorted(settings)
    moved = as_of_clean(
        vlm,
        [shown(group.image) for group in groups],
        [group.prompt for group in groups],
        [group.start for group in groups],
        [group.replies[-noisy:] for group in groups],
        settings,
    )
    for place, group, own in zip(rollout.kept, groups, moved, strict=True):
        rollout.groups[place] = replace(group, replies=(*group.replies[:-noisy], *own))


def _rewarded(
    vlm: LocalVLM | RolloutServer,
    items: Sequence[Item],
    told: Sequence[Told],
    replies: Sequence[Sequence[Completion]],
    settings: DefenderSettings,
    judge: ConsistencyJudge | None,
    ranks: Ranks,
) -> tuple[list[Group], torch.Tensor]:
    """Groups of answers with their rewards, and accuracy_PG: the rewards without the overlong punishment."""
    answers = [
        [read(reply, question, vlm.name, one.start) for reply in own]
        for own, one, (_, question) in zip(replies, told, items, strict=True)
    ]
    if judge is not None:
        answers = _with_consistency(answers, [question for _, question in items], judge, ranks)
    parts = [
        [answer_reward(a.text, question, settings, consistent=bool(a.notes.get("consistent"))) for a in own]
        for own, (_, question) in zip(answers, items, strict=True)
    ]
    accuracy_PG = torch.tensor([[sum(one.values()) for one in own] for own in parts])
    lengths_PG = torch.tensor([[len(reply.token_ids) for reply in own] for own in replies])
    length_PG = overlong_penalty(lengths_PG, settings.max_new_tokens, settings.overlong_cache)
    rewards_PG = accuracy_PG + length_PG
    if settings.overlong_cache > 0:
        parts = [
            [one | {"length": cost} for one, cost in zip(*own, strict=True)]
            for own in zip(parts, length_PG.tolist(), strict=True)
        ]
    noted = [
        [
            _noted(a, one, kind.kind, settings, place)
            for place, (a, one) in enumerate(zip(own, rewarded, strict=True))
        ]
        for own, rewarded, kind in zip(answers, parts, told, strict=True)
    ]
    groups = [
        Group(image, question, one.prompt, tuple(own), tuple(said), tuple(rewards), one.start)
        for (image, question), one, own, said, rewards in zip(
            items, told, replies, noted, rewards_PG.tolist(), strict=True
        )
    ]
    return groups, accuracy_PG


def _noted(
    answer: Answer, parts: Mapping[str, float], kind: str | None, settings: DefenderSettings, place: int
) -> Answer:
    """The answer with the parts of its reward, and with whether it is right under what made it harder or
    easier.
    """
    notes = answer.notes | {PREFIX + name: value for name, value in parts.items()}
    if kind is not None:
        notes[f"right_under_{kind}"] = float(answer.right)
    if distorted(settings):
        noisy = place >= settings.group_size - distorted(settings)
        notes["right_when_distorted" if noisy else "right_when_clean"] = float(answer.right)
    return replace(answer, notes=notes)


def _with_consistency(
    answers: Sequence[Sequence[Answer]],
    questions: Sequence[VisualQuestion],
    judge: ConsistencyJudge,
    ranks: Ranks,
) -> list[list[Answer]]:
    """The answers with notes: `consistent` with their own reasoning, and `verdict_unread` where that could
    not be read. Each process has its share of them read: a judge that is served may not say the same twice.
    """
    flat = [(question, answer) for own, question in zip(answers, questions, strict=True) for answer in own]
    share = flat[ranks.share(len(flat))]
    read_here = judge.verdicts([question for question, _ in share], [answer.text for _, answer in share])
    verdicts = iter(ranks.gather(read_here))
    judged: list[list[Answer]] = []
    for own in answers:
        judged.append([])
        for answer, verdict in zip(own, verdicts, strict=False):
            consistent = verdict.letter is not None and verdict.letter == answer.choice
            notes = {"consistent": float(consistent), "verdict_unread": float(verdict.letter is None)}
            judged[-1].append(replace(answer, notes=answer.notes | notes))
    return judged


Metrics = dict[str, float]


def mini_batches(groups: Sequence[Group], steps: int) -> list[Sequence[Group]]:
    """At most `steps` shares of whole groups, as equal as can be, none empty: share i has groups i, i +
    steps, ... in the order of sampling.
    """
    return [groups[first::steps] for first in range(min(steps, len(groups)))]


def of_all_steps(taken: Sequence[Metrics | None]) -> Metrics:
    """The metrics of an update from those of its steps, None for one that was left out because its loss or
    gradient was not finite.

    `broken` is the share of these. The others are means over the tokens of the steps that were taken, but
    for `grad_norm`, a mean over the steps, `trained_tokens`, a sum, and `ratio_first`, which is the first
    one's: it alone was computed with the weights that made the answers.
    """
    done = [metrics for metrics in taken if metrics is not None]
    broken = {"broken": 1 - len(done) / len(taken)}
    if not done:
        return broken
    tokens = sum(metrics["trained_tokens"] for metrics in done)
    means = {
        name: sum(metrics[name] * (metrics["trained_tokens"] / tokens) for metrics in done)
        for name in done[0]
    }
    return {
        **broken,
        **means,
        "ratio_first": done[0]["ratio_first"],
        "grad_norm": fmean(metrics["grad_norm"] for metrics in done),
        "trained_tokens": tokens,
        "micro_batch_halved": done[-1]["micro_batch_halved"],
    }


MicroBatch = tuple[list[Group], Tensor]
"""Groups and the advantages of their answers, flat."""


def micro_batches(groups: Sequence[Group], advantages_PG: Tensor, size: int) -> list[MicroBatch]:
    """Micro-batches of at most `size` answers. A group is kept together, its picture being computed once for
    all of it, unless it is larger.
    """
    if not groups:
        return []
    answers = advantages_PG.shape[1]
    at_once = size // answers
    if at_once:
        return [
            (list(groups[i : i + at_once]), advantages_PG[i : i + at_once].flatten())
            for i in range(0, len(groups), at_once)
        ]
    parts = [slice(start, start + size) for start in range(0, answers, size)]
    return [
        ([_part(group, part)], own_G[part])
        for group, own_G in zip(groups, advantages_PG, strict=True)
        for part in parts
    ]


def _part(group: Group, part: slice) -> Group:
    return replace(
        group, replies=group.replies[part], answers=group.answers[part], rewards=group.rewards[part]
    )
