"""Latents in which equal distances are equal changes of the picture.

An autoencoder is free to choose a scale for each of its channels, and some of them hardly reach the picture
at all. An editor that learns in such latents spends itself on numbers nobody sees. `aligned` changes the
basis: how strongly a direction changes the picture is measured, the latents are stretched so that all
directions change it alike, turned to their principal axes, and the axes that carry next to nothing are
dropped. The change of basis is linear, so it goes into the encoder's last and the decoder's first layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2
from torch import Tensor


@torch.no_grad()
def picture_metric(vae: AutoencoderKLFlux2, latents_BCHW: Tensor, spacing: int = 4) -> Tensor:
    """[C, C]: mean inner products of the picture's changes per unit of each channel at one place, by central
    differences.
    """
    steps = 0.25 * latents_BCHW.std((0, 2, 3))
    mask = torch.zeros(latents_BCHW.shape[-2:])
    mask[1::spacing, 1::spacing] = 1
    changes = []
    for channel, step in enumerate(steps):
        shift = torch.zeros_like(latents_BCHW[:1])
        shift[:, channel] = step * mask
        difference = vae.decode(latents_BCHW + shift).sample - vae.decode(latents_BCHW - shift).sample
        changes.append((difference / (2 * step)).flatten())
    change = torch.stack(changes)
    return change @ change.T / (len(latents_BCHW) * mask.sum())


@torch.no_grad()
def aligned(vae: AutoencoderKLFlux2, pictures_BCHW: Tensor, channels: int) -> AutoencoderKLFlux2:
    """The same autoencoder with `channels` latent channels of falling weight, each unit of which changes the
    picture by as much as any other.
    """
    latents = vae.encode(pictures_BCHW).latent_dist.mode()
    values, vectors = torch.linalg.eigh(picture_metric(vae, latents[:64]))
    stretch = vectors @ torch.diag(values.clamp(min=1e-8).sqrt()) @ vectors.T
    covariance = stretch @ torch.cov(latents.transpose(0, 1).flatten(1)) @ stretch
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :channels]
    there = axes.T @ stretch  # [channels, old]
    back = torch.linalg.inv(stretch) @ axes
    old = vae.config.latent_channels
    new = AutoencoderKLFlux2.from_config({**vae.config, "latent_channels": channels})
    state = {
        k: v
        for k, v in vae.state_dict().items()
        if k in new.state_dict() and v.shape == new.state_dict()[k].shape
    }
    new.load_state_dict(state, strict=False)
    to_mean, mean_bias = vae.quant_conv.weight[:old, :, 0, 0], vae.quant_conv.bias[:old]
    last = vae.encoder.conv_out
    new.encoder.conv_out.weight.zero_()
    new.encoder.conv_out.bias.fill_(-10)  # a narrow posterior: what is encoded is what is decoded
    new.encoder.conv_out.weight[:channels] = torch.einsum("no,oihw->nihw", there @ to_mean, last.weight)
    new.encoder.conv_out.bias[:channels] = there @ (to_mean @ last.bias + mean_bias)
    first, within = vae.decoder.conv_in, vae.post_quant_conv.weight[:, :, 0, 0]
    new.decoder.conv_in.weight.copy_(torch.einsum("oihw,in->onhw", first.weight, within @ back))
    dropped = latents.mean((0, 2, 3))
    constant = within @ (dropped - back @ (there @ dropped)) + vae.post_quant_conv.bias
    new.decoder.conv_in.bias.copy_(first.bias + first.weight.sum((2, 3)) @ constant)
    for layer, width in ((new.quant_conv, 2 * channels), (new.post_quant_conv, channels)):
        layer.weight.copy_(torch.eye(width)[:, :, None, None])
        layer.bias.zero_()
    return new.eval()


@torch.no_grad()
def fit_statistics(vae: AutoencoderKLFlux2, pictures_BCHW: Tensor) -> None:
    """The batch-norm statistics by which packed latents are normalised: a mean for each channel, one common
    variance for all.
    """
    packed = F.pixel_unshuffle(vae.encode(pictures_BCHW).latent_dist.mode(), 2)
    vae.bn.running_mean.copy_(packed.mean((0, 2, 3)))
    vae.bn.running_var.fill_(packed.var((0, 2, 3)).mean().item())
