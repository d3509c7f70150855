"""Roll-outs of an editor: from noise to edited pictures, step by step.

Deterministic ones make the edits that count. Stochastic ones take random steps inside a window of denoising
steps and ODE steps elsewhere, and keep what Flow-GRPO needs to compute the same log-probabilities again.
Letters: B rows (edits), P questions, W steps of the window, T tokens, C channels.

Nothing here uses torch.inference_mode: models keep position tables between calls, and one made in that mode
could not be used in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from sparring.attackers.crops import Crop, choose_crop, cut_all
from sparring.config import CropSettings
from sparring.models.editors import Conditions, FlowEditor
from sparring.rl import flow
from sparring.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Chance:
    """Where and how a roll-out is stochastic, and what it keeps. An empty window is the ODE.

    shared_start: the rows of one conditions row begin from one noise, that of the first of them, and part in
    the window's first step. They share the steps before it and the velocity in it, so that roll-out and
    replay compute these once a group. state_dtype: number type in which the states around the window's steps
    are kept. A state is rounded in the roll-out itself, before its log-probability is taken, so that the
    replay sees the same numbers. keep_means: keep the steps' means too, for GRPO-Guard.
    """

    window: range = range(0)
    sampler: flow.Sampler = "sde"
    noise_level: float = 0.0
    shared_start: bool = False
    state_dtype: torch.dtype = torch.float32
    keep_means: bool = False

    def rounded(self, x: Tensor) -> Tensor:
        """x as it will be read back: float32 again, after a round trip through `state_dtype`."""
        return x.to(self.state_dtype).float()


@dataclass(slots=True)
class Rollout:
    """Edits of P questions of one picture size. Row b belongs to `conditions` row `rows_B[b]` and began from
    the noise of `seeds[b]`.

    Of large pictures these are the crops that were cut out of them. final_BTC: the clean latents that were
    decoded. states: the W + 1 states x_BTC around the window's steps, in the chance's `state_dtype`;
    old_logp_WB: log-probabilities of those steps; means: their W means, float32, where they are kept.
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
    means: list[Tensor]


def nobodys(first: int, edits: Sequence[Image]) -> None:
    """Edits that nobody waits for."""


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
    made: Callable[[int, Sequence[Image]], None] = nobodys,
) -> Rollout:
    """Edit: row b starts from the noise of `seeds[b]` under conditions row `rows_B[b]`, `batch` rows at a
    time. made: is given every batch's first row and its edits, as soon as they are decoded.

    A row depends on its own seed and conditions alone, not on its neighbours; with a shared start, on the
    first seed of its group too.
    """
    sigmas = editor.sigmas(steps, conditions).tolist()
    window = chance.window
    trunk = (
        _shared_start(editor, conditions, rows_B, seeds, sigmas, chance, batch)
        if chance.shared_start and window
        else None
    )
    begin = window.start if trunk else 0
    finals, edits = [], list[Image]()
    states: list[list[Tensor]] = [[] for _ in range(len(window) + 1 if window else 0)]
    logps: list[list[Tensor]] = [[] for _ in window]
    means: list[list[Tensor]] = [[] for _ in window]
    for start in range(0, len(rows_B), batch):
        part_rows = rows_B[start : start + batch]
        part = conditions.select(part_rows)
        part_seeds = seeds[start : start + batch]
        generators = [torch.Generator("cpu").manual_seed(derive_seed(seed, "steps")) for seed in part_seeds]
        x_BTC = trunk[0][part_rows] if trunk else editor.noise(part, part_seeds)
        for step, (sigma, sigma_next) in enumerate(pairwise(sigmas[begin:]), begin):
            if window and step == window.start:
                x_BTC = chance.rounded(x_BTC)
                states[0].append(x_BTC.to(chance.state_dtype))
            v_BTC = trunk[1][part_rows] if trunk and step == begin else editor.velocity(x_BTC, sigma, part)
            if step not in window:
                x_BTC = flow.ode_step(x_BTC, v_BTC, sigma, sigma_next)
                continue
            place = step - window.start
            mean_BTC, std = flow.step_moments(
                chance.sampler, x_BTC, v_BTC, sigma, sigma_next, chance.noise_level
            )
            fresh_BTC = torch.stack(
                [torch.randn(x_BTC.shape[1:], generator=generator) for generator in generators]
            )
            x_BTC = chance.rounded(mean_BTC + std * fresh_BTC.to(mean_BTC))
            states[place + 1].append(x_BTC.to(chance.state_dtype))
            logps[place].append(flow.log_probability(chance.sampler, x_BTC, mean_BTC, std))
            if chance.keep_means:
                means[place].append(mean_BTC)
        finals.append(x_BTC)
        edits += to_pictures(editor.decode(x_BTC, part))
        made(start, edits[start:])
    old_logp_WB = torch.stack([torch.cat(parts) for parts in logps]) if logps else torch.zeros(0, len(rows_B))
    return Rollout(
        conditions=conditions,
        rows_B=rows_B,
        seeds=list(seeds),
        sigmas=sigmas,
        chance=chance,
        final_BTC=torch.cat(finals),
        edits=edits,
        states=[torch.cat(parts) for parts in states],
        old_logp_WB=old_logp_WB,
        means=[torch.cat(parts) for parts in means if parts],
    )


