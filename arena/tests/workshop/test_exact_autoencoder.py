"""The autoencoder whose weights are set loses nothing, and its tokens are the documented numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
from torch import Tensor

from sparring_arena.world import SIZE, render, sample_scene
from workshop.exact_autoencoder import build, packed_order

GREY = 2 / 255  # a grey level of pixels in [-1, 1]


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKLFlux2:
    return build(SIZE)


def scenes(count: int) -> Tensor:
    pictures = np.stack([render(sample_scene(np.random.default_rng(seed))) for seed in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def plain(*colour: int) -> Tensor:
    return torch.tensor(colour).float()[None, :, None, None].repeat(1, 1, SIZE, SIZE)


@torch.no_grad()
def assert_lossless(autoencoder: AutoencoderKLFlux2, pictures: Tensor) -> None:
    error = (
        autoencoder.decode(autoencoder.encode(pictures).latent_dist.mode()).sample - pictures
    ).abs() / GREY
    assert error.mean() < 0.02
    assert error.max() < 0.2


PICTURES = {
    "scenes": scenes(4),
    "noise": noise(2, 3, SIZE, SIZE),
    "black and white noise": noise(1, 3, SIZE, SIZE).sign(),
    "half black, half white": torch.cat([plain(-1, -1, -1)[:, :, :37], plain(1, 1, 1)[:, :, 37:]], dim=2),
    "black": plain(-1, -1, -1),
    "white": plain(1, 1, 1),
    "red": plain(1, -1, -1),
    "green": plain(-1, 1, -1),
    "blue": plain(-1, -1, 1),
    "yellow": plain(1, 1, -1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_lost(autoencoder: AutoencoderKLFlux2, name: str) -> None:
    assert_lossless(autoencoder, PICTURES[name])


@pytest.mark.parametrize("sides", [(8, 8), (16, 72), (64, 40)])
def test_nothing_is_lost_of_smaller_pictures(autoencoder: AutoencoderKLFlux2, sides: tuple[int, int]) -> None:
    assert_lossless(autoencoder, noise(2, 3, *sides))


@pytest.mark.parametrize("size", [8, 64, 80])
def test_nothing_is_lost_at_other_sizes(size: int) -> None:
    assert_lossless(build(size), noise(1, 3, size, size))


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        build(70)


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(autoencoder: AutoencoderKLFlux2) -> None:
    pictures = torch.cat([scenes(2), plain(1, 1, 1)])
    together = autoencoder.encode(pictures).latent_dist.mode()
    alone = autoencoder.encode(pictures[:1]).latent_dist.mode()
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_token_is_the_documented_numbers() -> None:
    autoencoder = build(SIZE, scale=0.5, noise=(0.1, 0.2), constant=3.0)
    pictures = scenes(2)
    latents = Flux2KleinPipeline._patchify_latents(autoencoder.encode(pictures).latent_dist.mode())
    std = (autoencoder.bn.running_var + autoencoder.config.batch_norm_eps).sqrt()
    packed = (
        ((latents - autoencoder.bn.running_mean[:, None, None]) / std[:, None, None])
        .flatten(2)
        .transpose(1, 2)
    )
    side = SIZE // 8
    pixels = pictures.reshape(2, 3, side, 8, side, 8).permute(0, 2, 4, 1, 3, 5).reshape(2, side * side, 192)
    tokens = torch.cat([pixels / (0.5 * 0.1), torch.full((2, side * side, 4), 3.0 / 0.2)], dim=-1)
    torch.testing.assert_close(packed, tokens[..., packed_order()], rtol=1e-4, atol=0.02)


def test_the_weights_are_always_the_same(autoencoder: AutoencoderKLFlux2) -> None:
    torch.manual_seed(1)
    again = build(SIZE).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in autoencoder.state_dict().items())


def test_it_is_saved_and_loaded_in_float32(autoencoder: AutoencoderKLFlux2, tmp_path) -> None:
    autoencoder.save_pretrained(tmp_path)
    loaded = AutoencoderKLFlux2.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    assert_lossless(loaded, scenes(1))
