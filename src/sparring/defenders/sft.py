"""Supervised fine-tuning of a Defender by itself: questions in, a checkpoint out, resumable as a game is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparring.asking.prompts import render_prompt, render_reply, reply_of
from sparring.asking.refusals import taken, takes_of
from sparring.config import SftSettings
from sparring.data.images import pictures_of
from sparring.data.layouts import data_digest
from sparring.data.pictures import shown
from sparring.data.questions import Questions
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.defenders.rollout import Item, Metrics
from sparring.defenders.trainer import DefenderTrainer
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.questions import read_taught, require_same_data, say_dropped
from sparring.engine.screen import Screen, figures_of
from sparring.engine.stages import Schedule, Stage, train
from sparring.models.vlms.local import LocalVLM
from sparring.seeds import derive_seed, draw


class SftTrainer(DefenderTrainer):
    """Trains a Defender in place on right replies."""

    def imitate(self, items: Sequence[Item], step: int) -> Metrics:
        """One optimiser step on the right replies to all the items; the metrics are loss, grad_norm,
        trained_tokens and broken.

        The loss is the cross-entropy of the replies' tokens, their end included and the prompt left out,
        averaged over all tokens of the update however it is cut into micro-batches. One that is not finite
        is not stepped on; TrainingError, naming the questions, after five in a row.
        """
        self._set_rate(step)
        replies = [self._tokens(question) for _, question in items]
        tokens, total = sum(len(reply) for reply in replies), 0.0
        where, norm = self._where(step, (question for _, question in items)), None
        self.optimizer.clear_gradients()
        own, size = range(len(items))[self.ranks.share(len(items))], self.settings.micro_batch
        passes = int(self.ranks.largest(math.ceil(len(own) / size)))
        for start in range(0, passes * size, size):
            part = own[start : start + size]
            # All processes make as many passes, see `DefenderTrainer`.
            chosen = slice(part.start, part.stop) if part else slice(0, 1)
            loss = self._cross_entropy(items[chosen], replies[chosen]) / tokens * float(bool(part))
            total += loss.item()
            self.ranks.backward(loss)
        total = sum(self.ranks.gather([total]))
        if math.isfinite(total):
            norm = self.optimizer.step(where)
        else:
            self.optimizer.leave_out(where)
        self.updates += 1
        learned = {} if norm is None else {"loss": total, "grad_norm": norm}
        return {"broken": float(norm is None), **learned, "trained_tokens": float(tokens)}

    def _tokens(self, question: VisualQuestion) -> tuple[int, ...]:
        """A reply's token ids, with the token that ends it."""
        text = render_reply(question, reply_of(self.settings))
        return (
            *self.vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"],
            self.vlm.end_tokens[0],
        )

    def _cross_entropy(self, items: Sequence[Item], replies: Sequence[Sequence[int]]) -> Tensor:
        """The sum over the replies' tokens. Over all tokens of the vocabulary, as transformers' own loss is,
        placeholders of pictures included.
        """
        batch = self.vlm.encode(
            [shown(image) for image, _ in items],
            [render_prompt(question, self.settings.prompt) for _, question in items],
        )
        logprobs_NT, _ = self.vlm.completion_logprobs(batch, [[reply] for reply in replies], forbid=False)
        return -logprobs_NT.sum()


STAGE = "sft"


def run_sft(
    settings: SftSettings, out: Path, screen: Screen | None = None, *, questions: Questions | None = None
) -> dict[str, Any]:
    """Fine-tune, from the start or from the last saved state; writes `out/sft/model` and `out/summary.json`,
    and returns the latter.

    questions: those of the settings' file, where they are read already.

    Errors: DataError for questions that do not load, ModelError where the Defender cannot be had,
    TrainingError where training cannot go on, RunError if the folder is in use, holds another fine-tuning,
    or if the questions have changed since it began.
    """
    screen, device = screen or Screen(), begin_computing(settings.device, settings.threads)
    questions = questions or read_taught(settings, out)
    say_dropped(questions.path, questions.dropped_by_reason(), screen)
    with (
        run_folder(settings, out, file="sft.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
    ):
        require_same_data(folder, ledger, {settings.data: data_digest(Path(settings.data))}, "fine-tuning")
        ledger.record_questions("train", questions.records)
        stage = Stage(folder, STAGE, ledger)
        if not stage.done:
            _train(settings, stage, device, questions.records, screen)
        summary = stage.result | {"model": str(stage.folder / "model"), "seed": settings.seed}
        write_json(folder / "summary.json", summary)
        return summary


def _train(
    settings: SftSettings, stage: Stage, device: torch.device, questions: list[VisualQuestion], screen: Screen
) -> None:
    stage.begin(resumes=True)
    takes = takes_of(settings.defender)
    assert takes is not None  # an endpoint is refused with the settings
    questions = taken(takes, settings.defender, questions, screen, with_replies=True)
    batch = min(settings.defender.prompts_per_step, len(questions))
    steps = math.ceil(settings.epochs * len(questions) / batch)
    defender = settings.defender.model_copy(update={"steps": steps})
    vlm = LocalVLM.load(
        defender.model,
        dtype=defender.dtype,
        device=device,
        min_pixels=defender.min_pixels,
        max_pixels=defender.max_pixels,
    )
    trainer = SftTrainer(vlm, defender, derive_seed(settings.seed, STAGE))
    reasoned = sum(question.reasoning is not None for question in questions)
    screen.say(
        f"{plural(len(questions), 'question')}, {reasoned} with reasoning, {plural(steps, 'update')} of "
        f"{batch}, seed {settings.seed}, on {device}, in {stage.folder}"
    )

    def update(step: int) -> dict[str, Any]:
        chosen = draw(questions, batch, step, settings.seed, STAGE)
        return dict(trainer.imitate(list(zip(pictures_of(chosen), chosen, strict=True)), step))

    with screen.stage("fine-tuning", steps) as bar:
        history = train(
            stage,
            trainer,
            update,
            Schedule(steps, settings.checkpoint_every),
            on_update=lambda metrics: bar.advance(1, figures_of(metrics, "loss")),
            say=screen.say,
        )
    trainer.settle()
    stage.folder_written_whole("model", vlm.save)
    losses = [metrics["loss"] for metrics in history if "loss" in metrics]
    tenth = max(1, len(losses) // 10)
    stage.finish(
        {
            "questions": len(questions),
            "with_reasoning": reasoned,
            "updates": len(history),
            "broken": int(sum(metrics["broken"] for metrics in history)),
            "trained_tokens": int(sum(metrics["trained_tokens"] for metrics in history)),
            "loss_first": sum(losses[:tenth]) / tenth if losses else None,
            "loss_last": sum(losses[-tenth:]) / tenth if losses else None,
        }
    )
