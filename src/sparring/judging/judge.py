"""The judge of attacks: edited pictures in, verdicts and rewards out, in one batched pass over all edits of
all questions.

What an edit is paid is said in `rewards`. Its `fall` is the share of the right answer's length-normalised
probability that the edit takes away. Which text is measured is ours: the Defender's own greedy reply to the
clean picture, where that is right, so that the signal is graded through the reasoning and not only at the
final letter; else `\\boxed{X}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from sparring.asking.prompts import render_prompt
from sparring.asking.questions import ask_each
from sparring.config import DefenderSettings, JudgeSettings
from sparring.data.errors import DataError, ModelError, RefusedError
from sparring.data.images import image_sha256
from sparring.data.records import Answer, Verdict, VisualQuestion
from sparring.judging.integrity import local_ssim
from sparring.judging.kinds import classify, nobody
from sparring.judging.light import LightChange, excess, light_change
from sparring.judging.rewards import (
    PREFIX,
    CustomReward,
    Gate,
    ask_until_right,
    efficacy,
    frontier,
    group_diversity,
    relative_fall,
    reward_of,
    reward_parts,
    shortfall,
    variety,
)
from sparring.judging.validity import DuplicateCheck
from sparring.models.vlms.base import VLM

PIXELS_AT_ONCE = 2**25  # of edited pictures in one call of local SSIM: bounds memory for large pictures


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the Defender's answers that led to it; no answers where the gate rejected the edit."""

    verdict: Verdict
    answers: tuple[Answer, ...]


