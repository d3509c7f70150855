"""An attack, from questions to figures: clean answers, edits and their checks, answers about the edits that passed.

Everything goes into the ledger batch by batch, each batch whole or not at all, under the names of held-out play: stage "evaluation/clean" for
answers to clean pictures, "evaluation/attack" for edits, verdicts and answers about them; the Defender is called "base". What is in the ledger is
not done again. Answers of endpoints are also kept one by one, in `answers.sqlite`, so that a kill costs none that had come back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sparring.attackers.rivals import Rival
from sparring.config import AttackSettings
from sparring.data.errors import RunError
from sparring.data.images import load_image
from sparring.data.records import Verdict, VisualQuestion
from sparring.defenders.play import ask
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.screen import Screen
from sparring.judging.judge import check_edits
from sparring.judging.validity import DuplicateCheck, load_duplicate_check
from sparring.models.players import load_asked_defender
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM
from sparring.redteam.attackers import load_attacker
from sparring.redteam.dataset import write_dataset
from sparring.redteam.results import CLEAN_STAGE, DEFENDER, STAGE, summarise, verdicts
from sparring.rl.seeds import derive_seed
from sparring.selfplay.auditor import Auditor
from sparring.selfplay.dataset import read_drawn
from sparring.selfplay.game import pictures_of
from sparring.selfplay.ledger import Ledger
from sparring.selfplay.stages import Stage


@dataclass
class Attack:
    """An attack under way: its settings, folder, questions and players. Players are loaded when they have something to do."""

    settings: AttackSettings
    out: Path
    ledger: Ledger
    screen: Screen
    auditor: Auditor
    device: torch.device
    questions: list[VisualQuestion]

    @cached_property
    def defender(self) -> VLM:
        settings = self.settings.defender
        return load_asked_defender(settings.model, settings, self.device, self.answers)

    @property
    def answers(self) -> Path:
        """The cache of what endpoints answered."""
        return self.out / "answers.sqlite"

    def batches(self) -> Iterator[list[VisualQuestion]]:
        """The questions, a batch at a time; the same batches in every process, because sums depend on them in their last digits."""
        for start in range(0, len(self.questions), self.settings.batch):
            yield self.questions[start : start + self.settings.batch]


def run_attack(
    settings: AttackSettings, out: Path, screen: Screen | None = None, *, questions: list[VisualQuestion] | None = None
) -> dict[str, Any]:
    """Attack, from the start or from where an earlier process was stopped; writes and returns `out/summary.json`, and writes `out/dataset`.

    questions: those of the settings' file, where they are read already.

    Errors: DataError for questions that do not load, ModelError where a player cannot be had, RunError if the folder is in use, holds another
    attack, or if the questions have changed since it began.
    """
    screen = screen or Screen()
    device = begin_computing(settings.device, settings.threads)
    if questions is None:
        questions = read_drawn(settings.data, limit=settings.limit, seed=settings.seed, skip_bad=settings.skip_bad_records, screen=screen)
    with (
        run_folder(settings, out, file="attack.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
        closing(Auditor(settings.audit, settings.threads or 1)) as auditor,
    ):
        attack = Attack(settings, folder, ledger, screen, auditor, device, questions)
        _same_questions(attack)
        screen.say(f"{len(questions)} questions, {settings.samples} edit(s) of each, seed {settings.seed}, on {device}, in {folder}")
        ask_clean(attack)
        make_edits(attack)
        ask_attacked(attack)
        spending = _spending(attack)
        ledger.tick()
        summary = summarise(settings, questions, ledger, spending)
        write_dataset(folder, settings, questions, ledger, summary)
        write_json(folder / "summary.json", summary)
        return summary


def _same_questions(attack: Attack) -> None:
    """Note the questions file by its hash; RunError where it is not the one that this attack began with."""
    stage, digest = Stage(attack.out, "data", attack.ledger), hashlib.sha256(Path(attack.settings.data).read_bytes()).hexdigest()
    if not stage.done:
        stage.begin()
        attack.ledger.record_questions("held_out", attack.questions)
        stage.finish({"sha256": digest, "questions": len(attack.questions)})
    elif stage.result["sha256"] != digest:
        raise RunError(f"{attack.settings.data} has changed since the attack in {attack.out} began. Begin another one with --out.")


def ask_clean(attack: Attack) -> None:
    """The Defender's greedy answers to the clean pictures."""
    known, right = {name for name, _ in attack.ledger.keys("answers", CLEAN_STAGE)}, 0
    with attack.screen.stage("clean answers", len(attack.questions)) as bar:
        for part in attack.batches():
            if not known.issuperset(question.id for question in part):
                answers = ask(
                    attack.defender, part, pictures_of(part), attack.settings.defender, batch=attack.settings.defender.micro_batch
                )
                attack.ledger.record_answers(CLEAN_STAGE, 0, [replace(answer, defender=DEFENDER) for answer in answers])
                right += sum(answer.right for answer in answers)
            bar.advance(len(part), {"right": right})


