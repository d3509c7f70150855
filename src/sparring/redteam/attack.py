"""An attack, from questions to figures: clean answers, edits and their checks, answers about the edits that
passed.

Everything goes into the ledger batch by batch, each batch whole or not at all, under the names of held-out
play: stage "evaluation/clean" for answers to clean pictures, "evaluation/attack" for edits, verdicts and
answers about them; the Defender is called "base". What is in the ledger is not done again. Answers of
endpoints are also kept one by one, in `answers.sqlite`, so that a kill costs none that had come back.

A question that gets no answer, or whose picture cannot be edited, is set aside: it is named with the reason,
and no figure counts it. The same command tries it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sparring.asking.desk import Desk, Query
from sparring.asking.prompts import render_prompt
from sparring.asking.questions import read
from sparring.attackers.rivals import Rival
from sparring.config import AttackSettings
from sparring.data.errors import ModelError, RunError, SparringError
from sparring.data.images import pictures_of
from sparring.data.layouts import data_digest
from sparring.data.pictures import PictureFile
from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.engine.stages import Stage
from sparring.judging.auditor import Auditor
from sparring.judging.validity import DuplicateCheck, load_duplicate_check
from sparring.judging.vet import vet
from sparring.models.players import load_asked_defender, spending_of, traits_of_defender
from sparring.models.vlms.base import VLM, Sampling
from sparring.redteam.attackers import load_attacker
from sparring.redteam.dataset import write_dataset
from sparring.redteam.questions import read_attacked
from sparring.redteam.results import CLEAN_STAGE, DEFENDER, STAGE, summarise, verdicts
from sparring.seeds import derive_seed


@dataclass
class Attack:
    """An attack under way: its settings, folder, questions and players. Players are loaded when they have
    something to do.
    """

    settings: AttackSettings
    out: Path
    ledger: Ledger
    screen: Screen
    auditor: Auditor
    device: torch.device
    questions: list[VisualQuestion]
    set_aside: dict[str, str] = field(default_factory=dict)
    """Question id -> why it is not counted."""

    @cached_property
    def defender(self) -> VLM:
        settings = self.settings.defender
        return load_asked_defender(settings.model, settings, self.device, self.answers)

    @cached_property
    def desk(self) -> Desk:
        """Where the Defender is asked. The ledger keeps its answers, batch by batch."""
        settings = self.settings.defender
        sampling = Sampling(settings.max_new_tokens, batch=settings.micro_batch)
        return Desk(traits_of_defender(settings.model, settings), lambda: self.defender, sampling)

    @property
    def answers(self) -> Path:
        """The cache of what endpoints answered."""
        return self.out / "answers.sqlite"

    @property
    def kept(self) -> list[VisualQuestion]:
        """The questions that are not set aside."""
        return [question for question in self.questions if question.id not in self.set_aside]

    def batches(self) -> Iterator[list[VisualQuestion]]:
        """The questions that are not set aside, a batch at a time; the same batches in every process,
        because sums depend on them in their last digits.
        """
        for start in range(0, len(self.questions), self.settings.batch):
            yield [
                question
                for question in self.questions[start : start + self.settings.batch]
                if question.id not in self.set_aside
            ]

    def ask(
        self, asked: Iterable[Sequence[tuple[VisualQuestion, Path]]], what: str
    ) -> Iterator[list[tuple[int, Answer]]]:
        """The Defender's greedy answers, of every batch of questions and pictures those that came, with their
        places in it; a question that gets none is set aside. what: was asked about.
        """
        batches = list[Sequence[tuple[VisualQuestion, Path]]]()  # at the desk: two at most

        def queries() -> Iterator[list[Query]]:
            prompt = self.settings.defender.prompt
            for batch in asked:
                batches.append(batch)
                yield [Query(q.id, (PictureFile(path),), render_prompt(q, prompt)) for q, path in batch]

        for raws in self.desk.ask_batches(queries()):
            found = []
            for place, ((question, _), raw) in enumerate(zip(batches.pop(0), raws, strict=True)):
                if raw.trouble is None:
                    found.append((place, read(raw, question, DEFENDER)))
                else:
                    self.put_aside(question, f"no answer about {what}: {raw.error}")
            yield found

    def put_aside(self, question: VisualQuestion, reason: str) -> None:
        """Set a question aside. ModelError where none is left."""
        self.set_aside[question.id] = reason
        if len(self.set_aside) == len(self.questions):
            raise ModelError(
                f'all {len(self.questions)} questions had to be set aside; the last one, "{question.id}": '
                f"{reason}"
            )


def run_attack(
    settings: AttackSettings,
    out: Path,
    screen: Screen | None = None,
    *,
    questions: list[VisualQuestion] | None = None,
) -> dict[str, Any]:
    """Attack, from the start or from where an earlier process was stopped; writes and returns
    `out/summary.json`, and writes `out/dataset`.

    questions: those of the settings' file, where they are read already.

    Errors: DataError for questions that do not load, ModelError where a player cannot be had, RunError if the
    folder is in use, holds another attack, or if the questions have changed since it began.
    """
    screen = screen or Screen()
    device = begin_computing(settings.device, settings.threads)
    if questions is None:
        questions = read_attacked(settings, out, screen)
    with (
        run_folder(settings, out, file="attack.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
        closing(Auditor(settings.audit, settings.threads or 1)) as auditor,
    ):
        attack = Attack(settings, folder, ledger, screen, auditor, device, questions)
        _same_questions(attack)
        screen.say(
            f"{len(questions)} questions, {settings.samples} edit(s) of each, seed {settings.seed}, on "
            f"{device}, in {folder}"
        )
        ask_clean(attack)
        make_edits(attack)
        ask_attacked(attack)
        spending = _spending(attack)
        ledger.tick()
        summary = summarise(settings, attack.kept, ledger, spending, attack.set_aside)
        write_dataset(folder, settings, attack.kept, ledger, summary)
        write_json(folder / "summary.json", summary)
        return summary


def _same_questions(attack: Attack) -> None:
    """Note the questions file by its hash; RunError where it is not the one that this attack began with."""
    stage, digest = Stage(attack.out, "data", attack.ledger), data_digest(Path(attack.settings.data))
    if not stage.done:
        stage.begin()
        attack.ledger.record_questions("held_out", attack.questions)
        stage.finish({"sha256": digest, "questions": len(attack.questions)})
    elif stage.result["sha256"] != digest:
        raise RunError(
            f"{attack.settings.data} has changed since the attack in {attack.out} began. Begin another one "
            f"with --out."
        )


def ask_clean(attack: Attack) -> None:
    """The Defender's greedy answers to the clean pictures."""
    known, right = {name for name, _ in attack.ledger.keys("answers", CLEAN_STAGE)}, 0
    parts = list(attack.batches())
    todo = [part for part in parts if not known.issuperset(question.id for question in part)]
    with attack.screen.stage("clean answers", len(attack.questions)) as bar:
        bar.advance(sum(map(len, parts)) - sum(map(len, todo)), {"right": right})
        asked = ([(question, question.image) for question in part] for part in todo)
        for part, found in zip(todo, attack.ask(asked, "its clean picture"), strict=True):
            attack.ledger.record_answers(CLEAN_STAGE, 0, [answer for _, answer in found])
            right += sum(answer.right for _, answer in found)
            bar.advance(len(part), {"right": right})


