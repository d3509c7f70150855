"""The part of a probe that changes pictures: edits made and checked once, answered by every Defender.

Edits and what the checks say of them go into the ledger batch by batch, so that a resumed probe makes none twice: stage "attack/NAME", or
"attack/NAME/DEFENDER" for an attacker that is made against one Defender (by its gradients, or trained on it). The pictures lie below `pictures/`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparring.attackers.rivals import Rival
from sparring.config import AttackerSettings, ProbeSettings
from sparring.data.records import Verdict, VisualQuestion
from sparring.defenders.prompts import render_prompt
from sparring.engine.screen import Screen
from sparring.evaluation.robustness import Played, gate_edits
from sparring.judging.validity import DuplicateCheck
from sparring.models.vlms.address import is_endpoint
from sparring.probe.asking import Asker, Request
from sparring.redteam.attackers import load_attacker
from sparring.redteam.spec import split_rival
from sparring.rl.seeds import derive_seed
from sparring.selfplay.auditor import Auditor
from sparring.selfplay.game import pictures_of
from sparring.selfplay.ledger import Ledger

AGAIN = "asked again"
ADAPTIVE = "adaptive"
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Attacker:
    """One attacker: its name and specification; against: the Defender that it is made against, None where it is the same for all."""

    name: str
    spec: str
    control: bool = False
    against: str | None = None

    @property
    def stage(self) -> str:
        """Its stage in the ledger."""
        return "/".join(["attack", slug(self.name), *([slug(self.against)] if self.against is not None else [])])


def slug(name: str) -> str:
    """A name as a folder; different names give different ones."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    return plain if plain == name else f"{plain}-{derive_seed(name) % 16**6:06x}"


def attackers_of(settings: ProbeSettings) -> tuple[list[Attacker], list[str]]:
    """Every attacker and control that needs no training, and warnings about those that cannot be had."""
    found, warnings = [], []
    for name, spec in settings.attackers.items():
        if (split_rival(spec)[0] or "").split(":")[0] != "pgd":
            found.append(Attacker(name, spec))
            continue
        for defender, model in settings.defenders.items():
            if is_endpoint(model):
                warnings.append(f"{name} against {defender}: left out, because an endpoint gives no gradients")
            else:
                found.append(Attacker(name, spec, against=defender))
    if settings.controls and settings.attacker is not None:
        known = {spec.partition("@")[0] for spec in settings.attackers.values()}
        editor = settings.attacker.model
        found += [Attacker(name, f"{name}@{editor}", control=True) for name in ("roundtrip", "benign") if name not in known]
    return found, warnings


@dataclass(frozen=True, slots=True)
class Workshop:
    """What makes and checks edits."""

    settings: ProbeSettings
    ledger: Ledger
    screen: Screen
    auditor: Auditor
    device: torch.device
    duplicates: DuplicateCheck | None

    def load(self, attacker: Attacker, asker: Asker | None) -> Rival:
        """The attacker, ready to edit. asker: the Defender that it is made against."""
        base = self.settings.attacker or AttackerSettings(model=attacker.spec)
        own = base.model_copy(update={"model": attacker.spec})

        def defender() -> tuple[Any, Any]:
            assert asker is not None
            return asker.vlm, self.settings.defender

        return load_attacker(own, self.device, defender)

    def make_edits(self, attacker: Attacker, questions: Sequence[VisualQuestion], load: Callable[[], Rival]) -> None:
        """Edits of all questions with their verdicts, except those that are in the ledger."""
        settings, stage = self.settings, attacker.stage
        done, rival = set(self.ledger.keys("verdicts", stage)), None
        title = attacker.name + (f" against {attacker.against}" if attacker.against is not None else "")
        with self.screen.stage(f"edits: {title}", len(questions) * settings.samples) as bar:
            for sample in range(settings.samples):
                for start in range(0, len(questions), settings.batch):
                    part = questions[start : start + settings.batch]
                    if not done.issuperset((question.id, sample) for question in part):
                        rival = rival or load()
                        self._edit(rival, stage, part, sample)
                    bar.advance(len(part), {})

    def _edit(self, rival: Rival, stage: str, questions: Sequence[VisualQuestion], sample: int) -> None:
        cleans = pictures_of(questions)
        # The first sample has the noise of held-out play in a run with this seed.
        seed = self.settings.seed if sample == 0 else derive_seed(self.settings.seed, "sample", sample)
        edits = rival.edit(questions, cleans, seed)
        gates = gate_edits(questions, cleans, edits, self.settings.judge, self.duplicates, self.device)
        passed = [place for place, gate in enumerate(gates) if gate.accepted]
        words = dict(zip(passed, self.auditor.audit([questions[i] for i in passed], [edits[i].image for i in passed]), strict=True))
        judged = [
            Verdict(question.id, gate.integrity, gate.intact, gate.duplicate, 0.0, 0.0, label_valid=words.get(place), notes=gate.notes)
            for place, (question, gate) in enumerate(zip(questions, gates, strict=True))
        ]
        self.ledger.record_edits(stage, 0, edits, [sample] * len(edits))
        self.ledger.record_verdicts(stage, 0, judged, [sample] * len(edits))

    def verdicts(self, attacker: Attacker) -> dict[Key, Verdict]:
        """Edit -> what the checks said."""
        return dict(zip(self.ledger.keys("verdicts", attacker.stage), self.ledger.verdicts(attacker.stage), strict=True))

    def pictures(self, attacker: Attacker) -> dict[Key, Path]:
        """Edit -> its file."""
        return {(edit["question_id"], edit["sample"]): edit["picture"] for edit in self.ledger.edits(attacker.stage)}


def play(workshop: Workshop, attacker: Attacker, asker: Asker, questions: Sequence[VisualQuestion]) -> Played:
    """One Defender's answers about one attacker's edits.

    An edit is valid where the gate passed it and the auditor, if there is one, says that the right answer still is; one it cannot read is not.
    """
    settings, pictures, found = workshop.settings, workshop.pictures(attacker), workshop.verdicts(attacker)
    right, valid = [], []
    for sample in range(settings.samples):
        keys = [(question.id, sample) for question in questions]
        requests = [
            Request(question, pictures[key], render_prompt(question, settings.defender.prompt))
            for question, key in zip(questions, keys, strict=True)
        ]
        with workshop.screen.stage(f"{asker.name}: {attacker.name}", len(requests)) as bar:
            right.append([said.answer.right for said in asker.ask(requests, bar)])
        valid.append([found[key].accepted and (settings.audit is None or found[key].label_valid is True) for key in keys])
    return Played(attacker.name, np.array(right, dtype=bool), np.array(valid, dtype=bool), attacker.control)


def play_again(workshop: Workshop, asker: Asker, questions: Sequence[VisualQuestion]) -> Played:
    """The noise floor: the same pictures in the same words, asked anew."""
    prompt = workshop.settings.defender.prompt
    requests = [Request(question, question.image, render_prompt(question, prompt), trial=1) for question in questions]
    with workshop.screen.stage(f"{asker.name}: {AGAIN}", len(requests)) as bar:
        right = [said.answer.right for said in asker.ask(requests, bar)]
    return Played(AGAIN, np.array([right], dtype=bool), np.ones((1, len(right)), dtype=bool), control=True)
