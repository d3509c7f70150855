"""The halves of a round: the Attacker learns against a frozen Defender, its edits become a curriculum, the Defender learns from that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.rollout import sample_seed
from sparring.attackers.trainer import AttackerTrainer
from sparring.data.records import Verdict, VisualQuestion
from sparring.defenders.trainer import DefenderTrainer
from sparring.selfplay.curriculum import compose
from sparring.selfplay.game import Game, pictures_of
from sparring.selfplay.league import save_attacker
from sparring.selfplay.progress import figures_of
from sparring.selfplay.seeds import draw
from sparring.selfplay.stages import Stage, train
from sparring.selfplay.turns import FrozenOpponent, attacker_after, defender_after, edit_and_judge, right_when_clean, shares


def train_attacker(game: Game, number: int) -> None:
    """Attacker `number`, from Attacker `number - 1`, learns to fool the frozen Defender `number - 1` on what that one gets right when clean."""
    stage, settings = game.stage(f"round{number}/attacker"), game.recipe.attacker
    if stage.done:
        return
    questions = right_when_clean(game, number - 1)
    stage.begin(resumes=True)
    seed = game.seed(stage.name)
    editor = game.league.attacker(attacker_after(number - 1), keep=False)
    trainer = AttackerTrainer(editor, settings, seed)
    opponent = FrozenOpponent(game, stage, number - 1)

    def update(step: int) -> dict[str, Any]:
        chosen = draw(questions, min(settings.questions_per_step, len(questions)), step, seed)
        images, verdicts = pictures_of(chosen), list[Verdict]()

        def seed_of(question: VisualQuestion, sample: int) -> int:
            return sample_seed(seed, step, question.id, sample)

        def reward(edits: list[list[Image]]) -> Tensor:
            judged = opponent.face(f"round{number}", chosen, images, edits, seed_of=seed_of, step=step)
            verdicts.extend(verdict for own in judged for verdict in own)
            return torch.tensor([[verdict.reward for verdict in own] for own in judged])

        return {**trainer.update(chosen, images, reward, step), **shares(verdicts)}

    history = _phase(
        game, stage, trainer, update, settings.steps if questions else 0, f"round {number}: Attacker", ("reward_mean", "accepted", "fooled")
    )
    stage.folder_written_whole("editor", lambda folder: save_attacker(editor, folder))
    warnings = []
    if not questions:
        warnings.append("the Defender gets no training question right when clean, so the Attacker had nothing to attack and did not train")
    elif history and not any(metrics["fooled"] for metrics in history):
        warnings.append("the Attacker found nothing: no accepted edit of its training fooled the Defender")
    if history and all(metrics["dead_groups"] == 1 for metrics in history):
        warnings.append("no group of edits had a signal, so the Attacker learned nothing")
    _finish(game, stage, {"updates": len(history), "ended_early": bool(questions) and len(history) < settings.steps, "warnings": warnings})


def write_curriculum(game: Game, number: int) -> None:
    """The frozen Attacker `number` edits training pictures that Defender `number - 1` gets right when clean; the edits are judged."""
    stage, settings = game.stage(f"round{number}/curriculum"), game.recipe.selfplay.curriculum
    if stage.done:
        return
    stage.begin()
    if settings.clean_share == 1.0:
        _finish(game, stage, {"edits": 0, "accepted": 0, "effective": 0, "warnings": []})
        return
    questions = right_when_clean(game, number - 1)[: settings.questions]
    title = f"round {number}: curriculum"
    verdicts = edit_and_judge(game, stage, attacker_after(number), number - 1, questions, [0] * len(questions), title=title)
    accepted, effective = sum(v.accepted for v in verdicts), sum(v.accepted and v.efficacy > 0 for v in verdicts)
    warnings = [] if accepted else ["no edit of the frozen Attacker was accepted"]
    _finish(game, stage, {"edits": len(verdicts), "accepted": accepted, "effective": effective, "warnings": warnings})


def train_defender(game: Game, number: int) -> None:
    """Defender `number`, from Defender `number - 1`, learns from the round's curriculum, clean items and earlier rounds' edits."""
    stage, settings = game.stage(f"round{number}/defender"), game.recipe.defender
    if stage.done:
        return
    stage.begin(resumes=True)
    seed = game.seed(stage.name)
    fresh, *earlier = (game.ledger.pictures(f"round{i}/curriculum", only="accepted") for i in range(number, 0, -1))
    curriculum, warnings = compose(game.train, fresh, [edit for edits in earlier for edit in edits], game.recipe.selfplay.curriculum)
    game.league.rest_attacker()
    vlm = game.league.defender(defender_after(number - 1), keep=False)
    trainer = DefenderTrainer(vlm, settings, seed)

    def update(step: int) -> dict[str, Any]:
        metrics = trainer.update(curriculum.stream(seed, step), step)
        answers = [replace(sampled.answer, defender=f"round{number}") for sampled in trainer.sampled]
        groups, places = zip(*(divmod(i, settings.group_size) for i in range(len(answers))), strict=True)
        game.ledger.record_answers(stage.name, step, answers, samples=groups, trials=places)
        return dict(metrics)

    history = _phase(game, stage, trainer, update, settings.steps, f"round {number}: Defender", ("reward_mean", "kept_groups"))
    trainer.settle()
    stage.folder_written_whole("model", vlm.save)
    totals = {name: int(sum(metrics[name] for metrics in history)) for name in ("rollouts", "kept_groups")}
    if history and totals["kept_groups"] == 0:
        warnings.append("no group of answers had a signal, so the Defender learned nothing")
    _finish(game, stage, totals | {"updates": len(history), "ended_early": len(history) < settings.steps, "warnings": warnings})


def _phase(game: Game, stage: Stage, trainer: Any, update: Any, steps: int, title: str, shown: tuple[str, ...]) -> list[dict[str, Any]]:
    """The updates of one player's training, resumed where they were cut off, with a bar."""
    settings = game.recipe.selfplay
    with game.screen.stage(title, steps) as bar:
        return train(
            stage,
            trainer,
            update,
            steps=steps,
            checkpoint_every=settings.checkpoint_every,
            patience=settings.plateau_patience,
            on_update=lambda metrics: bar.advance(1, figures_of(metrics, *shown)),
        )


def _finish(game: Game, stage: Stage, result: dict[str, Any]) -> None:
    for text in result["warnings"]:
        game.screen.warn(f"{stage.name}: {text}")
    stage.finish(result)
