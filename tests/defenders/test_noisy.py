"""NoisyRollout: the published noise and its schedule, and learning about the clean picture from answers about
another.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from small_vlms import collect, noise_pictures, tiny_qwen2_5_vl
from sparring.config import DefenderSettings, NoisySettings
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout, trainer
from sparring.defenders.rollout import Item
from sparring.defenders.trainer import DefenderTrainer
from sparring.defenders.weights import distort, kept_signal, strength
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM

QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), text, ("yes", "no"), "AB"[i % 2])
    for i, text in enumerate(("Is it?", "Or is it not so?"))
]
ITEMS: list[Item] = list(zip(noise_pictures(2), QUESTIONS, strict=True))


def settings(**noisy: Any) -> DefenderSettings:
    return DefenderSettings(
        model="none",
        prompt="{question}",
        prompts_per_step=2,
        group_size=6,
        max_new_tokens=4,
        micro_batch=6,
        max_refills=1,
        keep_reward_above=-1,
        keep_reward_below=2,
        learning_rate=1e-3,
        noisy=NoisySettings(**{"share": 0.5, "strength": 900, **noisy}),
    )


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> LocalVLM:
    return LocalVLM.load(tiny_qwen2_5_vl(tmp_path_factory.mktemp("qwen")))


def test_the_schedule_falls_along_a_sigmoid() -> None:
    chosen = NoisySettings(strength=500, steepness=30, midpoint=2 / 3)
    found = [strength(chosen, step, 60) for step in range(61)]
    assert found == sorted(found, reverse=True)
    # The published settings: a sigmoid of 30 (t - 40) / 60, half of it left at 40.
    assert found[40] == 250
    assert found[0] == 499
    assert found[50] == int(500 * (1 - 1 / (1 + math.exp(-30 * 10 / 60))))
    assert found[60] == 0


def test_signal_and_noise_are_those_of_the_diffusion() -> None:
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64)) * (0.5e-2 - 1e-5) + 1e-5
    products = torch.cumprod(1 - betas, 0)
    for step in (0, 350, 500, 999):
        assert kept_signal(step) == pytest.approx(products[step].item())
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    pixels = np.asarray(distort(grey, 250, seed=1), dtype=float) / 255
    # Half grey is far enough from both ends for this noise not to be clipped.
    assert pixels.mean() == pytest.approx(math.sqrt(kept_signal(250)) * 128 / 255, abs=5e-3)
    assert pixels.std() == pytest.approx(math.sqrt(1 - kept_signal(250)), rel=0.03)
    assert (
        distort(grey, 250, seed=1).tobytes()
        == distort(grey, 250, seed=1).tobytes()
        != distort(grey, 250, seed=2).tobytes()
    )


def test_the_ratio_begins_at_one_on_the_clean_picture(vlm: LocalVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the log-probabilities that the distorted picture gave, it does not."""
    prompts, pictures = [question.question for question in QUESTIONS], [image for image, _ in ITEMS]

    def farthest(found: rollout.Rollout) -> list[float]:
        groups = [found.groups[place] for place in found.kept]
        with torch.no_grad():
            now_NT, mask_NT = vlm.completion_logprobs(
                vlm.encode(pictures, prompts),
                [[reply.token_ids for reply in group.replies] for group in groups],
            )
        old = trainer._padded([reply.logprobs for group in groups for reply in group.replies], mask_NT)
        worst_N = ((now_NT - old).exp() - 1).abs().masked_fill(~mask_NT, 0).amax(1)
        return worst_N.view(2, 2, 3).amax((0, 2)).tolist()

    clean, distorted = farthest(collect(vlm, lambda _: ITEMS, settings(), seed=0, step=0))
    assert max(clean, distorted) < 1e-4
    monkeypatch.setattr(rollout, "_move_to_clean", lambda *_: None)
    clean, distorted = farthest(collect(vlm, lambda _: ITEMS, settings(), seed=0, step=0))
    assert clean < 1e-4
    assert distorted > 0.01


def test_half_of_a_group_sees_noise_and_the_rest_what_it_would_see_alone(vlm: LocalVLM) -> None:
    shown: list[list[bytes]] = []
    generate = vlm.generate

    class Watched:
        name = "watched"

        def __getattr__(self, name: str) -> Any:
            return getattr(vlm, name)

        def generate(self, images: Any, prompts: Any, sampling: Sampling, **fields: Any) -> Any:
            shown.append([image.tobytes() for image in images for _ in range(sampling.n)])
            return generate(images, prompts, sampling, **fields)

    found = collect(Watched(), lambda _: ITEMS, settings(), seed=0, step=0)  # type: ignore[arg-type]
    cleans = [image.tobytes() for image, _ in ITEMS]
    assert shown[0] == [cleans[0]] * 3 + [cleans[1]] * 3
    assert not set(shown[1]) & set(cleans)
    assert len(shown[1]) == 6
    alone = collect(
        vlm, lambda _: ITEMS, settings(share=0.0).model_copy(update={"group_size": 3}), seed=0, step=0
    )
    for with_noise, without in zip(found.groups, alone.groups, strict=True):
        assert with_noise.replies[:3] == without.replies
        assert ["right_when_distorted" in answer.notes for answer in with_noise.answers] == [False] * 3 + [
            True
        ] * 3
        assert with_noise.image.tobytes() == without.image.tobytes()


def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "answer_reward", lambda text, *_, **__: {"accuracy": float(text[:1] < "Z")})
    player = DefenderTrainer(LocalVLM.load(tiny_qwen2_5_vl(tmp_path)), settings(), seed=0)
    metrics = player.update(lambda _: ITEMS, 0)
    assert metrics["ratio_first"] < 1e-4
    assert metrics["grad_norm"] > 0
    assert {"right_when_clean", "right_when_distorted"} <= metrics.keys()
