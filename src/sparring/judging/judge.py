"""The judge of attacks: edited pictures in, verdicts and rewards out, in one batched pass over all edits of
all questions, or in two steps: every question's edits are heard (`hearing`), then all are compared and paid.

What an edit is paid is said in `rewards`. Its `fall` is the share of the right answer's length-normalised
probability that the edit takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from PIL.Image import Image

from sparring.config import DefenderSettings, JudgeSettings
from sparring.data.errors import ModelError
from sparring.data.records import Answer, Verdict, VisualQuestion
from sparring.data.words import plural
from sparring.engine.ranks import Ranks
from sparring.judging.hearing import Heard, Hearing
from sparring.judging.kinds import classify, nobody
from sparring.judging.rewards import (
    PREFIX,
    CustomReward,
    Gate,
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


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the Defender's answers that led to it; no answers where the gate rejected the edit."""

    verdict: Verdict
    answers: tuple[Answer, ...]


def require_some(questions: Sequence[VisualQuestion], refused: Mapping[str, str]) -> None:
    """ModelError where the Defender has refused all of these questions (id -> why), so that nothing is left
    to learn from.
    """
    if questions and all(question.id in refused for question in questions):
        last = questions[-1].id
        raise ModelError(
            f'the Defender refuses all {plural(len(questions), "question")}; of the last one, "{last}": '
            f"{refused[last]}"
        )


class AttackJudge(Hearing):
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
        ranks: Ranks | None = None,
    ) -> None:
        """ranks: processes that each judge their share of the same edits; all of them call `conclude`, and
        the verdicts are then those of one process that judges all.
        """
        super().__init__(defender, duplicates, settings, defender_settings)
        self.ranks = ranks or Ranks()
        self._custom = None if settings.reward is None else CustomReward(settings.reward)
        self.refused: dict[str, str] = {}
        self._tell = tell

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
        heard = self.hear(questions, clean_images, edits, seed=seed)
        return self.conclude(questions, clean_images, edits, heard)

    def conclude(
        self,
        questions: Sequence[VisualQuestion],
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        heard: Sequence[Heard],
    ) -> list[list[Judgement]]:
        """`examine` of edits that have been heard, all of those that are compared with each other."""
        self._leave_out(
            {
                question.id: own.refused
                for question, own in zip(questions, heard, strict=True)
                if own.refused is not None
            }
        )
        accepted = [
            (q, e)
            for q, own in enumerate(heard)
            if own.refused is None
            for e, gate in enumerate(own.gates)
            if gate.accepted
        ]
        diversity = (
            self._diversity(clean_images, edits, accepted) if self.settings.diversity_weight > 0 else {}
        )
        rare = self._variety(clean_images, edits, accepted) if self.settings.variety_weight > 0 else {}
        judged = [
            [
                self._judgement(
                    question,
                    gate,
                    own.answers.get(e, ()),
                    own.probabilities.get(e),
                    diversity.get((q, e)),
                    rare.get((q, e)),
                )
                for e, gate in enumerate(own.gates)
                if own.refused is None
            ]
            for q, (question, own) in enumerate(zip(questions, heard, strict=True))
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
        """`require_some` of what has been refused here."""
        require_some(questions, self.refused)

    def _leave_out(self, why: dict[str, str]) -> None:
        for name, reason in why.items():
            if name not in self.refused:
                self._tell(f'question "{name}" gets no answer and is left out: {reason}')
        self.refused |= why

    def forget(self) -> None:
        """Drop what is known of the Defender's clean replies, and what it refused."""
        self._clean_replies.clear()
        self.refused.clear()

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

    def _variety(
        self,
        clean_images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        accepted: Sequence[tuple[int, int]],
    ) -> dict[tuple[int, int], float]:
        """Of every accepted edit, how rare its kind is among all accepted edits that are judged together."""
        found = classify([clean_images[q] for q, _ in accepted], [edits[q][e] for q, e in accepted], nobody)
        kinds = [each.kind for each in found]
        first = self.ranks.before(len(kinds))
        values = variety(self.ranks.gather(kinds))[first : first + len(kinds)]
        return dict(zip(accepted, values, strict=True))

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
