"""The bundled editor's eyes and hands: an `AutoencoderKLFlux2` for 64 x 64 pictures, 4 x 4 pixels to a latent of 24 numbers.

    python -m sparring.zoo.train_autoencoder --pool pool --out vae --seed 0

Trained with L1 and local SSIM under a little latent noise: first everything on quarter pictures, then the decoder alone on whole ones
(so that the editor can be trained in the same latents at the same time). Saves every few minutes, continues where it stopped.
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
from safetensors.torch import load_file, save_file

from sparring.scenes.world import SIZE
from sparring.zoo.pool import Pool

LATENT_CHANNELS = 24


def build(latent_channels: int = LATENT_CHANNELS) -> AutoencoderKLFlux2:
    """The untrained autoencoder. Full resolution is what costs: few channels there, more further down."""
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 24, 64),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=1,  # more groups would be instance norm where channels are few: absolute colours would be lost
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
    crops: Annotated[int, typer.Option(help="steps on 32 x 32 crops before whole pictures")] = 9_000,
    latent_channels: Annotated[int, typer.Option()] = LATENT_CHANNELS,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train the autoencoder."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data = Pool(pool)
    vae = build(latent_channels).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), learning_rate, weight_decay=1e-4, betas=(0.9, 0.98))
    steps, done = images // batch, 0
    out.mkdir(parents=True, exist_ok=True)
    if (out / "progress.json").exists():
        done = json.loads((out / "progress.json").read_text())["step"]
        vae.load_state_dict(load_file(out / "diffusion_pytorch_model.safetensors"))
    began, parts = time.time(), torch.zeros(3)
    rows = data.batches(batch, seed + done)
    for step in range(done, steps):
        if step == max(crops, done):
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)
            spread = F.pixel_shuffle(vae.bn.running_var.sqrt()[None, :, None, None], 2)
            spread = spread.repeat(1, 1, SIZE // 8, SIZE // 8)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1 - done) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        x = data.images(next(rows))
        if step < crops:  # quarter pictures first: four times as many updates in the same time
            left, top = torch.randint(0, 33, (2,)).tolist()
            x = x[..., top : top + 32, left : left + 32]
        x = x.contiguous(memory_format=torch.channels_last)
        latents = vae.encode(x).latent_dist.mode()
        noise = 0.03 * torch.randn_like(latents)
        if step >= crops:  # an editor gets latents nearly right: the decoder learns to make a clean picture of such ones
            noise = spread * 0.45 * torch.rand(batch, 1, 1, 1) * torch.randn_like(latents)
        decoded = vae.decode(latents + noise).sample
        # Without gradient for the encoder, this term is a constant.
        l1, ssim, size = (decoded - x).abs().mean(), ssim_map(decoded, x).mean(), latents.square().mean()
        loss = l1 + 0.3 * (1 - ssim) + 1e-3 * (size - 1).clamp(min=0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        parts = 0.98 * parts + 0.02 * torch.tensor([l1.item(), ssim.item(), size.item()])
        if step % 50 == 49:
            l1_now, ssim_now, size_now = (parts / (1 - 0.98 ** (step + 1 - done))).tolist()
            print(
                f"{step + 1}/{steps} l1 {l1_now:.4f} ssim {ssim_now:.4f} size {size_now:.2f} {(step + 1 - done) * batch / (time.time() - began):.0f} images/s",
                flush=True,
            )
        if step % 1000 == 999 or step == steps - 1:
            save(vae, data, out, step + 1)


@torch.no_grad()
def save(vae: AutoencoderKLFlux2, data: Pool, out: Path, step: int) -> None:
    """Fit the batch-norm statistics that normalise packed latents, and write everything."""
    vae.eval()
    latents = torch.cat([vae.encode(data.images(rows)).latent_dist.mode() for rows, _ in zip(data.batches(64, 7), range(16), strict=False)])
    packed = F.pixel_unshuffle(latents, 2)
    if vae.encoder.conv_in.weight.requires_grad:
        vae.bn.running_mean.copy_(packed.mean((0, 2, 3)))
        vae.bn.running_var.copy_(packed.var((0, 2, 3)))
    vae.train()
    vae.save_config(out)
    save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, out / "diffusion_pytorch_model.safetensors")
    (out / "progress.json").write_text(json.dumps({"step": step}))


if __name__ == "__main__":
    typer.run(main)
