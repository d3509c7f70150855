"""An exported folder does to latents what the trained transformer does to tokens of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2Transformer2DModel
from PIL.Image import Image, fromarray
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from sparring.models.editors import FlowEditor, load_editor
from sparring_arena.world import SIZE, render, sample_scene
from workshop import vocabulary
from workshop.exact_autoencoder import packed_order
from workshop.export_editor import deviations, export, read_back

SCALE, NOISE, CONSTANT, SHIFT = 0.45, (0.02, 0.06), 6.0, 1.5
NUMBERS = {"scale": SCALE, "noise": NOISE, "constant": CONSTANT, "shift": SHIFT}
SIDE, TEXT, WIDTH = SIZE // 8, 12, 64
INSTRUCTIONS = ["Add a red cup beside the tomato", "Remove the dog"]
ROUNDING = 0.05 / 255  # of pixels in [0, 1]


class Trained:
    """Small random modules, and the velocity as training computes it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.tokenizer = vocabulary.build(model_max_length=TEXT, chat_template="{{ messages[0]['content'] }}")
        self.tokenizer.padding_side = "right"
        self.text_encoder = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(self.tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH,
                num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=16,
                tie_word_embeddings=True, initializer_range=0.1,
            )
        ).eval()  # fmt: skip
        self.transformer = Flux2Transformer2DModel(
            in_channels=196, num_layers=1, num_single_layers=1, attention_head_dim=32,
            num_attention_heads=WIDTH // 32, joint_attention_dim=3 * WIDTH, timestep_guidance_channels=16,
            mlp_ratio=2, axes_dims_rope=(4, 12, 12, 4), rope_theta=16, guidance_embeds=False,
        ).eval()  # fmt: skip

    def export(self, folder: Path) -> None:
        export(self.transformer, self.text_encoder, self.tokenizer, folder, **NUMBERS)

    @torch.no_grad()
    def velocity(self, tokens_BTC: Tensor, sigma: float, images: list[Image], texts: list[str]) -> Tensor:
        batch = len(images)
        words = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=TEXT, return_tensors="pt"
        )
        states = self.text_encoder.model(**words, output_hidden_states=True, use_cache=False).hidden_states
        place = torch.arange(SIDE)
        positions = [
            torch.cartesian_prod(torch.tensor([time]), place, place, torch.arange(1)) for time in (0, 10)
        ]
        zero = torch.arange(1)
        velocity: Tensor = self.transformer(
            hidden_states=torch.cat([tokens_BTC, tokens(images)], dim=1),
            timestep=torch.full((batch,), sigma),
            encoder_hidden_states=torch.cat([states[0], states[1], states[1]], dim=-1),
            txt_ids=torch.cartesian_prod(zero, zero, zero, torch.arange(TEXT)),
            img_ids=torch.cat(positions),
            return_dict=False,
        )[0]
        return velocity[:, : SIDE**2]


def pixels(images: list[Image]) -> Tensor:
    """[0, 1]"""
    return (
        torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    )


def tokens(images: list[Image]) -> Tensor:
    batch = len(images)
    cells = (
        (pixels(images) * 2 - 1)
        .reshape(batch, 3, SIDE, 8, SIDE, 8)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(batch, SIDE**2, 192)
    )
    return torch.cat([cells / SCALE, torch.full((batch, SIDE**2, 4), CONSTANT)], dim=-1)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def editor(trained: Trained, tmp_path_factory: Any) -> FlowEditor:
    folder = tmp_path_factory.mktemp("editor")
    trained.export(folder)
    return load_editor(folder)


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return [fromarray(render(sample_scene(np.random.default_rng(seed)))) for seed in (0, 1)]


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_its_velocity_is_the_trained_one(
    trained: Trained, editor: FlowEditor, images: list[Image], sigma: float
) -> None:
    state = torch.randn(2, SIDE**2, 196, generator=torch.Generator().manual_seed(1))
    expected = trained.velocity(state * deviations(NOISE), sigma, images, INSTRUCTIONS)
    order = packed_order()
    with torch.no_grad():
        velocity = editor.velocity(state[..., order], sigma, editor.encode(images, INSTRUCTIONS))
    velocity = velocity * deviations(NOISE)[order]
    error = (velocity - expected[..., order]).abs().max()
    assert error < 1e-4 * expected.std()


def test_its_latents_are_the_trained_tokens(editor: FlowEditor, images: list[Image]) -> None:
    conditions = editor.encode(images, INSTRUCTIONS)
    latents = conditions.tensors["image"] * deviations(NOISE)[packed_order()]
    torch.testing.assert_close(latents, tokens(images)[..., packed_order()], rtol=1e-4, atol=1e-3)
    assert conditions.tensors["text"].shape == (2, TEXT, 3 * WIDTH)


def test_pictures_come_back(editor: FlowEditor, images: list[Image]) -> None:
    assert (editor.reencode(images) - pixels(images)).abs().max() < ROUNDING
    conditions = editor.encode(images, INSTRUCTIONS)
    assert (editor.decode(conditions.tensors["image"], conditions) - pixels(images)).abs().max() < ROUNDING


def test_noise_levels_are_shifted(editor: FlowEditor, images: list[Image]) -> None:
    even = torch.linspace(1, 0.25, 4)
    expected = torch.cat([SHIFT * even / (1 + (SHIFT - 1) * even), torch.zeros(1)])
    torch.testing.assert_close(editor.sigmas(4, editor.encode(images, INSTRUCTIONS)), expected)


def test_what_is_exported_stays_as_it_is(tmp_path: Path) -> None:
    trained = Trained()
    before = {name: tensor.clone() for name, tensor in trained.transformer.state_dict().items()}
    trained.export(tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.transformer.state_dict().items())


def test_a_transformer_on_other_tokens_is_refused(trained: Trained, tmp_path: Path) -> None:
    other = Flux2Transformer2DModel.from_config(
        {**trained.transformer.config, "in_channels": 128, "out_channels": None}
    )
    with pytest.raises(ValueError, match="128"):
        export(other, trained.text_encoder, trained.tokenizer, tmp_path, **NUMBERS)


def test_what_was_exported_is_read_back(trained: Trained, tmp_path: Path) -> None:
    trained.export(tmp_path)
    again = Trained()
    for module in (again.transformer, again.text_encoder):
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)
    read_back(again.transformer, again.text_encoder, tmp_path, scale=SCALE, constant=CONSTANT)
    for own, other in ((trained.transformer, again.transformer), (trained.text_encoder, again.text_encoder)):
        expected = own.state_dict()
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-7)