def make_edits(attack: Attack) -> None:
    """Edits of all questions with their verdicts: integrity, duplicates, the auditor's word on those that passed."""
    settings, done = attack.settings, set(attack.ledger.keys("verdicts", STAGE))
    attacker: Rival | None = None
    duplicates: DuplicateCheck | None = None
    accepted = count = 0
    with attack.screen.stage("edits", len(attack.questions) * settings.samples) as bar:
        for sample in range(settings.samples):
            for part in attack.batches():
                if not done.issuperset((question.id, sample) for question in part):
                    if attacker is None:
                        attacker = load_attacker(settings.attacker, attack.device, lambda: (attack.defender, settings.defender))
                        duplicates = load_duplicate_check(settings.judge, attack.device, attack.answers)
                    judged = _edit(attack, attacker, duplicates, part, sample)
                    accepted, count = accepted + sum(verdict.accepted for verdict in judged), count + len(judged)
                bar.advance(len(part), {"accepted": accepted / max(1, count)})


def _edit(
    attack: Attack, attacker: Rival, duplicates: DuplicateCheck | None, questions: Sequence[VisualQuestion], sample: int
) -> list[Verdict]:
    settings, cleans = attack.settings, pictures_of(questions)
    # The first sample has the noise of held-out play in a run with this seed.
    seed = settings.seed if sample == 0 else derive_seed(settings.seed, "sample", sample)
    edits = attacker.edit(questions, cleans, seed)
    pictures, samples = [edit.image for edit in edits], [sample] * len(edits)
    gates = [own[0] for own in check_edits(questions, cleans, [[p] for p in pictures], settings.judge, duplicates, attack.device)]
    passed = [place for place, gate in enumerate(gates) if gate.accepted]
    words = dict(zip(passed, attack.auditor.audit([questions[i] for i in passed], [pictures[i] for i in passed]), strict=True))
    judged = [
        Verdict(question.id, gate.integrity, gate.intact, gate.duplicate, 0.0, 0.0, label_valid=words.get(place))
        for place, (question, gate) in enumerate(zip(questions, gates, strict=True))
    ]
    attack.ledger.record_edits(STAGE, 0, edits, samples)
    attack.ledger.record_verdicts(STAGE, 0, judged, samples)
    return judged


def ask_attacked(attack: Attack) -> None:
    """The Defender's greedy answers about the edits that passed the checks, as they lie on disk."""
    settings, by_id = attack.settings, {question.id: question for question in attack.questions}
    pictures = {(edit["question_id"], edit["sample"]): edit["picture"] for edit in attack.ledger.edits(STAGE)}
    passed = [key for key, verdict in verdicts(attack.ledger).items() if verdict.accepted]
    done, wrong, asked = set(attack.ledger.keys("answers", STAGE)), 0, 0
    with attack.screen.stage("answers under attack", len(passed)) as bar:
        for start in range(0, len(passed), settings.batch):
            part = passed[start : start + settings.batch]
            if not done.issuperset(part):
                questions, images = [by_id[name] for name, _ in part], [load_image(pictures[key]) for key in part]
                answers = ask(attack.defender, questions, images, settings.defender, batch=settings.defender.micro_batch)
                named = [replace(answer, defender=DEFENDER) for answer in answers]
                attack.ledger.record_answers(STAGE, 0, named, [sample for _, sample in part])
                wrong, asked = wrong + sum(not answer.right for answer in answers), asked + len(answers)
            bar.advance(len(part), {"wrong": wrong / max(1, asked)})


def _spending(attack: Attack) -> dict[str, dict[str, float]]:
    """What endpoints have cost, by their names; read without asking them anything."""
    from sparring.models.vlms.endpoint import EndpointVLM

    defender, judge = attack.settings.defender, attack.settings.judge
    players = {"defender": (defender.model, defender.endpoint), "judge": (judge.model, judge.endpoint)}
    return {
        player: EndpointVLM(model, endpoint, cache=attack.answers).spending()
        for player, (model, endpoint) in players.items()
        if model is not None and is_endpoint(model)
    }
