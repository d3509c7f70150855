"""What is found out about edits one by one: whether they are intact, and what the Defender says to them.

Which text's probability is measured is ours: the Defender's own greedy reply to the clean picture, where that
is right, so that the signal is graded through the reasoning and not only at the final letter; else
`\\boxed{X}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image

from sparring.asking.prompts import render_prompt
from sparring.asking.questions import ask_each
from sparring.config import DefenderSettings, JudgeSettings
from sparring.data.errors import ModelError, RefusedError
from sparring.data.images import image_sha256
from sparring.data.records import Answer, VisualQuestion
from sparring.judging.rewards import Gate, ask_until_right
from sparring.judging.validity import DuplicateCheck
from sparring.judging.vet import check_edits, same_picture
from sparring.models.vlms.base import VLM
from sparring.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Heard:
    """What gate and Defender say of the edits of one question. Of accepted edits, by their places: answers,
    and (clean, edited) probability of the right answer where that is paid for. refused: why the question is
    left out.
    """

    gates: list[Gate]
    answers: dict[int, tuple[Answer, ...]]
    probabilities: dict[int, tuple[float, float]]
    refused: str | None = None


class Hearing:
    """Puts edits through the gate, and asks one frozen Defender about those that pass."""

    def __init__(
        self,
        defender: VLM,
        duplicates: DuplicateCheck | None,
        settings: JudgeSettings,
        defender_settings: DefenderSettings,
    ) -> None:
        self.defender = defender
        self.duplicates = duplicates
        self.settings = settings
        self.defender_settings = defender_settings
        self._clean_replies: dict[tuple[str, str, str], str] = {}

    def hear(
        self,
        questions: Sequence[VisualQuestion],
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        *,
        seed: int = 0,
    ) -> list[Heard]:
        """What is found out of every question by itself. Questions may be heard apart, bar rounding: the
        random numbers of a trial follow from the seed, the question's id and the edit's place.
        """
        gates = self.gate(questions, clean_images, edits)
        accepted = [(q, e) for q, own in enumerate(gates) for e, gate in enumerate(own) if gate.accepted]

        def answer(places: Sequence[int], seed: int) -> list[Answer | RefusedError]:
            asked = [accepted[place] for place in places]
            return self._ask(
                [questions[q] for q, _ in asked],
                [edits[q][e] for q, e in asked],
                seed,
                self.settings.trial_temperature,
                [derive_seed(questions[q].id, e) for q, e in asked],
            )

        trials = ask_until_right(
            answer,
            len(accepted),
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
        return [
            Heard(
                own,
                {e: given for (place, e), given in answers.items() if place == q},
                {e: both for (place, e), both in probabilities.items() if place == q},
                left_out.get(q),
            )
            for q, own in enumerate(gates)
        ]

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

    def _ask(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        seed: int,
        temperature: float,
        numbers: Sequence[int] = (),
    ) -> list[Answer | RefusedError]:
        settings = self.defender_settings
        return ask_each(
            self.defender,
            questions,
            images,
            settings,
            temperature=temperature,
            seed=seed,
            batch=settings.micro_batch,
            numbers=numbers,
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