class AttackJudge:
    """Judges edits against one frozen Defender. Make a new one, or call `forget`, when the Defender's weights
    have changed.

    A question of which the Defender refuses the clean picture or one of the edits is left out: there are no
    verdicts on its edits. `refused` holds its id with the reason, and `tell` is told, once.
    """

    def __init__(
        self,
        defender: VLM,
        duplicates: DuplicateCheck | None,
        settings: JudgeSettings,
        defender_settings: DefenderSettings,
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.defender = defender
        self.duplicates = duplicates
        self.settings = settings
        self.defender_settings = defender_settings
        self._custom = None if settings.reward is None else CustomReward(settings.reward)
        self.refused: dict[str, str] = {}
        self._tell = tell
        self._clean_replies: dict[tuple[str, str, str], str] = {}

    def judge(
        self,
        questions: Sequence[VisualQuestion],
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        *,
        seed: int = 0,
    ) -> list[list[Verdict]]:
        """One verdict an edit, none on the edits of a question that is left out. edits[q]: the edited
        pictures of question q, of the size of clean_images[q]. `seed`: for sampled trials.

        DataError, naming the question, for an edit of another size or a box outside the picture.
        """
        return [
            [judgement.verdict for judgement in own]
            for own in self.examine(questions, clean_images, edits, seed=seed)
        ]

    def examine(
        self,
        questions: Sequence[VisualQuestion],
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        *,
        seed: int = 0,
    ) -> list[list[Judgement]]:
        """As `judge`, with the Defender's answers beside every verdict.

        DataError, naming the question, also where `judge.reward` fails.
        """
        gates = self.gate(questions, clean_images, edits)
        accepted = [(q, e) for q, own in enumerate(gates) for e, gate in enumerate(own) if gate.accepted]
        trials = ask_until_right(
            self._ask,
            [questions[q] for q, _ in accepted],
            [edits[q][e] for q, e in accepted],
            trials=self.settings.trials,
            greedy=self.settings.trial_temperature == 0,
            seed=seed,
            go_on=self.settings.frontier_weight > 0,
        )
        left_out = {
            q: str(own) for (q, _), own in zip(accepted, trials, strict=True) if isinstance(own, RefusedError)
        }
        answers = {
            place: own
            for place, own in zip(accepted, trials, strict=True)
            if place[0] not in left_out and not isinstance(own, RefusedError)
        }
        probabilities: dict[tuple[int, int], tuple[float, float]] = {}
        if self.settings.dense_weight > 0:
            probabilities, lost = self._probabilities(questions, clean_images, edits, list(answers))
            left_out |= lost
        self._leave_out({questions[q].id: why for q, why in left_out.items()})
        accepted = [(q, e) for q, e in accepted if q not in left_out]
        diversity = (
            self._diversity(clean_images, edits, accepted) if self.settings.diversity_weight > 0 else {}
        )
        rare = self._variety(clean_images, edits, accepted) if self.settings.variety_weight > 0 else {}
        judged = [
            [
                self._judgement(
                    question,
                    gate,
                    answers.get((q, e), ()),
                    probabilities.get((q, e)),
                    diversity.get((q, e)),
                    rare.get((q, e)),
                )
                for e, gate in enumerate(gates[q])
                if q not in left_out
            ]
            for q, question in enumerate(questions)
        ]
        if self._custom is None:
            return judged
        pay = self._custom.pay
        return [
            [
                replace(one, verdict=pay(question, clean, edit, one.verdict, one.answers))
                for edit, one in zip(made, own, strict=bool(own))  # none of a question that is left out
            ]
            for question, clean, made, own in zip(questions, clean_images, edits, judged, strict=True)
        ]

    def require_some(self, questions: Sequence[VisualQuestion]) -> None:
        """ModelError where the Defender has refused all of these questions, so that nothing is left to learn
        from.
        """
        if questions and all(question.id in self.refused for question in questions):
            last = questions[-1].id
            raise ModelError(
                f'the Defender refuses all {len(questions)} questions; of the last one, "{last}": '
                f"{self.refused[last]}"
            )

    def _leave_out(self, why: dict[str, str]) -> None:
        for name, reason in why.items():
            if name not in self.refused:
                self._tell(f'question "{name}" gets no answer and is left out: {reason}')
        self.refused |= why

    def gate(
        self,
        questions: Sequence[VisualQuestion],
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
    ) -> list[list[Gate]]:
        """Integrity of every edit, and the duplicate check of the intact ones; a picture that came back as it
        was is `unchanged`, as in `vet`, and no attack. The Defender is not asked.
        """
        gates = check_edits(
            questions, clean_images, edits, self.settings, self.duplicates, self.defender.device
        )
        return [
            [replace(gate, unchanged=same_picture(edit, clean)) for gate, edit in zip(own, made, strict=True)]
            for own, made, clean in zip(gates, edits, clean_images, strict=True)
        ]

    def remember(self, question: VisualQuestion, clean_image: Image, answer: Answer) -> None:
        """Take over the Defender's greedy answer to a clean picture, so that it is not asked for again."""
        self._clean_replies[self._key(question, clean_image)] = self._measured_text(question, answer)

    def forget(self) -> None:
        """Drop what is known of the Defender's clean replies, and what it refused."""
        self._clean_replies.clear()
        self.refused.clear()

    def _ask(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        seed: int,
        temperature: float | None = None,
    ) -> list[Answer | RefusedError]:
        settings = self.defender_settings
        temperature = self.settings.trial_temperature if temperature is None else temperature
        return ask_each(
            self.defender,
            questions,
            images,
            settings,
            temperature=temperature,
            seed=seed,
            batch=settings.micro_batch,
        )

    def _probabilities(
        self,
        questions: Sequence[VisualQuestion],
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        accepted: Sequence[tuple[int, int]],
    ) -> tuple[dict[tuple[int, int], tuple[float, float]], dict[int, str]]:
        """(clean, edited) probability of the right answer for every accepted edit; and of what questions the
        Defender does not tell them, with the reason.

        Clean replies are cached, clean probabilities are not: a probability depends in its last digits on
        the batch that it was computed in, so one kept from an earlier call would make a resumed run differ
        from an undisturbed one. Clean rows go first in the same batch.
        """
        asked = sorted({q for q, _ in accepted})
        lost = self._learn_clean_replies(questions, clean_images, asked)
        if lost:
            asked, accepted = (
                [q for q in asked if q not in lost],
                [(q, e) for q, e in accepted if q not in lost],
            )
        rows = [(q, clean_images[q]) for q in asked] + [(q, edits[q][e]) for q, e in accepted]
        prompts = [render_prompt(question, self.defender_settings.prompt) for question in questions]
        texts = {q: self._clean_replies[self._key(questions[q], clean_images[q])] for q in asked}
        shown, asked_of = [image for _, image in rows], [q for q, _ in rows]
        try:
            values = self.defender.option_probabilities(
                shown,
                [prompts[q] for q in asked_of],
                [texts[q] for q in asked_of],
                batch=self.defender_settings.micro_batch,
            ).tolist()
        except RefusedError as error:
            lost |= {asked_of[place]: why for place, why in error.places.items()}
            if not error.places:
                raise
            left = [(q, e) for q, e in accepted if q not in lost]
            values_left, more = (
                self._probabilities(questions, clean_images, edits, left) if left else ({}, {})
            )
            return values_left, lost | more
        if not np.isfinite(values).all():
            bad = questions[asked_of[int(np.argmin(np.isfinite(values)))]].id
            raise ModelError(
                f'question "{bad}": the Defender gives its right answer a probability that is not finite; '
                f"its weights are broken"
            )
        clean = dict(zip(asked, values, strict=False))
        return {
            (q, e): (clean[q], value) for (q, e), value in zip(accepted, values[len(asked) :], strict=True)
        }, lost

    @staticmethod
    def _diversity(
        clean_images: Sequence[Image], edits: Sequence[Sequence[Image]], accepted: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], float]:
        """Of every accepted edit, how far it is from the other accepted edits of its question."""
        values: dict[tuple[int, int], float] = {}
        for q, own in groupby(accepted, key=lambda place: place[0]):
            places = list(own)
            values.update(
                zip(places, group_diversity(clean_images[q], [edits[q][e] for _, e in places]), strict=True)
            )
        return values

    @staticmethod
    def _variety(
        clean_images: Sequence[Image], edits: Sequence[Sequence[Image]], accepted: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], float]:
        """Of every accepted edit, how rare its kind is among all accepted edits that are judged together."""
        found = classify([clean_images[q] for q, _ in accepted], [edits[q][e] for q, e in accepted], nobody)
        return dict(zip(accepted, variety([each.kind for each in found]), strict=True))

    def _learn_clean_replies(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], asked: Sequence[int]
    ) -> dict[int, str]:
        """Ask what is not known yet; gives the questions that the Defender refuses, with the reason."""
        missing = [q for q in asked if self._key(questions[q], images[q]) not in self._clean_replies]
        answers = self._ask(
            [questions[q] for q in missing], [images[q] for q in missing], seed=0, temperature=0.0
        )
        for q, answer in zip(missing, answers, strict=True):
            if isinstance(answer, Answer):
                self.remember(questions[q], images[q], answer)
        return {
            q: str(answer)
            for q, answer in zip(missing, answers, strict=True)
            if isinstance(answer, RefusedError)
        }

    def _key(self, question: VisualQuestion, image: Image) -> tuple[str, str, str]:
        # The picture and the wording, not the id: an id may come back with another picture.
        return image_sha256(image), render_prompt(question, self.defender_settings.prompt), question.answer

    @staticmethod
    def _measured_text(question: VisualQuestion, answer: Answer) -> str:
        return answer.text if answer.right else f"\\boxed{{{question.answer}}}"

    def _judgement(
        self,
        question: VisualQuestion,
        gate: Gate,
        answers: tuple[Answer, ...],
        probability: tuple[float, float] | None,
        diversity: float | None,
        rare: float | None,
    ) -> Judgement:
        failed, notes = efficacy(answers, self.settings.trials), {"answers": float(len(answers))} | gate.notes
        if not gate.intact:
            notes["shortfall"] = shortfall(self.settings, gate)
        fall, drop = 0.0, None
        if probability is not None:
            clean, edited = probability
            fall, drop = relative_fall(clean, edited), clean - edited
            notes |= {"probability_clean": clean, "probability_edited": edited}
        if diversity is not None:
            notes["diversity"] = diversity
        if rare is not None:
            notes["variety"] = rare
        near = frontier(answers) if self.settings.frontier_weight > 0 else 0.0
        if self.settings.frontier_weight > 0:
            notes["frontier"] = near
        parts = reward_parts(
            self.settings,
            gate,
            efficacy=failed,
            fall=fall,
            frontier=near,
            diversity=diversity or 0.0,
            variety=rare or 0.0,
        )
        notes |= {PREFIX + name: value for name, value in parts.items()}
        verdict = Verdict(
            question.id,
            gate.integrity,
            gate.intact,
            gate.duplicate,
            failed,
            reward_of(parts),
            probability_drop=drop,
            notes=notes,
        )
        return Judgement(verdict, answers)


