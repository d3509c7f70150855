"""The vision tower with batched chunks says exactly what the unmodified one says, gradients included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.models.vlms.attention import BY_LENGTH, use_fast_vision_attention
from sparring.models.vlms.processors import load_processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


def features_and_gradients(
    model: PreTrainedModel, pixels: Tensor, grid: Tensor
) -> tuple[Tensor, list[Tensor]]:
    features = model.model.visual(pixels, grid_thw=grid).pooler_output
    weights = torch.linspace(-1, 1, features.numel()).view_as(features)
    gradients = torch.autograd.grad((features * weights).sum(), list(model.model.visual.parameters()))
    return features.detach(), list(gradients)


@pytest.mark.parametrize(
    "sizes", [[(64, 64)] * 3, [(64, 64), (96, 48), (64, 64), (48, 48)]], ids=["equal", "different"]
)
def test_equals_the_loop(folder: Path, sizes: list[tuple[int, int]]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    pictures = [noise_pictures(1, size=size, seed=i)[0] for i, size in enumerate(sizes)]
    inputs = load_processor(folder).image_processor(pictures, return_tensors="pt")
    plain, plain_gradients = features_and_gradients(model, inputs["pixel_values"], inputs["image_grid_thw"])
    assert use_fast_vision_attention(model)
    assert model.model.visual.config._attn_implementation == BY_LENGTH
    assert model.model.language_model.config._attn_implementation != BY_LENGTH
    fast, fast_gradients = features_and_gradients(model, inputs["pixel_values"], inputs["image_grid_thw"])
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    for got, expected in zip(fast_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_picture_does_not_see_its_neighbours(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    use_fast_vision_attention(model)
    pictures = noise_pictures(2) + noise_pictures(1, seed=9)
    processor = load_processor(folder).image_processor
    with torch.no_grad():
        pairs = [processor(pair, return_tensors="pt") for pair in (pictures[:2], [pictures[0], pictures[2]])]
        first, second = (
            model.model.visual(pair["pixel_values"], grid_thw=pair["image_grid_thw"]).pooler_output
            for pair in pairs
        )
    torch.testing.assert_close(first[:16], second[:16])
    assert not torch.allclose(first[16:], second[16:], atol=1e-2)


def test_nothing_of_it_is_saved(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    use_fast_vision_attention(model)
    model.save_pretrained(tmp_path)
    assert BY_LENGTH not in (tmp_path / "config.json").read_text()
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.model.visual.config._attn_implementation == "sdpa"


def test_other_families_are_left_alone(tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava(tmp_path))
    assert not use_fast_vision_attention(model)
