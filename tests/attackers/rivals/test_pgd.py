"""The gradient attack: its budget after rounding, its effect, and its independence of what else is
attacked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.attackers.rivals.pgd import Pgd, Victim
from sparring.config import DefenderSettings, PgdSettings
from sparring.data.errors import ModelError
from sparring.data.records import VisualQuestion
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.probe.attackers import victim_of

QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), "Where is the cup?", ("left", "right", "above"), "B")
    for i in range(2)
]
PICTURES = [noise_pictures(1, size=(64, 64))[0], noise_pictures(2, size=(90, 60))[1]]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path_factory.mktemp("qwen")))
    return victim_of(vlm, DefenderSettings(model="tiny", prompt="{question}", max_new_tokens=4))


def probability(victim: Victim, picture: Image.Image, text: str) -> float:
    return victim.vlm.option_probabilities([picture], ["Where is the cup?"], [text]).item()


@pytest.mark.parametrize("eps", [1, 4, 7.5])
def test_the_budget_holds_on_the_rounded_picture_and_the_right_answer_falls(
    victim: Victim, eps: float
) -> None:
    edits = Pgd(victim, PgdSettings(eps=eps, steps=8)).edit(QUESTIONS, PICTURES, seed=0)
    for edit, clean in zip(edits, PICTURES, strict=True):
        assert edit.image.size == clean.size
        moved = np.abs(np.asarray(edit.image, dtype=int) - np.asarray(clean, dtype=int))
        assert 1 <= moved.max() <= int(eps)
        (reply,) = victim.vlm.generate([clean], ["Where is the cup?"], Sampling(4))[0]
        # a random model: what is attacked is the right letter
        assert not victim.right(QUESTIONS[0], reply.text)
        assert probability(victim, edit.image, r"\boxed{B}") < probability(victim, clean, r"\boxed{B}")


def test_gradients_do_what_noise_of_the_same_size_does_not(victim: Victim) -> None:
    clean = PICTURES[0]
    (edit,) = Pgd(victim, PgdSettings(eps=8, steps=12)).edit(QUESTIONS[:1], [clean], seed=0)
    rng = np.random.default_rng(0)
    noisy = [
        Image.fromarray(
            np.clip(np.asarray(clean, dtype=int) + rng.choice([-8, 8], (64, 64, 3)), 0, 255).astype(np.uint8)
        )
        for _ in range(12)
    ]
    start = probability(victim, clean, r"\boxed{B}")
    fall = np.log(start / probability(victim, edit.image, r"\boxed{B}"))
    assert fall > 3 * max(
        abs(np.log(start / probability(victim, picture, r"\boxed{B}"))) for picture in noisy
    )


def test_a_wrong_option_rises(victim: Victim) -> None:
    (edit,) = Pgd(victim, PgdSettings(eps=8, steps=10, goal="wrong")).edit(
        QUESTIONS[:1], PICTURES[:1], seed=0
    )
    risen = [
        probability(victim, edit.image, rf"\boxed{{{w}}}")
        / probability(victim, PICTURES[0], rf"\boxed{{{w}}}")
        for w in "AC"
    ]
    assert max(risen) > 1.05
    assert "wrong answer's" in edit.instruction


def test_what_else_is_attacked_changes_nothing(victim: Victim) -> None:
    rival = Pgd(victim, PgdSettings(eps=4, steps=3, restarts=2))
    together = rival.edit(QUESTIONS, PICTURES, seed=3)
    (alone,) = rival.edit(QUESTIONS[1:], PICTURES[1:], seed=3)
    assert alone.image.tobytes() == together[1].image.tobytes()
    (other,) = rival.edit(QUESTIONS[1:], PICTURES[1:], seed=4)
    assert other.image.tobytes() != alone.image.tobytes()


def test_the_start_that_fools_is_kept_and_success_is_that_of_the_rounded_picture(victim: Victim) -> None:
    seen: list[Image.Image] = []

    class Watched(Pgd):
        def _replies(self, question: VisualQuestion, pictures: list[Image.Image], prompt: str) -> list[str]:
            if len(pictures) > 1:
                seen.extend(pictures)
                return ["B", "B", "A", "B"]
            return ["B"]

    taught = Victim(victim.vlm, victim.prompt, lambda question, reply: reply == question.answer, 4)
    (edit,) = Watched(taught, PgdSettings(eps=3, steps=2, restarts=4)).edit(
        QUESTIONS[:1], PICTURES[:1], seed=0
    )
    assert edit.image.tobytes() == seen[2].tobytes()
    assert edit.instruction.endswith("; fooled")
    for picture in seen:
        assert np.abs(np.asarray(picture, dtype=int) - np.asarray(PICTURES[0], dtype=int)).max() <= 3


def test_from_one_start_the_defender_is_not_asked_what_it_says_in_the_end(victim: Victim) -> None:
    asked: list[int] = []

    class Counted(Pgd):
        def _replies(self, question: VisualQuestion, pictures: list[Image.Image], prompt: str) -> list[str]:
            asked.append(len(pictures))
            return ["B"]

    (edit,) = Counted(victim, PgdSettings(eps=3, steps=2)).edit(QUESTIONS[:1], PICTURES[:1], seed=0)
    assert asked == [1]  # about the clean picture
    assert edit.instruction == "L-inf 3/255, 2 steps on the right answer's probability"


def test_more_starts_never_do_worse(victim: Victim) -> None:
    """The first start is the same one; the best of several is at least as far."""
    one, three = (
        Pgd(victim, PgdSettings(eps=4, steps=4, restarts=n))
        .edit(QUESTIONS[:1], PICTURES[:1], seed=0)[0]
        .image
        for n in (1, 3)
    )
    assert probability(victim, three, r"\boxed{B}") <= probability(victim, one, r"\boxed{B}") * 1.001


def test_a_processor_that_is_not_as_it_says_is_refused(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = Pgd(victim, PgdSettings(steps=1))
    rival.preprocess.mean = rival.preprocess.mean + 0.1
    with pytest.raises(ModelError, match="differ from ours"):
        rival.edit(QUESTIONS[:1], PICTURES[:1], seed=0)


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    vlm = LocalVLM.load(tiny_llava(tmp_path))
    with pytest.raises(ModelError, match="CLIPImageProcessor"):
        Pgd(victim_of(vlm, DefenderSettings(model="tiny")), PgdSettings())
    assert torch.is_grad_enabled()
