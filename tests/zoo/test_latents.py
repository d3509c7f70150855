"""Aligned latents decode to the same pictures, and a step in any direction of theirs changes the picture
alike.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLFlux2

from sparring.zoo import train_autoencoder
from sparring.zoo.latents import aligned, fit_statistics, picture_metric


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(12, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(small, size=(32, 32), mode="bicubic").clamp(0, 1) * 2 - 1


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLFlux2:
    torch.manual_seed(1)
    vae = train_autoencoder.build(6).eval()
    with torch.no_grad():  # channels of very different weight, none of them without
        vae.decoder.conv_in.weight *= torch.logspace(0, -1, 6)[None, :, None, None]
    return vae


def test_all_channels_kept_decode_to_the_same_picture(
    vae: AutoencoderKLFlux2, pictures: torch.Tensor
) -> None:
    new = aligned(vae, pictures, 6)
    with torch.no_grad():
        before = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
        after = new.decode(new.encode(pictures).latent_dist.mode()).sample
    inside = (
        slice(None),
        slice(None),
        slice(8, -8),
        slice(8, -8),
    )  # the border sees the padding of another basis, and group norms a little of the border
    assert (before - after)[inside].abs().mean() < 0.02 * before[inside].std()
    assert (new.encode(pictures).latent_dist.std < 0.01).all()


def test_equal_steps_change_the_picture_equally(vae: AutoencoderKLFlux2, pictures: torch.Tensor) -> None:
    old = picture_metric(vae, vae.encode(pictures).latent_dist.mode())
    new_vae = aligned(vae, pictures, 6)
    new = picture_metric(new_vae, new_vae.encode(pictures).latent_dist.mode())
    assert old.diagonal().max() / old.diagonal().min() > 5
    assert torch.allclose(new, torch.eye(6), atol=0.1)


def test_what_is_dropped_carries_least(vae: AutoencoderKLFlux2, pictures: torch.Tensor) -> None:
    new = aligned(vae, pictures, 4)
    variances = new.encode(pictures).latent_dist.mode().var((0, 2, 3))
    assert new.config.latent_channels == 4
    assert (variances[:-1] >= variances[1:] * 0.999).all()


def test_statistics_have_one_variance(vae: AutoencoderKLFlux2, pictures: torch.Tensor) -> None:
    new = aligned(vae, pictures, 4)
    fit_statistics(new, pictures)
    packed = torch.nn.functional.pixel_unshuffle(new.encode(pictures).latent_dist.mode(), 2)
    assert new.bn.running_var.unique().numel() == 1
    assert torch.isclose(new.bn.running_var[0], packed.var((0, 2, 3)).mean(), rtol=1e-4)
    assert torch.allclose(new.bn.running_mean, packed.mean((0, 2, 3)), atol=1e-4)
