"""Round 0: the forge makes pairs of the training questions, and the editor is fine-tuned on them (METHOD
sections 1 and 2).

The stages are those of `sparring forge` with the recipe's section `forge`; what it works on is what the base
Defender gets right when clean, and its players are the game's own. It keeps its ledger, its pictures and its
funnel in `round0/forge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from sparring.attackers.crops import crops_of
from sparring.attackers.sft import Pair, finetune
from sparring.config import CropSettings, ForgeSettings
from sparring.data.images import load_image, pictures_of
from sparring.data.records import Answer, VisualQuestion
from sparring.data.words import plural
from sparring.engine.files import write_json
from sparring.engine.screen import figures_of
from sparring.forge.funnel import make_funnel
from sparring.forge.ledger import Ledger, Packed, pack
from sparring.forge.publish import content_hash
from sparring.forge.records import Sample
from sparring.forge.run import forge
from sparring.forge.smith import Smith
from sparring.judging.validity import DuplicateCheck
from sparring.models.editors import FlowEditor
from sparring.models.vlms.base import VLM
from sparring.selfplay.game import Game, Table
from sparring.selfplay.league import save_attacker
from sparring.selfplay.track import track_updates
from sparring.selfplay.turns import answers_when_clean, defender_after, right_when_clean

FORGE, BOOTSTRAP, EDITS = "round0/forge", "round0/bootstrap", "round0/candidates"


def bootstrap(game: Game) -> None:
    """Make the bootstrap Attacker: pairs are forged, the editor learns from them."""
    forge_pairs(game)
    tune(game)


class GameSmith(Smith):
    """A smith whose players are the table's, none of them loaded twice. known: what the base Defender answers
    to clean pictures, by question.
    """

    def __init__(self, table: Table, settings: ForgeSettings, known: Mapping[str, Answer]) -> None:
        super().__init__(settings, table.league.answers, known)
        self._table, self._league = table, table.league

    def noise_of(self, question: VisualQuestion, attempt: int) -> int:
        """An edit's noise has a name as every edit in a game has; a painter's seed is as in any forge."""
        return (
            super().noise_of(question, attempt)
            if self.implanter.wants_proposals
            else self._table.seed(EDITS, question.id, attempt - 1)
        )

    @cached_property
    def defender(self) -> VLM:
        return self._league.defender(defender_after(0))

    @cached_property
    def editor(self) -> FlowEditor:
        return self._league.attacker("untuned")

    @cached_property
    def duplicates(self) -> DuplicateCheck | None:
        return self._league.duplicate_check()


def forge_pairs(game: Game) -> None:
    """Take `bootstrap.questions` questions that the base Defender gets right when clean through the forge."""
    stage, settings = game.stage(FORGE), forge_settings(game)
    if stage.done:
        return
    questions = right_when_clean(game, 0)[: game.recipe.bootstrap.questions]
    stage.begin(resumes=True)
    with closing(Ledger(stage.folder)) as ledger:
        done = ledger.batches * settings.batch
        starts = range(done, len(questions), settings.batch)
        with (
            game.screen.stage("bootstrap: forge", len(questions)) as bar,
            game.crew("play", GameSmith, settings, answers_when_clean(game, 0)) as crew,
        ):
            bar.advance(min(done, len(questions)), ledger.counts())
            samples = (_samples(questions[start : start + settings.batch], start) for start in starts)
            for packed in crew.map(forge_samples, samples):
                ledger.write(packed)
                bar.advance(len(packed), ledger.counts())
        funnel = make_funnel(settings, ledger, content_hash(ledger, settings))
    if broken := funnel["records"]["broken"]:
        game.screen.warn(
            f"{BOOTSTRAP}: {broken} of {plural(len(questions), 'question')} broke in the forge; why stands "
            f"in {stage.folder / 'forge.sqlite'}, table records"
        )
    write_json(stage.folder / "funnel.json", funnel)
    stage.finish(_result(funnel))


def forge_samples(smith: GameSmith, samples: Sequence[Sample]) -> list[Packed]:
    """What became of some samples, ready to be written."""
    return [pack(result) for result in forge(smith, samples)]


def forge_settings(game: Game) -> ForgeSettings:
    """The settings of the game's own forge."""
    recipe = game.recipe
    return ForgeSettings(
        data=recipe.data.path or str(game.out / "data"),
        limit=recipe.bootstrap.questions or None,
        seed=game.seed(FORGE),
        device=recipe.device,
        threads=torch.get_num_threads(),
        batch=recipe.evaluation.batch,
        stages=recipe.bootstrap_stages(),
        attacker=recipe.attacker,
        defender=recipe.defender,
        judge=recipe.judge,
    )


