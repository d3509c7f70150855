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
from PIL.Image import Image

from sparring.asking.prompts import render_prompt
from sparring.asking.questions import ask_each
from sparring.config import DefenderSettings, JudgeSettings
from sparring.data.errors import ModelError, RefusedError
from sparring.data.images import image_sha256
from sparring.data.records import Answer, Verdict, VisualQuestion
from sparring.judging.kinds import classify, nobody
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
from sparring.judging.vet import check_edits, same_picture
from sparring.models.vlms.base import VLM


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