def check_edits(
    questions: Sequence[VisualQuestion],
    clean_images: Sequence[Image],
    edits: Sequence[Sequence[Image]],
    settings: JudgeSettings,
    duplicates: DuplicateCheck | None,
    device: torch.device,
) -> list[list[Gate]]:
    """Integrity of every edit, on `device`; its light where that is guarded; the duplicate check of the
    intact ones.

    Errors as for `AttackJudge.judge`.
    """
    integrity = _integrity(questions, clean_images, edits, device)
    light = _light(questions, clean_images, edits, settings)
    relit = [
        [
            change is not None and excess(change, settings.light_level, settings.light_spread) > 0
            for change in own
        ]
        for own in light
    ]
    intact = [
        [value >= settings.integrity_threshold and not lit for value, lit in zip(*own, strict=True)]
        for own in zip(integrity, relit, strict=True)
    ]
    duplicate = [[False] * len(own) for own in edits]
    if duplicates is not None:
        to_check = [[e for e, whole in enumerate(own) if whole] for own in intact]
        changed = duplicates.changed_batch(
            questions, clean_images, [[edits[q][e] for e in own] for q, own in enumerate(to_check)]
        )
        for q, own in enumerate(to_check):
            for e, other in zip(own, changed[q], strict=True):
                duplicate[q][e] = other
    together = zip(integrity, intact, duplicate, light, relit, strict=True)
    return [[Gate(*each) for each in zip(*own, strict=True)] for own in together]


