"""Supervised fine-tuning: the loss is transformers' own, the replies are learned, the updates are those of
the whole batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.asking.questions import ask
from sparring.config import DefenderSettings, ImitationSettings
from sparring.data.errors import RecipeError, TrainingError
from sparring.data.records import VisualQuestion
from sparring.defenders.rollout import Item
from sparring.defenders.sft import SftTrainer, render_reply
from sparring.models.vlms.local import LocalVLM

QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), text, ("yes", "no"), "AB"[i % 2], reasoning=reasoning)
    for i, (text, reasoning) in enumerate(
        (("Is it?", "I see"), ("Or is it not so?", None), ("Cup?", "no {cup}"), ("Why", None))
    )
]
ITEMS: list[Item] = list(zip(noise_pictures(4), QUESTIONS, strict=True))


def settings(**fields: Any) -> DefenderSettings:
    return DefenderSettings(
        model="none", **({"prompt": "{question}", "algorithm": "sft", "learning_rate": 3e-3} | fields)
    )


REPLY = ImitationSettings().reply


def test_a_reply_is_reasoning_and_answer() -> None:
    assert [render_reply(question, REPLY) for question in QUESTIONS] == [
        r"I see \boxed{A}",
        r"\boxed{B}",
        r"no {cup} \boxed{A}",
        r"\boxed{B}",
    ]
    assert render_reply(QUESTIONS[0], "{option}: {answer}") == "yes: A"
    with pytest.raises(RecipeError, match=r"defender\.algorithm\.reply"):
        render_reply(QUESTIONS[0], "{letter}")


@pytest.mark.parametrize("family", [tiny_qwen2_5_vl, tiny_llava])
def test_the_loss_is_that_of_transformers(family: Any, tmp_path: Path) -> None:
    """Prompts of different lengths, replies of different lengths: transformers is given labels, -100 on
    prompts and padding.
    """
    player = SftTrainer(LocalVLM.load(family(tmp_path)), settings(micro_batch=3), seed=0)
    vlm, tokenizer = player.vlm, player.vlm.processor.tokenizer
    assert len(vlm.forbidden) > 0
    batch = vlm.encode([image for image, _ in ITEMS], [question.question for _, question in ITEMS])
    tails = [[*tokenizer(render_reply(q, REPLY))["input_ids"], tokenizer.eos_token_id] for q in QUESTIONS]
    width = max(len(tail) for tail in tails)

    def right(fill: int, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])

    prompt, replies = batch["input_ids"], right(tokenizer.pad_token_id, tails)
    known = {
        name: tensor
        for name, tensor in batch.items()
        if name not in ("input_ids", "attention_mask", "position_ids", "mm_token_type_ids")
    }
    if "mm_token_type_ids" in batch:
        known["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(replies)], dim=1)
    theirs = vlm.model(
        **known,
        input_ids=torch.cat([prompt, replies], dim=1),
        attention_mask=torch.cat(
            [batch["attention_mask"], right(0, [[1] * len(tail) for tail in tails])], dim=1
        ),
        labels=torch.cat([torch.full_like(prompt, -100), right(-100, tails)], dim=1),
    ).loss
    expected = torch.autograd.grad(theirs, list(player.optimizer.parameters.values()), allow_unused=True)
    seen: list[torch.Tensor | None] = []
    player.optimizer.max_grad_norm = 1e9
    player.optimizer.adamw.register_step_pre_hook(
        lambda *_: seen.extend(p.grad for p in player.optimizer.parameters.values())
    )
    metrics = player.imitate(ITEMS, 0)
    assert metrics["loss"] == pytest.approx(theirs.item(), abs=1e-5)
    assert metrics["trained_tokens"] == sum(len(tail) for tail in tails)
    compared = 0
    for ours, other in zip(seen, expected, strict=True):
        if other is not None and other.norm() > 1e-6:
            assert ours is not None
            assert (ours - other).norm() <= 1e-4 * other.norm()
            compared += 1
    assert compared > 20


def test_replies_are_learned(tmp_path: Path) -> None:
    player = SftTrainer(LocalVLM.load(tiny_qwen2_5_vl(tmp_path)), settings(steps=60), seed=0)
    before = ask(player.vlm, QUESTIONS, [image for image, _ in ITEMS], settings())
    losses = [player.imitate(ITEMS, step)["loss"] for step in range(60)]
    after = ask(player.vlm, QUESTIONS, [image for image, _ in ITEMS], settings())
    assert losses[-1] < 0.1 * losses[0]
    assert [answer.text for answer in after] == [render_reply(question, REPLY) for question in QUESTIONS]
    assert all(answer.right for answer in after)
    assert not any(answer.right for answer in before)


def test_a_loss_that_is_not_finite_is_not_stepped_on(tmp_path: Path) -> None:
    player = SftTrainer(LocalVLM.load(tiny_qwen2_5_vl(tmp_path)), settings(micro_batch=2), seed=0)
    head = player.vlm.model.lm_head.weight
    kept = {
        name: parameter.detach().clone()
        for name, parameter in player.optimizer.parameters.items()
        if parameter is not head
    }
    with torch.no_grad():
        head[65] = torch.nan
    for step in range(4):
        assert player.imitate(ITEMS, step)["broken"] == 1
    assert all(torch.equal(player.optimizer.parameters[name], value) for name, value in kept.items())
    with pytest.raises(TrainingError, match=r"update 4.*q0, q1, q2, q3"):
        player.imitate(ITEMS, 4)
