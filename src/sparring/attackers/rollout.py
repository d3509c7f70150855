"""Roll-outs of an editor: from noise to edited pictures, step by step.

Deterministic ones make the edits that count. Stochastic ones take random steps inside a window of denoising steps and ODE steps elsewhere,
and keep what Flow-GRPO needs to compute the same log-probabilities again.
Letters: B rows (edits), P questions, W steps of the window, T tokens, C channels.

Nothing here uses torch.inference_mode: models keep position tables between calls, and one made in that mode could not be used in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from sparring.models.editors import Conditions, FlowEditor
from sparring.rl import flow
from sparring.rl.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Chance:
    """Where and how a roll-out is stochastic. An empty window is the ODE."""

    window: range = range(0)
    sampler: flow.Sampler = "sde"
    noise_level: float = 0.0


@dataclass(slots=True)
class Rollout:
    """Edits of P questions of one picture size. Row b belongs to `conditions` row `rows_B[b]` and began from the noise of `seeds[b]`.

    final_BTC: the clean latents that were decoded. states: the W + 1 states x_BTC around the window's steps, float32;
    old_logp_WB: log-probabilities of those steps.
    """

    conditions: Conditions
    rows_B: Tensor
    seeds: list[int]
    sigmas: list[float]
    chance: Chance
    final_BTC: Tensor
    edits: list[Image]
    states: list[Tensor]
    old_logp_WB: Tensor


@torch.no_grad()
def roll_out(
    editor: FlowEditor,
    conditions: Conditions,
    rows_B: Tensor,
    seeds: Sequence[int],
    *,
    steps: int,
    chance: Chance = Chance(),
    batch: int = 64,
) -> Rollout:
    """Edit: row b starts from the noise of `seeds[b]` under conditions row `rows_B[b]`, `batch` rows at a time.

    A row depends on its own seed and conditions alone, not on its neighbours.
    """
    sigmas = editor.sigmas(steps, conditions).tolist()
    finals, edits = [], []
    states: list[list[Tensor]] = [[] for _ in range(len(chance.window) + 1 if chance.window else 0)]
    logps: list[list[Tensor]] = [[] for _ in chance.window]
    for start in range(0, len(rows_B), batch):
        part = conditions.select(rows_B[start : start + batch])
        part_seeds = seeds[start : start + batch]
        generators = [torch.Generator("cpu").manual_seed(derive_seed(seed, "steps")) for seed in part_seeds]
        x_BTC = editor.noise(part, part_seeds)
        for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            v_BTC = editor.velocity(x_BTC, sigma, part)
            if step not in chance.window:
                x_BTC = flow.ode_step(x_BTC, v_BTC, sigma, sigma_next)
                continue
            place = step - chance.window.start
            if place == 0:
                states[0].append(x_BTC)
            mean_BTC, std = flow.step_moments(chance.sampler, x_BTC, v_BTC, sigma, sigma_next, chance.noise_level)
            fresh_BTC = torch.stack([torch.randn(x_BTC.shape[1:], generator=generator) for generator in generators])
            x_BTC = mean_BTC + std * fresh_BTC.to(mean_BTC)
            states[place + 1].append(x_BTC)
            logps[place].append(flow.log_probability(chance.sampler, x_BTC, mean_BTC, std))
        finals.append(x_BTC)
        edits += to_pictures(editor.decode(x_BTC, part))
    old_logp_WB = torch.stack([torch.cat(parts) for parts in logps]) if logps else torch.zeros(0, len(rows_B))
    joined = [torch.cat(parts) for parts in states]
    return Rollout(conditions, rows_B, list(seeds), sigmas, chance, torch.cat(finals), edits, joined, old_logp_WB)


def replay_logp(editor: FlowEditor, rollout: Rollout, place: int, rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """(logp, mean, std) of the window's step number `place` for some rows, from the present weights. Differentiable."""
    step = rollout.chance.window[place]
    sigma, sigma_next = rollout.sigmas[step], rollout.sigmas[step + 1]
    before, after = rollout.states[place][rows], rollout.states[place + 1][rows]
    v = editor.velocity(before, sigma, rollout.conditions.select(rollout.rows_B[rows]))
    mean, std = flow.step_moments(rollout.chance.sampler, before, v, sigma, sigma_next, rollout.chance.noise_level)
    return flow.log_probability(rollout.chance.sampler, after, mean, std), mean, std


def deterministic_edits(
    editor: FlowEditor,
    images: Sequence[Image],
    instructions: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance: float = 1.0,
    batch: int = 64,
) -> list[Image]:
    """One edit for every (picture, instruction, seed), by the ODE, in the order given; pictures may differ in size.

    The edits are rounded to 8 bits a channel: what is returned is what a PNG holds.
    """
    edits: dict[int, Image] = {}
    for places in by_size(images):
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            conditions = editor.encode([images[i] for i in part], [instructions[i] for i in part], guidance_scale=guidance)
            made = roll_out(editor, conditions, torch.arange(len(part)), [seeds[i] for i in part], steps=steps, batch=batch)
            edits.update(zip(part, made.edits, strict=True))
    return [edits[i] for i in range(len(images))]


def by_size(images: Sequence[Image]) -> list[list[int]]:
    """The pictures' places, sorted into lists of equal size; sizes come in order of appearance."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.size, []).append(place)
    return list(groups.values())


def to_pictures(images_BCHW: Tensor) -> list[Image]:
    """RGB pictures of images in [0, 1], rounded to 8 bits."""
    array = (images_BCHW.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [fromarray(np.ascontiguousarray(row)) for row in array]


def sample_seed(run_seed: int, step: int, question_id: str, sample: int) -> int:
    """The seed of one training edit: a function of the run's seed and of what is edited when."""
    return derive_seed(run_seed, "edit", step, question_id, sample)
