"""The part of a probe that changes pictures: edits made and checked once, answered by every Defender.

Edits and what the checks say of them go into the ledger batch by batch, so that a resumed probe makes none
twice: stage "attack/NAME", or "attack/NAME/DEFENDER" for an attacker that is made against one Defender (by
its gradients, or trained on it). The pictures lie below `pictures/`. A question whose picture an attacker
cannot edit is set aside. Answers are noted there too, for whoever shows or publishes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparring.asking.prompts import render_prompt
from sparring.config import DefenderSettings, ProbeSettings
from sparring.data.images import pictures_of
from sparring.data.records import Answer, Verdict, VisualQuestion
from sparring.engine.crew import Crew, Engine, Make
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.judging.validity import Auditor, DuplicateCheck
from sparring.measures.robustness import Played
from sparring.models.vlms.base import VLM
from sparring.probe.asking import Asker, Request
from sparring.probe.attackers import Attacker, load_attacker, settings_of
from sparring.probe.bench import Bench, Made, Work, check_of, checked, ready_bench
from sparring.probe.settings import ADAPTIVE, AGAIN
from sparring.seeds import derive_seed

CLEAN = "clean"
"""The ledger's stage of the answers to clean pictures."""
Key = tuple[str, int]
"""An edit: its question's id and the number of the sample."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What makes and checks edits. duplicates: the judge in this process, None where there is none or where
    the workers have it.
    """

    settings: ProbeSettings
    ledger: Ledger
    screen: Screen
    auditor: Auditor
    engine: Engine
    duplicates: DuplicateCheck | None
    shared: Path | None = None
    """The folder of `make_shared_edits` that has been at work for this probe."""
    set_aside: dict[str, str] = field(default_factory=dict)
    """Question id -> why an attacker has no edit of it."""
    answers: dict[tuple[str, str], dict[Key, Answer]] = field(default_factory=dict)
    """(stage of an attacker, Defender) -> edit that it was shown -> its answer."""

    def make_edits(
        self, attacker: Attacker, questions: Sequence[VisualQuestion], asker: Asker | None
    ) -> None:
        """Edits of all questions with their verdicts, except those that are in the ledger. asker: the
        Defender that they are made against.
        """
        settings, found = self.settings, self.verdicts(attacker)
        if not found and asker is None and self.shared is not None:
            self.ledger.take_over(attacker.stage, self.shared)
            found = self.verdicts(attacker)
        parts = [questions[i : i + settings.batch] for i in range(0, len(questions), settings.batch)]
        left = [
            (sample, part)
            for sample in range(settings.samples)
            for part in parts
            if not found.keys() >= {(question.id, sample) for question in part}
        ]
        with self.screen.stage(f"edits: {attacker.title}", len(questions) * settings.samples) as bar:

            def advance(count: int) -> None:
                accepted = sum(verdict.accepted for verdict in found.values())
                bar.advance(count, {"accepted": accepted / max(1, len(found))})

            advance(len(questions) * settings.samples - sum(len(part) for _, part in left))
            if not left:
                return
            with self._benches(attacker, asker) as crew:
                work = (Work(part, pictures_of(part), self._seed(sample)) for sample, part in left)
                for (sample, part), made in zip(left, crew.map(Bench.make, work), strict=True):
                    judged = self._record(attacker.stage, sample, part, made)
                    found |= {(verdict.question_id, sample): verdict for verdict in judged}
                    advance(len(part))

    def _seed(self, sample: int) -> int:
        """The first sample has the noise of held-out play in a run with this seed."""
        return self.settings.seed if sample == 0 else derive_seed(self.settings.seed, "sample", sample)

    def _benches(self, attacker: Attacker, asker: Asker | None) -> AbstractContextManager[Crew[Bench]]:
        """Those who make an attacker's edits, and check them, unless an endpoint is asked for that."""
        settings, engine, out = self.settings, self.engine, self.ledger.folder

        def defender() -> tuple[VLM, DefenderSettings]:
            assert asker is not None
            return asker.vlm, settings.defender

        def here() -> Bench:
            own = settings_of(settings, attacker)
            # A user who names a LoRA that changes nothing was told before; a study's game may have made one.
            rival = load_attacker(own, engine.device, defender, must_change=False)
            return Bench(rival, check_of(settings, self.duplicates, engine.device, self.auditor))

        if asker is not None and not engine.is_here("play"):
            asker.rest()  # its crew makes room for this one
        trained = [own for own in out.glob(f"{ADAPTIVE}/*/editor") if str(own) in attacker.spec]
        carried = engine.carried(out, trained) if trained else None
        make = Make(ready_bench, (settings, attacker, out, carried))
        return engine.crew("play", make, here)

    def _record(
        self, stage: str, sample: int, questions: Sequence[VisualQuestion], made: Made
    ) -> list[Verdict]:
        if made.verdicts is None:
            check = check_of(self.settings, self.duplicates, self.engine.device, self.auditor)
            made = checked(made, questions, pictures_of(questions), check)
        assert made.verdicts is not None
        self.set_aside.update(made.set_aside)
        samples = [sample] * len(made.edits)
        self.ledger.record_edits(stage, 0, made.edits, samples)
        self.ledger.record_verdicts(stage, 0, made.verdicts, samples)
        return made.verdicts

    def verdicts(self, attacker: Attacker) -> dict[Key, Verdict]:
        """Edit -> what the checks said."""
        return dict(
            zip(
                self.ledger.keys("verdicts", attacker.stage),
                self.ledger.verdicts(attacker.stage),
                strict=True,
            )
        )

    def edits(self, attacker: Attacker) -> dict[Key, dict[str, Any]]:
        """Edit -> its row in the ledger; `picture` is its file."""
        return {(row["question_id"], row["sample"]): row for row in self.ledger.edits(attacker.stage)}