def velocities(rows: int, questions: int, steps: int, chance: Chance, batch: int) -> int:
    """How often `roll_out` asks the editor for a velocity, for so many rows of so many conditions rows."""
    if chance.shared_start and chance.window:
        begin = chance.window.start
        return math.ceil(questions / batch) * (begin + 1) + math.ceil(rows / batch) * (steps - begin - 1)
    return math.ceil(rows / batch) * steps


def _shared_start(
    editor: FlowEditor,
    conditions: Conditions,
    rows_B: Tensor,
    seeds: Sequence[int],
    sigmas: Sequence[float],
    chance: Chance,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """(x_PTC, v_PTC): state and velocity of every conditions row where the window begins, from the noise of
    the first row that belongs to it.
    """
    firsts = [seeds[int((rows_B == row).nonzero()[0])] for row in range(conditions.batch)]
    before = sigmas[: chance.window.start + 1]
    states, velocities = [], []
    for start in range(0, conditions.batch, batch):
        part = conditions.select(slice(start, start + batch))
        x_PTC = editor.noise(part, firsts[start : start + batch])
        for sigma, sigma_next in pairwise(before):
            x_PTC = flow.ode_step(x_PTC, editor.velocity(x_PTC, sigma, part), sigma, sigma_next)
        states.append(chance.rounded(x_PTC))
        velocities.append(editor.velocity(states[-1], before[-1], part))
    return torch.cat(states), torch.cat(velocities)


def replay(editor: FlowEditor, rollout: Rollout, place: int, rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """(log_ratio, mean, std) of the window's step number `place` for some rows, from the present weights.
    Differentiable.

    log_ratio_B: of the present policy to the one that made the roll-out; GRPO-Guard's normalised one where
    the means were kept.
    """
    chance, step = rollout.chance, rollout.chance.window[place]
    sigma, sigma_next = rollout.sigmas[step], rollout.sigmas[step + 1]
    before, after = rollout.states[place][rows].float(), rollout.states[place + 1][rows].float()
    owners = rollout.rows_B[rows]
    if chance.shared_start and place == 0:
        groups, group_of = owners.unique(return_inverse=True)
        first = [int((group_of == group).nonzero()[0]) for group in range(len(groups))]
        v = editor.velocity(before[first], sigma, rollout.conditions.select(groups))[group_of]
    else:
        v = editor.velocity(before, sigma, rollout.conditions.select(owners))
    mean, std = flow.step_moments(chance.sampler, before, v, sigma, sigma_next, chance.noise_level)
    if rollout.means:
        return flow.guarded_log_ratio(after, mean, rollout.means[place][rows], std), mean, std
    return (
        flow.log_probability(chance.sampler, after, mean, std) - rollout.old_logp_WB[place, rows],
        mean,
        std,
    )


def deterministic_edits(
    editor: FlowEditor,
    images: Sequence[Image],
    instructions: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance: float = 1.0,
    batch: int = 64,
    crops: Sequence[Crop] | None = None,
) -> list[Image]:
    """One edit for every (picture, instruction, seed), by the ODE, in the order given; pictures may differ in
    size.

    crops: where each picture is edited; without them, everywhere, scaled down where it is too large. The
    edits have the pictures' sizes and are rounded to 8 bits a channel: what is returned is what a PNG holds.
    """
    if crops is None:
        crops = [choose_crop(image.size, (), CropSettings(), editor.multiple) for image in images]
    cuts = cut_all(images, crops)
    edits: dict[int, Image] = {}
    for places in by_size(cuts):
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            conditions = editor.encode(
                [cuts[i] for i in part], [instructions[i] for i in part], guidance_scale=guidance
            )
            made = roll_out(
                editor,
                conditions,
                torch.arange(len(part)),
                [seeds[i] for i in part],
                steps=steps,
                batch=batch,
            )
            edits.update(
                (i, crops[i].compose(images[i], edit)) for i, edit in zip(part, made.edits, strict=True)
            )
    return [edits[i] for i in range(len(images))]


def round_trips(
    editor: FlowEditor, images: Sequence[Image], crops: Sequence[Crop], batch: int = 64
) -> list[Image]:
    """What the editor's autoencoder alone does to each picture where it would be edited; pictures may differ
    in size.
    """
    cuts = cut_all(images, crops)
    made: dict[int, Image] = {}
    for places in by_size(cuts):
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            again = to_pictures(editor.reencode([cuts[i] for i in part]))
            made.update(
                (i, crops[i].compose(images[i], picture)) for i, picture in zip(part, again, strict=True)
            )
    return [made[i] for i in range(len(images))]


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
