"""Supervised fine-tuning of a Defender: it learns to say given replies to questions about pictures.

Weights, optimiser and saved state are those of the trainer that learns from rewards; an update has another loss, and nothing is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sparring.data.records import VisualQuestion
from sparring.defenders.prompts import filled, render_prompt
from sparring.defenders.rollout import Item
from sparring.defenders.steps import Metrics
from sparring.defenders.trainer import DefenderTrainer


def render_reply(question: VisualQuestion, template: str) -> str:
    """The reply to be learned: `template` with {reasoning}, {answer} and {option} filled in. RecipeError for another placeholder."""
    parts = {"reasoning": question.reasoning or "", "answer": question.answer, "option": question.answer_text}
    return filled(template, "defender.reply", **parts).strip()


class SftTrainer(DefenderTrainer):
    """Trains a Defender in place on right replies."""

    def imitate(self, items: Sequence[Item], step: int) -> Metrics:
        """One optimiser step on the right replies to all the items; the metrics are loss, grad_norm, trained_tokens and broken.

        The loss is the cross-entropy of the replies' tokens, their end included and the prompt left out, averaged over all tokens of the update however
        it is cut into micro-batches. One that is not finite is not stepped on; TrainingError, naming the questions, after five in a row.
        """
        self._set_rate(step)
        replies = [self._tokens(question) for _, question in items]
        tokens, total = sum(len(reply) for reply in replies), 0.0
        self._clear_gradients()
        for start in range(0, len(items), self.settings.micro_batch):
            part = slice(start, start + self.settings.micro_batch)
            loss = self._cross_entropy(items[part], replies[part]) / tokens
            total += loss.item()
            if math.isfinite(total):
                loss.backward()
        norm = self._step() if math.isfinite(total) else None
        self._clear_gradients()
        self._note_broken(norm is None, step, [question.id for _, question in items])
        self.updates += 1
        learned = {} if norm is None else {"loss": total, "grad_norm": norm}
        return {"broken": float(norm is None), **learned, "trained_tokens": float(tokens)}

    def _tokens(self, question: VisualQuestion) -> tuple[int, ...]:
        """A reply's token ids, with the token that ends it."""
        text = render_reply(question, self.settings.reply)
        return (*self.vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"], self.vlm.end_tokens[0])

    def _cross_entropy(self, items: Sequence[Item], replies: Sequence[Sequence[int]]) -> Tensor:
        """The sum over the replies' tokens. Over all tokens of the vocabulary, as transformers' own loss is, placeholders of pictures included."""
        batch = self.vlm.encode([image for image, _ in items], [render_prompt(question, self.settings.prompt) for _, question in items])
        logprobs_NT, _ = self.vlm.completion_logprobs(batch, [[reply] for reply in replies], forbid=False)
        return -logprobs_NT.sum()
