"""Round 0: the forge makes pairs of the training questions, and the editor is fine-tuned on them (METHOD
sections 1 and 2).

The stages are those of `sparring forge` with the recipe's section `forge`; what it works on is what the base
Defender gets right when clean, and its players are the game's own. It keeps its ledger, its pictures and its
funnel in `round0/forge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from typing import Any

import torch

from sparring.attackers.crops import crops_of
from sparring.attackers.sft import Pair, finetune
from sparring.config import CropSettings, ForgeSettings
from sparring.data.images import load_image, pictures_of
from sparring.data.records import VisualQuestion
from sparring.engine.files import write_json
from sparring.engine.screen import figures_of
from sparring.forge.funnel import make_funnel
from sparring.forge.ledger import Ledger, pack
from sparring.forge.publish import content_hash
from sparring.forge.records import Sample
from sparring.forge.run import forge
from sparring.forge.smith import Smith
from sparring.judging.validity import DuplicateCheck
from sparring.models.editors import FlowEditor
from sparring.models.vlms.base import VLM
from sparring.selfplay.game import Game
from sparring.selfplay.league import save_attacker
from sparring.selfplay.turns import defender_after, right_when_clean

FORGE, BOOTSTRAP, EDITS = "round0/forge", "round0/bootstrap", "round0/candidates"


def bootstrap(game: Game) -> None:
    """Make the bootstrap Attacker: pairs are forged, the editor learns from them."""
    forge_pairs(game)
    tune(game)


class GameSmith(Smith):
    """A smith whose players are the game's, none of them loaded twice, and who knows what the base Defender
    answers to clean pictures.
    """

    def __init__(self, game: Game, settings: ForgeSettings) -> None:
        known = {
            answer.question_id: answer for answer in game.ledger.answers("round0/clean", defender_after(0))
        }
        super().__init__(settings, game.league.answers, known)
        self._game, self._league = game, game.league

    def noise_of(self, question: VisualQuestion, attempt: int) -> int:
        """An edit's noise has a name as every edit in a game has; a painter's seed is as in any forge."""
        return (
            super().noise_of(question, attempt)
            if self.implanter.wants_proposals
            else self._game.seed(EDITS, question.id, attempt - 1)
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
        smith = GameSmith(game, settings)
        with game.screen.stage("bootstrap: forge", len(questions)) as bar:
            done = ledger.batches * settings.batch
            bar.advance(min(done, len(questions)), ledger.counts())
            for start in range(done, len(questions), settings.batch):
                part = questions[start : start + settings.batch]
                ledger.write([pack(result) for result in forge(smith, _samples(part, start))])
                bar.advance(len(part), ledger.counts())
        funnel = make_funnel(settings, ledger, content_hash(ledger, settings))
    write_json(stage.folder / "funnel.json", funnel)
    stage.finish(_result(funnel))


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
    editor = game.league.attacker("untuned", keep=False)
    with closing(Ledger(game.stage(FORGE).folder)) as ledger:
        pairs = kept_pairs(ledger, recipe.attacker.crop, editor.multiple)
    if recipe.attacker.lora is not None:
        own = recipe.attacker.lora
        editor.add_lora(own.rank, own.alpha, game.seed(BOOTSTRAP, "lora"), own.targets)
    warnings = []
    if not pairs:
        warnings.append("the forge made no pair: the bootstrap Attacker is the editor as it came")
    elif recipe.bootstrap.steps > 0:
        with game.screen.stage("bootstrap: fine-tuning", recipe.bootstrap.steps) as bar:

            def progress(step: int, metrics: dict[str, float]) -> None:
                game.ledger.record_update(BOOTSTRAP, step, metrics)
                bar.advance(1, figures_of(metrics, "loss"))

            finetune(
                editor,
                pairs,
                recipe.bootstrap,
                recipe.attacker,
                game.seed(BOOTSTRAP),
                progress,
                stage.folder / "state",
                save_every=recipe.selfplay.checkpoint_every,
            )
    stage.folder_written_whole("editor", lambda folder: save_attacker(editor, folder))
    for text in warnings:
        game.screen.warn(f"{BOOTSTRAP}: {text}")
    stage.finish(game.stage(FORGE).result | {"warnings": warnings})


def kept_pairs(ledger: Ledger, crop: CropSettings, multiple: int) -> list[Pair]:
    """(clean picture, instruction, adversarial picture) of all kept pairs, in the order of their ids, cut as
    an editor will see them in play.

    multiple: what the editor's sides are multiples of.
    """
    pairs = []
    for row in sorted(ledger.rows("kept"), key=lambda row: row.id):
        assert row.picture is not None  # a pair was painted, else it had not been kept
        clean, adversarial = load_image(ledger.path(row.clean)), load_image(ledger.path(row.picture))
        (cut,) = crops_of([ledger.question(row)], [clean], crop, multiple)
        pairs.append((cut.cut(clean), row.content["instruction"], cut.cut(adversarial)))
    return pairs
