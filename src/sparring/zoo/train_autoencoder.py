"""The bundled editor's eyes and hands: an `AutoencoderKLFlux2` for 64 x 64 pictures, 4 x 4 pixels to a latent
of 16 numbers.

    python -m sparring.zoo.train_autoencoder --pool pool --out vae --seed 0

Trained with L1 and local SSIM under latent noise: first everything on quarter pictures, with latents of 24
numbers; then these are aligned with the picture (see `latents.py`), and the decoder alone learns on whole
pictures, so that the editor can be trained in the same latents at the same time. Saves every few minutes,
continues where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D

from sparring.zoo.latents import aligned, fit_statistics
from sparring.zoo.pool import Pool

FIRST_CHANNELS, LATENT_CHANNELS = 24, 16  # before and after they are aligned
# up to which the decoder learns to forgive, in standard deviations of the latents: an editor gets them only
# nearly right
NOISE = 0.3


def build(latent_channels: int = FIRST_CHANNELS) -> AutoencoderKLFlux2:
    """The untrained autoencoder. Full resolution is what costs: few channels there, more further down."""
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 24, 64),
        layers_per_block=1,
        latent_channels=latent_channels,
        # more groups would be instance norm where channels are few: absolute colours would be lost
        norm_num_groups=1,
        sample_size=64,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight *= 3**0.5  # the default halves the signal at every layer
        # Residual branches begin at zero, and the posterior is narrow: what is encoded is what is decoded.
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.zero_()
        vae.quant_conv.weight[latent_channels:] = 0
        vae.quant_conv.bias[latent_channels:] = -10
    return vae


def ssim_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """SSIM with a 7 x 7 box window, for training only; pictures in [-1, 1]."""

    def pool(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 7, 1)

    ma, mb = pool(a), pool(b)
    va, vb, cov = pool(a * a) - ma * ma, pool(b * b) - mb * mb, pool(a * b) - ma * mb
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    return ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))


def main(
    pool: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    images: Annotated[int, typer.Option()] = 120_000,
    batch: Annotated[int, typer.Option()] = 8,
    learning_rate: Annotated[float, typer.Option()] = 2.5e-3,
    seed: Annotated[int, typer.Option()] = 0,
    crops: Annotated[
        int, typer.Option(help="steps on 32 x 32 crops, before the latents are aligned")
    ] = 9_000,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train the autoencoder."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data = Pool(pool)
    steps, done, vae = images // batch, 0, build()
    if (out / "progress.json").exists():
        done = json.loads((out / "progress.json").read_text())["step"]
        vae = AutoencoderKLFlux2.from_pretrained(out)
    for first, last in ((done, min(crops, steps)), (max(done, crops), steps)):
        if first >= last:
            continue
        if first == crops:
            pictures = data.images(next(data.batches(512, 7)))
            vae = aligned(vae.eval(), pictures, LATENT_CHANNELS)
            fit_statistics(vae, pictures)
        phase(
            vae.to(memory_format=torch.channels_last).train(),
            data,
            out,
            range(first, last),
            steps,
            batch,
            learning_rate,
            whole=first >= crops,
            seed=seed,
        )


def phase(
    vae: AutoencoderKLFlux2,
    data: Pool,
    out: Path,
    part: range,
    steps: int,
    batch: int,
    learning_rate: float,
    *,
    whole: bool,
    seed: int,
) -> None:
    """The steps of one phase; the learning rate falls over all `steps`. On whole pictures the latents stay,
    and the decoder alone learns.
    """
    if whole:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in vae.parameters() if p.requires_grad], learning_rate, weight_decay=1e-4, betas=(0.9, 0.98)
    )
    spread = math.sqrt(vae.bn.running_var.mean().item())
    began, parts, rows = time.time(), torch.zeros(3), data.batches(batch, seed + part.start)
    for step in part:
        for group in optimizer.param_groups:
            warm = min(1, (step + 1 - part.start) / 100)
            group["lr"] = learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        x = data.images(next(rows))
        if not whole:  # quarter pictures first: four times as many updates in the same time
            left, top = torch.randint(0, 33, (2,)).tolist()
            x = x[..., top : top + 32, left : left + 32]
        x = x.contiguous(memory_format=torch.channels_last)
        latents = vae.encode(x).latent_dist.mode()
        amount = spread * NOISE * torch.rand(batch, 1, 1, 1) if whole else 0.03
        decoded = vae.decode(latents + amount * torch.randn_like(latents)).sample
        # Without gradient for the encoder, this term is a constant.
        l1, ssim, size = (decoded - x).abs().mean(), ssim_map(decoded, x).mean(), latents.square().mean()
        loss = l1 + 0.3 * (1 - ssim) + 1e-3 * (size - 1).clamp(min=0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        parts = 0.98 * parts + 0.02 * torch.tensor([l1.item(), ssim.item(), size.item()])
        seen = step + 1 - part.start
        if step % 50 == 49:
            l1_now, ssim_now, size_now = (parts / (1 - 0.98**seen)).tolist()
            speed = seen * batch / (time.time() - began)
            print(
                f"{step + 1}/{steps} l1 {l1_now:.4f} ssim {ssim_now:.4f} size {size_now:.2f} {speed:.0f} "
                f"images/s",
                flush=True,
            )
        if step % 1000 == 999 or step == part[-1]:
            vae.eval()
            if not whole:
                fit_statistics(vae, data.images(next(data.batches(512, 7))))
            vae.save_pretrained(out)
            (out / "progress.json").write_text(json.dumps({"step": step + 1}))
            vae.train()


if __name__ == "__main__":
    typer.run(main)
