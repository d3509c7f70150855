"""The part of a probe that changes pictures: edits made and checked once, answered by every Defender.

Edits and what the checks say of them go into the ledger batch by batch, so that a resumed probe makes none
twice: stage "attack/NAME", or "attack/NAME/DEFENDER" for an attacker that is made against one Defender (by
its gradients, or trained on it). The pictures lie below `pictures/`. A question whose picture an attacker
cannot edit is set aside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparring.asking.prompts import render_prompt
from sparring.attackers.rivals import Rival
from sparring.attackers.rivals.load import split_rival
from sparring.config import AttackerSettings, ProbeSettings
from sparring.data.errors import SparringError
from sparring.data.images import pictures_of
from sparring.data.records import Edit, Verdict, VisualQuestion
from sparring.engine.calls import import_call
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.judging.auditor import Auditor
from sparring.judging.validity import DuplicateCheck
from sparring.judging.vet import vet
from sparring.measures.robustness import Played
from sparring.models.editors import check_editor
from sparring.models.vlms.address import is_endpoint
from sparring.probe.asking import Asker, Request
from sparring.redteam.attackers import check_attacker, load_attacker
from sparring.seeds import derive_seed

AGAIN = "asked again"
ADAPTIVE = "adaptive"
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Attacker:
    """One attacker: its name and specification; against: the Defender that it is made against, None where it
    is the same for all.
    """

    name: str
    spec: str
    control: bool = False
    against: str | None = None

    @property
    def stage(self) -> str:
        """Its stage in the ledger."""
        return "/".join(
            ["attack", slug(self.name), *([slug(self.against)] if self.against is not None else [])]
        )


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
                warnings.append(
                    f"{name} against {defender}: left out, because an endpoint gives no gradients"
                )
            else:
                found.append(Attacker(name, spec, against=defender))
    if settings.controls and settings.attacker is not None:
        known = {spec.partition("@")[0] for spec in settings.attackers.values()}
        editor = settings.attacker.model
        found += [
            Attacker(name, f"{name}@{editor}", control=True)
            for name in ("roundtrip", "benign")
            if name not in known
        ]
    return found, warnings


def settings_of(settings: ProbeSettings, attacker: Attacker) -> AttackerSettings:
    """What an attack with this attacker alone would be told."""
    base = settings.attacker or AttackerSettings(model=attacker.spec)
    return base.model_copy(update={"model": attacker.spec})


def check_attackers(settings: ProbeSettings) -> None:
    """Would all attackers and controls load, and what an adaptive one is paid by? See `check_attacker`."""
    for attacker in attackers_of(settings)[0]:
        against = settings.defenders.get(attacker.against or "", settings.defender.model)
        check_attacker(
            settings_of(settings, attacker), settings.defender.model_copy(update={"model": against})
        )
    if settings.adapt and settings.attacker is not None:
        check_editor(settings.attacker.model, family=settings.attacker.family)
        if settings.judge.reward is not None:
            import_call(settings.judge.reward, "judge.reward")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What makes and checks edits."""

    settings: ProbeSettings
    ledger: Ledger
    screen: Screen
    auditor: Auditor
    device: torch.device
    duplicates: DuplicateCheck | None
    set_aside: dict[str, str] = field(default_factory=dict)
    """Question id -> why an attacker has no edit of it."""

    def load(self, attacker: Attacker, asker: Asker | None) -> Rival:
        """The attacker, ready to edit. asker: the Defender that it is made against."""

        def defender() -> tuple[Any, Any]:
            assert asker is not None
            return asker.vlm, self.settings.defender

        return load_attacker(settings_of(self.settings, attacker), self.device, defender)

    def make_edits(
        self, attacker: Attacker, questions: Sequence[VisualQuestion], load: Callable[[], Rival]
    ) -> None:
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
        made = rival.try_edit(questions, cleans, seed)
        self.set_aside.update(
            {q.id: str(own) for q, own in zip(questions, made, strict=True) if isinstance(own, SparringError)}
        )
        places = [place for place, own in enumerate(made) if isinstance(own, Edit)]
        questions, cleans = [questions[i] for i in places], [cleans[i] for i in places]
        edits = [own for own in made if isinstance(own, Edit)]
        judged = vet(
            questions,
            cleans,
            edits,
            settings=self.settings.judge,
            duplicates=self.duplicates,
            device=self.device,
            audit=self.auditor.audit,
        )
        self.ledger.record_edits(stage, 0, edits, [sample] * len(edits))
        self.ledger.record_verdicts(stage, 0, judged, [sample] * len(edits))

    def verdicts(self, attacker: Attacker) -> dict[Key, Verdict]:
        """Edit -> what the checks said."""
        return dict(
            zip(
                self.ledger.keys("verdicts", attacker.stage),
                self.ledger.verdicts(attacker.stage),
                strict=True,
            )
        )

    def pictures(self, attacker: Attacker) -> dict[Key, Path]:
        """Edit -> its file."""
        return {
            (edit["question_id"], edit["sample"]): edit["picture"]
            for edit in self.ledger.edits(attacker.stage)
        }


def play(workshop: Workshop, attacker: Attacker, asker: Asker, questions: Sequence[VisualQuestion]) -> Played:
    """One Defender's answers about one attacker's edits.

    An edit is valid where the checks passed it and the auditor, if there is one, says that the right answer
    still is; one it cannot read is not. Questions that are set aside, or have no answer, stand as wrong:
    they are in no figure.
    """
    settings, pictures, found = workshop.settings, workshop.pictures(attacker), workshop.verdicts(attacker)
    right, valid, changed = [], [], []
    for sample in range(settings.samples):
        keys = [(question.id, sample) for question in questions]
        requests = [
            Request(question, pictures[key], render_prompt(question, settings.defender.prompt))
            for question, key in zip(questions, keys, strict=True)
            if key in pictures
        ]
        with workshop.screen.stage(f"{asker.name}: {attacker.name}", len(requests)) as bar:
            said = {
                request.question.id: own
                for request, own in zip(requests, asker.ask(requests, bar), strict=True)
            }
        right.append([question.id in said and said[question.id].answer.right for question in questions])
        verdicts = [found.get(key) for key in keys]
        valid.append(
            [
                v is not None and v.accepted and (settings.audit is None or v.label_valid is True)
                for v in verdicts
            ]
        )
        # What is no attack at all is a control: a round trip that gives the picture back counts as one.
        changed.append([attacker.control or v is None or not v.unchanged for v in verdicts])
    arrays = (np.array(own, dtype=bool) for own in (right, valid, changed))
    right_SN, valid_SN, changed_SN = arrays
    return Played(attacker.name, right_SN, valid_SN, attacker.control, changed_SN)


def play_again(workshop: Workshop, asker: Asker, questions: Sequence[VisualQuestion]) -> Played:
    """The noise floor: the same pictures in the same words, asked anew."""
    prompt = workshop.settings.defender.prompt
    requests = [Request(question, question.image, render_prompt(question, prompt)) for question in questions]
    with workshop.screen.stage(f"{asker.name}: {AGAIN}", len(requests)) as bar:
        right = [said.answer.right for said in asker.ask(requests, bar, trial=1)]
    return Played(AGAIN, np.array([right], dtype=bool), np.ones((1, len(right)), dtype=bool), control=True)
