"""The adaptive attack: a fresh Attacker is trained against the very Defender that is probed, on pictures that
it is not probed on.

The training is a run's own (`AttackerTrainer`, `AttackJudge`, states saved as it goes), within a bound of
updates, and of edited pictures that the Defender is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.asking.prompts import render_prompt
from sparring.attackers.distillation import distillation_warning
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings
from sparring.data.errors import ModelError
from sparring.data.images import pictures_of
from sparring.data.records import Verdict, VisualQuestion
from sparring.data.words import plural
from sparring.engine.screen import figures_of
from sparring.engine.stages import Schedule, Stage, train
from sparring.judging.judge import AttackJudge
from sparring.models.players import load_attacking_editor
from sparring.probe.asking import Asker, Request, Said
from sparring.probe.attackers import Attacker
from sparring.probe.attacks import Workshop
from sparring.probe.settings import ADAPTIVE, slug
from sparring.seeds import derive_seed, draw, shuffled
from sparring.selfplay.league import save_attacker
from sparring.selfplay.turns import shares

CHECKPOINT_EVERY = 10


def updates_within(settings: AttackerSettings, updates: int, queries: int | None) -> int:
    """How many updates may be done, if every edit of each were shown to the Defender."""
    return (
        updates
        if queries is None
        else min(updates, queries // (settings.questions_per_step * settings.group_size))
    )


def train_adaptive(
    workshop: Workshop, asker: Asker, questions: Sequence[VisualQuestion], out: Path
) -> tuple[Attacker, dict[str, Any]]:
    """Train an Attacker against one Defender on what it gets right when clean, or find the one that was
    trained; and what the training came to.

    The Defender is asked no more of the questions than it takes to find as many as the updates put.
    """
    settings = workshop.settings.attacker
    assert settings is not None  # checked with the settings
    stage = Stage(out, f"{ADAPTIVE}/{slug(asker.name)}", workshop.ledger)
    if not stage.done:
        _train(workshop, asker, questions, stage, settings)
    folder = stage.folder / "editor"
    untrained = not stage.result["learned"]  # its LoRA would change nothing
    spec = (
        str(folder)
        if settings.lora is None
        else settings.model
        if untrained
        else f"{settings.model}+{folder}"
    )
    return Attacker(ADAPTIVE, spec, against=asker.name), stage.result


def _train(
    workshop: Workshop,
    asker: Asker,
    questions: Sequence[VisualQuestion],
    stage: Stage,
    settings: AttackerSettings,
) -> None:
    probe = workshop.settings
    steps = updates_within(settings, probe.adapt, probe.adapt_queries)
    settings = settings.model_copy(update={"steps": steps})
    seed = derive_seed(probe.seed, stage.name)
    # As many as the updates put questions, and of those that it gets right.
    wanted, due = steps * settings.questions_per_step, shuffled(questions, seed, "questions")
    said, attacked = list[Said](), list[VisualQuestion]()
    with workshop.screen.stage(f"{asker.name}: clean answers to train on") as bar:
        while due and len(attacked) < wanted:
            part, due = due[: wanted - len(attacked)], due[wanted - len(attacked) :]
            asked = [Request(one, one.image, render_prompt(one, probe.defender.prompt)) for one in part]
            said += (answered := asker.ask(asked, bar))
            attacked += [one for one, own in zip(part, answered, strict=True) if own.answer.right]
    refused = {own.answer.question_id: own.error for own in said if own.error}
    for name, why in refused.items():
        workshop.screen.warn(f'{stage.name}: question "{name}" gets no answer and is left out: {why}')
    if questions and len(refused) == len(questions):
        raise ModelError(
            f"{asker.name} refuses all {plural(len(questions), 'question')} to train on. See the "
            f"warnings above."
        )
    clean = {one.answer.question_id: one.answer for one in said}
    stage.begin(resumes=True)
    editor = load_attacking_editor(settings.model, settings, workshop.engine.device)
    editor.checkpoint_gradients(settings.gradient_checkpointing)
    if warning := distillation_warning(settings, step_distilled=editor.step_distilled):
        workshop.screen.warn(f"{stage.name}: {warning}")
    trainer = AttackerTrainer(editor, settings, seed)
    judge = AttackJudge(
        asker.vlm, workshop.duplicates, probe.judge, probe.defender, tell=workshop.screen.warn
    )

    def update(step: int) -> dict[str, Any]:
        chosen = draw(attacked, min(settings.questions_per_step, len(attacked)), step, seed)
        images, verdicts = pictures_of(chosen), list[list[Verdict]]()
        for question, image in zip(chosen, images, strict=True):
            judge.remember(question, image, clean[question.id])

        def reward(edits: list[list[Image]]) -> list[list[float]]:
            verdicts.extend(judge.judge(chosen, images, edits, seed=derive_seed(seed, "trials", step)))
            return [[verdict.reward for verdict in own] for own in verdicts]

        metrics = trainer.update(chosen, images, reward, step)
        if "reward_mean" not in metrics:
            judge.require_some(attacked)
        flat = [verdict for own in verdicts for verdict in own]
        return {**metrics, **shares(flat), "shown": float(sum(verdict.accepted for verdict in flat))}

    with workshop.screen.stage(f"adaptive Attacker against {asker.name}", steps) as bar:
        history = train(
            stage,
            trainer,
            update,
            Schedule(steps if attacked else 0, CHECKPOINT_EVERY),
            on_update=lambda metrics: bar.advance(
                1, figures_of(metrics, "reward_mean", "accepted", "fooled")
            ),
            say=workshop.screen.say,
        )
    kept, rewards = (
        trainer.settle(),
        [metrics["reward_mean"] for metrics in history if "reward_mean" in metrics],
    )
    # they begin as zeros
    raised = [weight for name, weight in trainer.optimizer.parameters.items() if "lora_B" in name]
    stage.folder_written_whole("editor", lambda folder: save_attacker(editor, folder))
    stage.finish(
        {
            "updates": len(history),
            "learned": bool(history) if settings.lora is None else any(bool(own.any()) for own in raised),
            "kept_update": kept,
            "edits_shown": int(sum(metrics["shown"] for metrics in history)),
            "trained_on": len(attacked),
            "left_out": sorted(refused.keys() | judge.refused.keys()),
            "reward_first": rewards[0] if rewards else None,
            "reward_last": rewards[-1] if rewards else None,
        }
    )
