"""Round 0: effective distractors are collected, and the editor is fine-tuned on them.

METHOD section 2, stage 2, with the game's own editor as the one that implants: the editor as it came tries the recipe's instruction on items
that the base Defender gets right when clean; an edit is kept when it passes the gate and the base Defender then answers wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparring.attackers.crops import crops_of
from sparring.attackers.sft import Pair, finetune
from sparring.data.images import load_image
from sparring.data.records import VisualQuestion
from sparring.engine.screen import figures_of
from sparring.selfplay.game import Game
from sparring.selfplay.league import save_attacker
from sparring.selfplay.turns import edit_and_judge, right_when_clean

CANDIDATES, BOOTSTRAP = "round0/candidates", "round0/bootstrap"


def bootstrap(game: Game) -> None:
    """Make the bootstrap Attacker: candidates are tried, the effective ones become pairs, the editor learns from the pairs."""
    collect_candidates(game)
    tune(game)


def collect_candidates(game: Game) -> None:
    """Edit and judge `bootstrap.candidates` items; each is edited as often as it takes where fewer items are right when clean."""
    stage, settings = game.stage(CANDIDATES), game.recipe.bootstrap
    if stage.done:
        return
    questions = right_when_clean(game, 0)
    stage.begin()
    tries = [questions[i % len(questions)] for i in range(settings.candidates)] if questions else []
    samples = [i // len(questions) for i in range(len(tries))]
    verdicts = edit_and_judge(game, stage, "untuned", 0, tries, samples, title="bootstrap: candidates")
    accepted = sum(v.accepted for v in verdicts)
    effective = sum(v.accepted and v.efficacy > 0 for v in verdicts)
    stage.finish({"candidates": len(tries), "accepted": accepted, "effective": effective})


def tune(game: Game) -> None:
    """Fine-tune the editor on the effective pairs. Without a pair the bootstrap Attacker is the editor as it came, which is said."""
    stage, recipe = game.stage(BOOTSTRAP), game.recipe
    if stage.done:
        return
    stage.begin(resumes=True)
    by_id = {question.id: question for question in game.train}
    effective = game.ledger.pictures(CANDIDATES, only="effective")
    editor = game.league.attacker("untuned", keep=False)
    pairs = [_pair(game, editor.multiple, by_id[name], picture) for name, picture in effective]
    if recipe.attacker.lora is not None:
        editor.add_lora(recipe.attacker.lora.rank, recipe.attacker.lora.alpha, game.seed(BOOTSTRAP, "lora"))
    warnings = []
    if not pairs:
        warnings.append("no candidate fooled the base Defender: the bootstrap Attacker is the editor as it came")
    elif recipe.bootstrap.steps > 0:
        with game.screen.stage("bootstrap: fine-tuning", recipe.bootstrap.steps) as bar:

            def progress(step: int, metrics: dict[str, float]) -> None:
                game.ledger.record_update(BOOTSTRAP, step, metrics)
                bar.advance(1, figures_of(metrics, "loss"))

            finetune(
                editor,
                pairs,
                recipe.bootstrap,
                game.seed(BOOTSTRAP),
                progress,
                stage.folder / "state",
                rollout_steps=recipe.attacker.rollout_steps,
                micro_batch=recipe.attacker.micro_batch,
                save_every=recipe.selfplay.checkpoint_every,
                max_grad_norm=recipe.attacker.max_grad_norm,
            )
    stage.folder_written_whole("editor", lambda folder: save_attacker(editor, folder))
    for text in warnings:
        game.screen.warn(f"{BOOTSTRAP}: {text}")
    result: dict[str, Any] = game.stage(CANDIDATES).result | {"pairs": len(pairs), "warnings": warnings}
    stage.finish(result)


def _pair(game: Game, multiple: int, question: VisualQuestion, picture: Path) -> Pair:
    """A pair to learn from, cut as the editor will see it in play."""
    clean = load_image(question.image)
    (crop,) = crops_of([question], [clean], game.recipe.attacker.crop, multiple)
    return crop.cut(clean), game.instruction(question), crop.cut(load_image(picture))