def make_edits(attack: Attack) -> None:
    """Edits of all questions with their verdicts: integrity, duplicates, the auditor's word on those that
    passed.
    """
    settings, done = attack.settings, set(attack.ledger.keys("verdicts", STAGE))
    attacker: Rival | None = None
    duplicates: DuplicateCheck | None = None
    accepted = count = 0
    with attack.screen.stage("edits", len(attack.questions) * settings.samples) as bar:
        for sample in range(settings.samples):
            for part in attack.batches():
                if not done.issuperset((question.id, sample) for question in part):
                    if attacker is None:
                        attacker = load_attacker(
                            settings.attacker, attack.device, lambda: (attack.defender, settings.defender)
                        )
                        duplicates = load_duplicate_check(settings.judge, attack.device, attack.answers)
                    judged = _edit(attack, attacker, duplicates, part, sample)
                    accepted, count = (
                        accepted + sum(verdict.accepted for verdict in judged),
                        count + len(judged),
                    )
                bar.advance(len(part), {"accepted": accepted / max(1, count)})


def _edit(
    attack: Attack,
    attacker: Rival,
    duplicates: DuplicateCheck | None,
    questions: Sequence[VisualQuestion],
    sample: int,
) -> list[Verdict]:
    settings, cleans = attack.settings, pictures_of(questions)
    # The first sample has the noise of held-out play in a run with this seed.
    seed = settings.seed if sample == 0 else derive_seed(settings.seed, "sample", sample)
    made = attacker.try_edit(questions, cleans, seed)
    for question, own in zip(questions, made, strict=True):
        if isinstance(own, SparringError):
            attack.put_aside(question, str(own))
    places = [place for place, own in enumerate(made) if isinstance(own, Edit)]
    questions, cleans = [questions[i] for i in places], [cleans[i] for i in places]
    edits, samples = [own for own in made if isinstance(own, Edit)], [sample] * len(places)
    judged = vet(
        questions,
        cleans,
        edits,
        settings=settings.judge,
        duplicates=duplicates,
        device=attack.device,
        audit=attack.auditor.audit,
    )
    attack.ledger.record_edits(STAGE, 0, edits, samples)
    attack.ledger.record_verdicts(STAGE, 0, judged, samples)
    return judged


def ask_attacked(attack: Attack) -> None:
    """The Defender's greedy answers about the edits that passed the checks, as they lie on disk."""
    by_id = {question.id: question for question in attack.questions}
    pictures = {
        (edit["question_id"], edit["sample"]): Path(edit["picture"]) for edit in attack.ledger.edits(STAGE)
    }
    passed = [
        key
        for key, verdict in verdicts(attack.ledger).items()
        if verdict.accepted and key[0] not in attack.set_aside
    ]
    size, done = attack.settings.batch, set(attack.ledger.keys("answers", STAGE))
    parts = [passed[start : start + size] for start in range(0, len(passed), size)]
    todo = [part for part in parts if not done.issuperset(part)]
    wrong = count = 0
    with attack.screen.stage("answers under attack", len(passed)) as bar:
        bar.advance(sum(map(len, parts)) - sum(map(len, todo)), {"wrong": 0.0})
        asked = ([(by_id[key[0]], pictures[key]) for key in part] for part in todo)
        for part, found in zip(todo, attack.ask(asked, "an edit of its picture"), strict=True):
            samples = [part[place][1] for place, _ in found]
            attack.ledger.record_answers(STAGE, 0, [answer for _, answer in found], samples)
            wrong, count = wrong + sum(not answer.right for _, answer in found), count + len(found)
            bar.advance(len(part), {"wrong": wrong / max(1, count)})


def _spending(attack: Attack) -> dict[str, dict[str, float]]:
    """What endpoints have cost, by their names."""
    defender, judge = attack.settings.defender, attack.settings.judge
    spent = {
        "defender": spending_of(defender.model, defender.endpoint, attack.answers),
        "judge": spending_of(judge.model, judge.endpoint, attack.answers),
    }
    return {name: own for name, own in spent.items() if own is not None}
