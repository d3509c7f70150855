"""Who attacks: from what a person wrote to the attackers and controls of a probe, and to what edits
pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sparring.asking.answers import parse_answer
from sparring.asking.prompts import render_prompt
from sparring.attackers.rivals import Rival, check_rival, load_rival
from sparring.attackers.rivals.load import split_lora, split_rival
from sparring.attackers.rivals.pgd import Victim, require_gradients
from sparring.config import AttackerSettings, DefenderSettings, ProbeSettings
from sparring.data.errors import ModelError, RecipeError, UnchangedError
from sparring.data.records import VisualQuestion
from sparring.engine.calls import import_call
from sparring.models.editors import FlowEditor, check_editor
from sparring.models.players import load_attacking_editor
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM, local_weights, require_vlm
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.processors import load_processor
from sparring.probe.settings import ADAPTIVE, AGAIN, slug, takes_gradients

NO_GRADIENTS = (
    'attacker "{rival}" takes the gradients of the Defender, and an endpoint gives none. Name a '
    "Defender's folder or hub id."
)


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
    def title(self) -> str:
        """Its name, with the Defender that it is made against."""
        return self.name + (f" against {self.against}" if self.against is not None else "")

    @property
    def stage(self) -> str:
        """Its stage in the ledger."""
        return "/".join(
            ["attack", slug(self.name), *([slug(self.against)] if self.against is not None else [])]
        )


def attackers_of(settings: ProbeSettings) -> tuple[list[Attacker], list[str]]:
    """Every attacker and control that needs no training, and warnings about those that cannot be had."""
    found, warnings = [], []
    for name, spec in settings.attackers.items():
        if not takes_gradients(spec):
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
    """Would all attackers and controls load, and what an adaptive one is paid by? Found out from names,
    headers and configurations, before anybody is asked or paid for anything.

    Errors: as of `load_attacker`; DataError where a rival's own files are not there; RecipeError for one that
    takes gradients where no Defender has any, or has the name of what the probe itself adds.
    """
    found, _ = attackers_of(settings)
    added = {one.name for one in found if one.control}
    added |= {name for name, is_on in ((AGAIN, settings.controls), (ADAPTIVE, settings.adapt)) if is_on}
    for name, spec in settings.attackers.items():
        if name in added:
            raise RecipeError(
                f'attackers: "{name}" is the name of what the probe adds by itself. Give it another one: '
                f"NAME={spec}."
            )
        if takes_gradients(spec):
            check_rival(spec)
            if all(map(is_endpoint, settings.defenders.values())):
                raise RecipeError(NO_GRADIENTS.format(rival=name))
    for judge in (settings.judge.model, *settings.reasoning_judges):
        require_vlm(judge)
    for attacker in found:
        against = settings.defenders.get(attacker.against or "", settings.defender.model)
        check_attacker(
            settings_of(settings, attacker), settings.defender.model_copy(update={"model": against})
        )
    if settings.adapt and settings.attacker is not None:
        check_editor(settings.attacker.model, family=settings.attacker.family)
        if settings.judge.reward is not None:
            import_call(settings.judge.reward, "judge.reward")


def check_attacker(settings: AttackerSettings, defender: DefenderSettings) -> None:
    """Would `load_attacker` have this Attacker? Errors as for `check_attackers`."""
    rival, spec = split_rival(settings.model)
    if spec is not None:
        check_editor(*split_lora(spec), settings.family)
    if rival is None:
        return
    check_rival(rival)
    if takes_gradients(rival):
        processor = load_processor(
            defender.model, min_pixels=defender.min_pixels, max_pixels=defender.max_pixels
        )
        require_gradients(processor, defender.model)


def idle_attackers(settings: ProbeSettings) -> list[str]:
    """Warnings about attackers whose LoRA changes no weight, as that of a game's Attacker that had nothing to
    learn from. Errors of other kinds are told where they are loaded.
    """
    found, family = [], settings.attacker.family if settings.attacker else None
    for name, spec in settings.attackers.items():
        path, lora = split_lora(split_rival(spec)[1] or "")
        if lora is not None:
            try:
                check_editor(path, lora, family)
            except UnchangedError:
                found.append(f"{name} learned nothing in its game: it is the editor as it came")
            except ModelError:
                continue
    return found


def load_attacker(
    settings: AttackerSettings,
    device: torch.device,
    defender: Callable[[], tuple[VLM, DefenderSettings]],
    *,
    must_change: bool = True,
) -> Rival:
    """The Attacker that `settings.model` names: an editor's folder or hub id, one with a LoRA's folder,
    `EDITOR+LORA`, or a rival that nobody trains.

    defender: gives the Defender; called for a rival that takes its gradients. An editor's edits are those of
    held-out play in a run with the same seed. Raises ModelError where it cannot be loaded, also, with
    `must_change`, for a LoRA that changes no weight; RecipeError for a rival that is not known or lacks what
    it needs.
    """
    rival, spec = split_rival(settings.model)
    editor, name = (None, "") if spec is None else _load_editor(spec, settings, device, must_change)
    if rival is None:
        return load_rival("editor", editor=editor, attacker=settings, name=name)
    victim = None
    if takes_gradients(rival):
        vlm, asked = defender()
        victim = victim_of(local_weights(vlm, RecipeError(NO_GRADIENTS.format(rival=rival))), asked)
    return load_rival(rival, victim=victim, editor=editor, attacker=settings)


def _load_editor(
    spec: str, settings: AttackerSettings, device: torch.device, must_change: bool
) -> tuple[FlowEditor, str]:
    path, lora = split_lora(spec)
    editor = load_attacking_editor(path, settings, device)
    if lora is None:
        return editor, Path(path).name
    editor.load_lora(lora, must_change=must_change)
    return editor, f"{Path(path).name}+{_telling(Path(lora))}"


def _telling(folder: Path) -> str:
    """A run keeps its Attackers as `RUN/round3/attacker/editor`: the round says more than the last
    two names.
    """
    names = [name for name in folder.parts if name not in ("attacker", "editor")]
    return names[-1] if names else folder.name


def victim_of(vlm: LocalVLM, settings: DefenderSettings) -> Victim:
    """The Defender with its prompt, its reply's length and its parsing rules."""

    def right(question: VisualQuestion, reply: str) -> bool:
        return parse_answer(reply, question.options)[0] == question.answer

    return Victim(
        vlm, lambda question: render_prompt(question, settings.prompt), right, settings.max_new_tokens
    )