def same_picture(edit: Image, clean: Image) -> bool:
    """Do the two show the same pixels?"""
    return edit.size == clean.size and edit.convert("RGB").tobytes() == clean.convert("RGB").tobytes()


def _light(
    questions: Sequence[VisualQuestion],
    clean_images: Sequence[Image],
    edits: Sequence[Sequence[Image]],
    settings: JudgeSettings,
) -> list[list[LightChange | None]]:
    """The change of light of every edit; None where no limit is set."""
    if settings.light_level is None and settings.light_spread is None:
        return [[None] * len(own) for own in edits]
    found: list[list[LightChange | None]] = []
    for question, clean, own in zip(questions, clean_images, edits, strict=True):
        before, boxes = np.asarray(clean.convert("RGB")), [target.box for target in question.targets]
        found.append([light_change(before, np.asarray(edit.convert("RGB")), boxes) for edit in own])
    return found


def _integrity(
    questions: Sequence[VisualQuestion],
    clean_images: Sequence[Image],
    edits: Sequence[Sequence[Image]],
    device: torch.device,
) -> list[list[float]]:
    """Local SSIM of every edit, in one call a picture size."""
    if not len(questions) == len(clean_images) == len(edits):
        raise DataError(
            f"{len(questions)} questions, {len(clean_images)} clean pictures and {len(edits)} lists of "
            f"edits do not belong together"
        )
    by_size: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for q, (question, clean) in enumerate(zip(questions, clean_images, strict=True)):
        _check(question, clean, edits[q])
        by_size.setdefault(clean.size, []).extend((q, e) for e in range(len(edits[q])))
    values = [[0.0] * len(own) for own in edits]
    for (width, height), places in by_size.items():
        at_once = max(1, PIXELS_AT_ONCE // (width * height))
        for start in range(0, len(places), at_once):
            part = places[start : start + at_once]
            cleans = {q: _pixels(clean_images[q]) for q in {q for q, _ in part}}
            clean_BCHW = torch.stack([cleans[q] for q, _ in part]).to(device)
            edited_BCHW = torch.stack([_pixels(edits[q][e]) for q, e in part]).to(device)
            boxes = [[target.box for target in questions[q].targets] for q, _ in part]
            for (q, e), value in zip(part, local_ssim(clean_BCHW, edited_BCHW, boxes).tolist(), strict=True):
                values[q][e] = value
    return values


def _check(question: VisualQuestion, clean: Image, edits: Sequence[Image]) -> None:
    for number, edit in enumerate(edits):
        if edit.size != clean.size:
            raise DataError(
                f'question "{question.id}": edit {number} is {edit.width} x {edit.height} pixels, its clean '
                f"picture {clean.width} x {clean.height}. "
                "An editor must give back pictures of the size it was given."
            )
    for target in question.targets:
        x0, y0, x1, y1 = target.box
        if not (0 <= x0 < x1 <= clean.width and 0 <= y0 < y1 <= clean.height):
            raise DataError(
                f'question "{question.id}": box {list(target.box)} of target "{target.name}" is empty or '
                f"lies outside the picture, "
                f"which is {clean.width} x {clean.height} pixels"
            )


def _pixels(image: Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