def play(
    workshop: Workshop,
    attacker: Attacker,
    asker: Asker,
    questions: Sequence[VisualQuestion],
    clean: Mapping[str, bool],
) -> Played:
    """One Defender's answers about one attacker's edits. clean: question id -> right about the clean picture,
    which counts for edits that it is not shown.

    An edit is valid where the checks passed it and the auditor says that the right answer still is; one that
    it cannot read is not. Where it had no word on any of them, the checks' is all there is. Questions that
    are set aside, or have no answer, stand as wrong: they are in no figure.
    """
    settings, edits, found = workshop.settings, workshop.edits(attacker), workshop.verdicts(attacker)
    audited = any(verdict.label_valid is not None for verdict in found.values())
    answers = workshop.answers.setdefault((attacker.stage, asker.name), {})
    right, valid, changed, shown = [], [], [], []
    for sample in range(settings.samples):
        verdicts = [found.get((question.id, sample)) for question in questions]
        shown.append(
            [
                verdict is not None
                and question.id not in workshop.set_aside
                and (settings.shown == "all" or attacker.control or verdict.accepted)
                for question, verdict in zip(questions, verdicts, strict=True)
            ]
        )
        requests = [
            Request(
                question,
                edits[question.id, sample]["picture"],
                render_prompt(question, settings.defender.prompt),
            )
            for question, seen in zip(questions, shown[-1], strict=True)
            if seen
        ]
        with workshop.screen.stage(f"{asker.name}: {attacker.name}", len(requests)) as bar:
            said = [one.answer for one in asker.ask(requests, bar) if not one.error]
        workshop.ledger.record_answers(attacker.stage, 0, said, [sample] * len(said))
        answered = {answer.question_id: answer for answer in said}
        answers.update(((name, sample), answer) for name, answer in answered.items())
        right.append(
            [
                question.id in answered and answered[question.id].right if seen else clean[question.id]
                for question, seen in zip(questions, shown[-1], strict=True)
            ]
        )
        valid.append(
            [v is not None and v.accepted and (not audited or v.label_valid is True) for v in verdicts]
        )
        # What is no attack at all is a control: a round trip that gives the picture back counts as one.
        changed.append([attacker.control or v is None or not v.unchanged for v in verdicts])
    right_SN, valid_SN, changed_SN, shown_SN = (
        np.array(own, dtype=bool) for own in (right, valid, changed, shown)
    )
    return Played(attacker.name, right_SN, valid_SN, attacker.control, changed_SN, shown_SN)


def play_again(workshop: Workshop, asker: Asker, questions: Sequence[VisualQuestion]) -> Played:
    """The noise floor: the same pictures in the same words, asked anew."""
    prompt = workshop.settings.defender.prompt
    requests = [Request(question, question.image, render_prompt(question, prompt)) for question in questions]
    with workshop.screen.stage(f"{asker.name}: {AGAIN}", len(requests)) as bar:
        right = [said.answer.right for said in asker.ask(requests, bar, trial=1)]
    return Played(AGAIN, np.array([right], dtype=bool), np.ones((1, len(right)), dtype=bool), control=True)
