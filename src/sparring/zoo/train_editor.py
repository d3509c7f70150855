"""Train the bundled editor: a Flux2KleinPipeline that follows instructions on 64 x 64 pictures.

    python -m sparring.zoo.train_editor --pool pool --vae vae --out windows --pairs 120000 --window 4
    --learning-rate 1.5e-3 --batch 32 --seed 0 python -m sparring.zoo.train_editor --pool pool --vae vae
    --start windows --out editor --pairs 80000 --batch 16 --seed 1

Pairs are drawn from the scenes of a pool: add, add beside, remove, replace, recolour, and the Attacker's own
instruction (a distractor that the question does not mention). Flow matching on packed latents; the text
encoder learns with the transformer. Saves as it goes, continues where it stopped.

`--window 4` shows the transformer only the 4 x 4 latent tokens around each change: what objects look like is
learned there at more than twice as many pairs a second, before whole pictures teach where they stand.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from sparring.models.editors import Conditions
from sparring.models.editors.flux2_klein import Flux2KleinEditor, image_positions
from sparring.scenes.world import SIZE, Scene
from sparring.zoo import vocabulary
from sparring.zoo.architectures import TEMPLATE
from sparring.zoo.edits import WEIGHTS, WINDOW_WEIGHTS, Edit, draw_edit
from sparring.zoo.muon import Muon
from sparring.zoo.pool import Pool
from sparring.zoo.train_autoencoder import LATENT_CHANNELS

TEXT_TOKENS = 36


def build(vae: AutoencoderKLFlux2) -> Flux2KleinPipeline:
    """The pipeline with an untrained transformer and text encoder."""
    tokenizer = vocabulary.build(model_max_length=TEXT_TOKENS, chat_template=TEMPLATE.format(image=""))
    tokenizer.padding_side = "right"
    width = 64
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
            head_dim=16, max_position_embeddings=512, tie_word_embeddings=True,
        )
    )  # fmt: skip
    transformer = Flux2Transformer2DModel(
        in_channels=4 * LATENT_CHANNELS, num_layers=2, num_single_layers=5, attention_head_dim=32, num_attention_heads=4, joint_attention_dim=3 * width,
        timestep_guidance_channels=64, mlp_ratio=2.0, axes_dims_rope=(8, 8, 8, 8), guidance_embeds=False,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.5
    )  # the real models' dynamic shift would leave a small picture one last step of half the way
    return Flux2KleinPipeline(scheduler, vae.eval(), text_encoder, tokenizer, transformer, is_distilled=False)


class Pairs:
    """Endless batches of (clean pictures, edited pictures, instructions, tokens).

    tokens: row-major numbers of the latent tokens that the batch is about, on a grid of `side`: all of them,
    or with `window` a square of so many tokens around the change, the same square for the whole batch.
    """

    def __init__(self, pool: Pool, batch: int, seed: int, side: int, window: int = 0) -> None:
        self.pool, self.rows, self.rng, self.batch = (
            pool,
            pool.batches(256, seed),
            np.random.default_rng(seed),
            batch,
        )
        self.side, self.window = side, window or side
        self.waiting = defaultdict[tuple[int, int], list[tuple[int, Edit]]](list)

    def next(self) -> tuple[Tensor, Tensor, list[str], Tensor]:
        while not (full := [corner for corner, pairs in self.waiting.items() if len(pairs) >= self.batch]):
            for row in next(self.rows):
                scene = self.pool.scenes[int(row)]
                pair = draw_edit(scene, self.rng, WINDOW_WEIGHTS if self.window < self.side else WEIGHTS)
                if pair is not None:
                    self.waiting[self._corner(scene, pair.scene)].append((int(row), pair))
        corner = full[int(self.rng.integers(len(full)))]
        chosen, self.waiting[corner] = self.waiting[corner][: self.batch], self.waiting[corner][self.batch :]
        clean = self.pool.images(np.array([row for row, _ in chosen]))
        edited = (
            torch.from_numpy(np.stack([edit.render() for _, edit in chosen])).permute(0, 3, 1, 2).float()
            / 127.5
            - 1
        )
        run = torch.arange(self.window)
        tokens = (corner[1] + run[:, None]) * self.side + corner[0] + run
        return clean, edited, [edit.instruction for _, edit in chosen], tokens.flatten()

    def _corner(self, before: Scene, after: Scene) -> tuple[int, int]:
        """Column and row of the first token of a window around the thing that came, else the one that went,
        else anywhere.
        """
        moved = [thing for thing in after.things if thing not in before.things] or [
            thing for thing in before.things if thing not in after.things
        ]
        middle = moved[0].center if moved else self.rng.uniform(0, SIZE, 2)
        column, row = (
            int(np.clip(round(m / SIZE * self.side - self.window / 2), 0, self.side - self.window))
            for m in middle
        )
        return column, row


def text_features(editor: Flux2KleinEditor, texts: list[str]) -> Tensor:
    """What `encode_prompt` gives, with gradient."""
    embeddings, _ = editor.pipeline.encode_prompt(
        texts,
        device=editor.device,
        max_sequence_length=editor.text_length,
        text_encoder_out_layers=editor.text_layers,
    )
    return torch.as_tensor(embeddings)


def main(
    pool: Annotated[Path, typer.Option()],
    vae: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    start: Annotated[Path | None, typer.Option(help="an editor to begin with; none: random weights")] = None,
    pairs: Annotated[int, typer.Option()] = 88_000,
    batch: Annotated[int, typer.Option()] = 32,
    learning_rate: Annotated[float, typer.Option()] = 1.2e-3,
    window: Annotated[
        int,
        typer.Option(
            help="side, in latent tokens, of the part around a change that is learned on; 0: the whole "
            "picture"
        ),
    ] = 0,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train the editor."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    done, steps = 0, pairs // batch
    autoencoder = AutoencoderKLFlux2.from_pretrained(vae)
    if (out / "progress.json").exists():
        done, start = json.loads((out / "progress.json").read_text())["step"], out
    editor = Flux2KleinEditor(
        Flux2KleinPipeline.from_pretrained(start, vae=autoencoder) if start else build(autoencoder)
    )
    transformer, encoder = editor.transformer.train(), editor.pipeline.text_encoder.requires_grad_(True)
    parameters = [*transformer.parameters(), *encoder.parameters()]
    average = [p.detach().clone() for p in parameters]
    matrices = [p for name, p in transformer.named_parameters() if p.ndim == 2 and "blocks" in name]
    others = [p for p in parameters if not any(p is matrix for matrix in matrices)]
    optimizers = (
        Muon(matrices, learning_rate),
        torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
    )
    data = Pairs(Pool(pool), batch, seed + done, SIZE // editor.multiple, window)
    began, meter = time.time(), torch.zeros(2)
    for step in range(done, steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = (
                learning_rate
                * min(1, (step + 1 - done) / 100)
                * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            )
        clean, edited, texts, tokens = data.next()
        with torch.no_grad():
            latents_BTC, target_BTC = editor._encode_pixels(torch.cat([clean, edited]))[:, tokens].chunk(2)
            changed = (clean - edited).abs().amax(1, keepdim=True)
            changed_BT1 = F.max_pool2d(changed, editor.multiple).flatten(1)[:, tokens, None] > 0.1
            sigma = torch.rand(batch, 1, 1).sqrt()  # what there will be is decided near 1
            sigma = 1.5 * sigma / (1 + 0.5 * sigma)  # the scheduler's shift
            noise = torch.randn_like(target_BTC)
        conditions = Conditions(
            {"image": latents_BTC, "text": text_features(editor, texts)}, SIZE, SIZE, (data.side, data.side)
        )
        positions = image_positions(conditions.grid).unflatten(0, (2, -1))[:, tokens].flatten(0, 1)
        v = editor.velocity_at(
            (1 - sigma) * target_BTC + sigma * noise, sigma.flatten(), conditions, positions
        )
        error = (v - (noise - target_BTC)).square().mean(-1, keepdim=True)
        loss = (error * (1 + 4 * changed_BT1)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            decay = min(0.995, (step + 1 - done) / (step + 10 - done))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        meter = 0.98 * meter + 0.02 * torch.tensor(
            [error[~changed_BT1].mean().item(), error[changed_BT1].mean().item()]
        )
        if step % 50 == 49:
            kept, made = (meter / (1 - 0.98 ** (step + 1 - done))).tolist()
            print(
                f"{step + 1}/{steps} kept {kept:.4f} changed {made:.4f} "
                f"{(step + 1 - done) * batch / (time.time() - began):.1f} pairs/s",
                flush=True,
            )
        if step % 250 == 249 or step == steps - 1:
            raw = [p.detach().clone() for p in parameters]
            _assign(parameters, average)
            editor.save_pipeline(out)
            _assign(parameters, raw)
            (out / "progress.json").write_text(json.dumps({"step": step + 1}))


def _assign(parameters: list[Any], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


if __name__ == "__main__":
    typer.run(main)
