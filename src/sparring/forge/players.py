"""Every model that the forge may need, loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from sparring.config import ForgeSettings
from sparring.data.errors import RecipeError
from sparring.engine.device import choose_device
from sparring.forge.implant import EditorImplanter, Implanter, PainterImplanter
from sparring.forge.painters import Painter, load_painter
from sparring.forge.panel import Panel, require_templates
from sparring.forge.propose import EVERYDAY, Finder, FreePlaces, Proposer, VlmFinder, VlmProposer
from sparring.judging.judge import AttackJudge
from sparring.judging.validity import DuplicateCheck, load_duplicate_check
from sparring.models.editors import FlowEditor
from sparring.models.players import DTYPES, load_asked_defender, load_attacking_editor
from sparring.models.vlms.base import VLM, all_resting, load_vlm


class Players:
    """The players of a forge's settings."""

    def __init__(self, settings: ForgeSettings, answers: Path) -> None:
        """answers: the SQLite file that keeps what endpoints answered."""
        self.settings, self.stages, self.answers = settings, settings.stages, answers
        self.device = choose_device(settings.device)

    @cached_property
    def defender(self) -> VLM:
        """The base Defender."""
        return load_asked_defender(
            self.settings.defender.model, self.settings.defender, self.device, self.answers
        )

    @cached_property
    def editor(self) -> FlowEditor:
        """The Attacker's editor, untrained, where it is the one who implants."""
        return load_attacking_editor(self.settings.attacker.model, self.settings.attacker, self.device)

    @contextmanager
    def editor_resting(self) -> Iterator[None]:
        """Inside, with `attacker.offload`, an editor that implants makes room for others on the
        accelerator.
        """
        if self.stages.implant != "painter":
            with self.editor.resting():
                yield
        else:
            yield

    @contextmanager
    def others_resting(self) -> Iterator[None]:
        """Inside, with `attacker.offload`, Defender and judge model make room for an editor that implants."""
        others = list[VLM]()
        if self.settings.attacker.offload and self.stages.implant != "painter":
            others = [self.defender, *([self.duplicates.judge] if self.duplicates else [])]
        with all_resting(others):
            yield

    @cached_property
    def duplicates(self) -> DuplicateCheck | None:
        """The check of the judge model; None without one."""
        return load_duplicate_check(self.settings.judge, self.device, self.answers)

    @cached_property
    def judge(self) -> AttackJudge:
        """Integrity, duplicates, effectiveness; the log-probabilities too, of a Defender that tells them."""
        told = self.defender.traits.gives_gradients or self.settings.judge.dense_weight > 0
        unpaid = {"frontier_weight": 0.0, "diversity_weight": 0.0, "variety_weight": 0.0, "reward": None}
        settings = self.settings.judge.model_copy(update={"dense_weight": 0.5 if told else 0.0, **unpaid})
        return AttackJudge(self.defender, self.duplicates, settings, self.settings.defender)

    @cached_property
    def panel(self) -> Panel:
        """The judge model as a panel. RecipeError where there is none."""
        if self.duplicates is None:
            raise RecipeError(
                "judge.model: is null, but stages.extend.checks and stages.panel.prompts ask a judge model. "
                "Name one, or leave them out."
            )
        return Panel(self.duplicates.judge, self.stages.panel)

    @cached_property
    def outpainter(self) -> Painter:
        """The painter of stage 1."""
        assert self.stages.extend.painter is not None
        painter = load_painter(self.stages.extend.painter, self.device)
        if not painter.outpaints:
            raise RecipeError(
                f"stages.extend.painter.model: {self.stages.extend.painter.model} cannot paint around a "
                f"picture."
            )
        return painter

    @cached_property
    def implanter(self) -> Implanter:
        """Who puts distractors in."""
        if self.stages.implant == "painter":
            return PainterImplanter(self.painter)
        return EditorImplanter(self.editor, self.settings.attacker, whole=self.stages.implant == "whole")

    @cached_property
    def painter(self) -> Painter:
        """The painter of distractors."""
        if self.stages.painter == self.stages.extend.painter:
            return self.outpainter
        return load_painter(self.stages.painter, self.device)

    @cached_property
    def proposing_vlm(self) -> VLM:
        """The VLM that proposes distractors and finds targets. RecipeError where there is none."""
        settings = self.stages.propose
        if settings.model is None:
            raise RecipeError(
                "stages.propose.model: is null, but stages.propose.locate needs a VLM. Name one."
            )
        return load_vlm(
            settings.model,
            dtype=DTYPES[settings.dtype],
            device=self.device,
            endpoint=settings.endpoint,
            cache=self.answers,
        )

    @cached_property
    def proposer(self) -> Proposer:
        """Who says what to put where."""
        settings = self.stages.propose
        if settings.model is not None:
            return VlmProposer(self.proposing_vlm, self.stages)
        unable = [name for name in settings.categories or () if not self.implanter.able(name)]
        if unable:
            raise RecipeError(
                f"stages.propose.categories: the painter {self.stages.painter.model} has no cut-out of "
                f"{', '.join(unable)}. It has {', '.join(self.painter.objects or ())}; or name a model that "
                f"paints anything with stages.painter.model."
            )
        return FreePlaces(self.stages, settings.categories or self.painter.objects or EVERYDAY)

    @cached_property
    def finder(self) -> Finder:
        """Who finds the targets of questions without boxes."""
        return VlmFinder(self.proposing_vlm, self.stages)

    def forget(self) -> None:
        """Drop what is known of clean pictures: they do not come back, and memory is to stay as it is."""
        if self.duplicates is not None:
            self.duplicates.forget()

    def load(self) -> None:
        """Load every player that will be needed, so that what is missing is known before the first record."""
        require_templates(self.stages.panel.templates)
        _ = self.judge, self.implanter
        if self.implanter.wants_proposals:
            _ = self.proposer
        if self.stages.extend.painter is not None:
            _ = self.outpainter
            if self.stages.extend.checks:
                _ = self.panel
        if self.stages.panel.prompts:
            _ = self.panel
        if self.stages.propose.locate:
            _ = self.finder