def _samples(questions: Sequence[VisualQuestion], before: int) -> list[Sample]:
    """Questions as the forge takes them, numbered from `before` + 1."""
    places = zip(questions, pictures_of(questions), strict=True)
    return [
        Sample(number, question, image) for number, (question, image) in enumerate(places, start=before + 1)
    ]


def _result(funnel: dict[str, Any]) -> dict[str, Any]:
    """What the summary and the report tell of a funnel. Accepted: passed every check, whether the Defender
    was fooled or not.
    """
    tried = funnel["candidates"]
    useless = sum(drop["count"] for drop in tried["dropped"] if drop["outcome"] == "useless")
    return {
        "questions": funnel["records"]["read"],
        "candidates": tried["tried"],
        "accepted": tried["kept"] + useless,
        "pairs": tried["kept"],
        "funnel": funnel["stages"],
    }


def tune(game: Game) -> None:
    """Fine-tune the editor on the pairs. Without a pair the bootstrap Attacker is the editor as it came,
    which is said.
    """
    stage, recipe = game.stage(BOOTSTRAP), game.recipe
    if stage.done:
        return
    stage.begin(resumes=True)
    with closing(Ledger(game.stage(FORGE).folder)) as ledger:
        pairs = kept_pairs(ledger)
    warnings = [] if pairs else ["the forge made no pair: the bootstrap Attacker is the editor as it came"]
    # One process: the updates are few, and those of a LoRA or of a small editor.
    with game.crew("attacker", Apprentice, pairs, stage.folder / "state", workers=1) as crew:
        if pairs and recipe.bootstrap.steps > 0:
            with game.screen.stage("bootstrap: fine-tuning", recipe.bootstrap.steps) as bar:
                while (told := crew.all(Apprentice.step)[0]) is not None:
                    game.ledger.record_update(BOOTSTRAP, *told)
                    bar.advance(1, figures_of(told[1], "loss"))
                    track_updates(game)
        stage.folder_written_whole("editor", lambda folder: crew.all(Apprentice.write, folder))
    for text in warnings:
        game.screen.warn(f"{BOOTSTRAP}: {text}")
    stage.finish(game.stage(FORGE).result | {"warnings": warnings})


class Apprentice:
    """The editor that learns from forged pairs; `folder` holds its state."""

    def __init__(self, table: Table, pairs: Sequence[Kept], folder: Path) -> None:
        recipe, self.editor = table.recipe, table.league.attacker("untuned", keep=False)
        cut = [pair.cut(recipe.attacker.crop, self.editor.multiple) for pair in pairs]
        if recipe.attacker.lora is not None:
            own = recipe.attacker.lora
            self.editor.add_lora(own.rank, own.alpha, table.seed(BOOTSTRAP, "lora"), own.targets)
        self.steps = finetune(
            self.editor,
            cut,
            recipe.bootstrap,
            recipe.attacker,
            table.seed(BOOTSTRAP),
            folder,
            save_every=recipe.selfplay.checkpoint_every,
        )

    def step(self) -> tuple[int, dict[str, float]] | None:
        """One step; its number and metrics. None when there are no more."""
        return next(self.steps, None)

    def write(self, folder: Path) -> None:
        """Write the bootstrap Attacker as it is kept."""
        save_attacker(self.editor, folder)


@dataclass(frozen=True)
class Kept:
    """A pair that the forge has kept."""

    question: VisualQuestion
    instruction: str
    clean: Image
    adversarial: Image

    def cut(self, crop: CropSettings, multiple: int) -> Pair:
        """(clean picture, instruction, adversarial picture), cut as an editor will see them in play.

        multiple: what the editor's sides are multiples of.
        """
        (cut,) = crops_of([self.question], [self.clean], crop, multiple)
        return cut.cut(self.clean), self.instruction, cut.cut(self.adversarial)


def kept_pairs(ledger: Ledger) -> list[Kept]:
    """All kept pairs, in the order of their ids."""
    pairs = []
    for row in sorted(ledger.rows("kept"), key=lambda row: row.id):
        assert row.picture is not None  # a pair was painted, else it had not been kept
        clean, adversarial = load_image(ledger.path(row.clean)), load_image(ledger.path(row.picture))
        pairs.append(Kept(ledger.question(row), row.content["instruction"], clean, adversarial))
    return pairs
