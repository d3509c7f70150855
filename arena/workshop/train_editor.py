"""Train the bundled editor on pairs of scenes before and after an instruction.

    python -m workshop.train_editor --out work/editor --pairs 330000 --seed 0

It makes an edit in two steps (`editor_net.LEVELS`), and learns these alone: flow matching at the highest noise
level, where the mean of all that an instruction allows is asked for, and at the one below, where noise and a
draft say which of them it is. Three more losses make a small net learn in hours what it else would in days:
what lies in every clean token (name and colour), whether it is what the instruction names, and which tokens
will change. Most batches hold the changed tokens and a few others of the picture that is made; every fourth
holds all. Saves as it goes, continues where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparring_arena.oracle import find
from sparring_arena.sprites import COLORS, NAMES
from sparring_arena.world import CELL, Scene, render
from workshop.editor_net import (
    CONSTANT,
    CONSTANTS,
    DEVIATIONS,
    FORESEEN,
    LEVELS,
    NOISE,
    PIXELS,
    PLAN,
    SCALE,
    SIDE,
    TOKENS,
    EditorNet,
    choices,
    copying_parameters,
    edit,
    empty_parameters,
    patch,
    pick,
    plan,
    signs,
    with_plan,
)  # fmt: skip
from workshop.edits import DISTRACTORS, DRAWN, EDITS, Pair, distracted, draw_pair
from workshop.export_editor import read_back
from workshop.muon import Muon

FEW = 28  # tokens of the made picture in a batch that does not hold all of them
FIRST = 0.15  # share of the pairs on which the first step is learned
GREY = SCALE * 127.5
HELD_OUT = 77
ACROSS = 12  # edits of each kind on a sheet


def tensor_of(scenes: list[Scene]) -> Tensor:
    """Pictures, [B, 3, SIZE, SIZE] in [-1, 1]."""
    return (
        torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 127.5
        - 1
    )


def labels(pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """For every clean token: the name of the thing in it (0: none), its colour (-100: none), and whether the
    instruction names it.
    """
    names, colors = (
        torch.zeros(len(pairs), SIDE, SIDE, dtype=torch.long),
        torch.full((len(pairs), SIDE, SIDE), -100),
    )
    named = torch.zeros(len(pairs), SIDE, SIDE)
    for i, pair in enumerate(pairs):
        for thing in pair.before.things:
            x0, y0, x1, y1 = thing.box
            for row in range(thing.row, thing.row + 3):
                for column in range(thing.column, thing.column + 3):
                    width = min(x1, CELL * column + CELL) - max(x0, CELL * column)
                    height = min(y1, CELL * row + CELL) - max(y0, CELL * row)
                    if width > 0 and height > 0 and width * height >= 16:
                        names[i, row, column] = NAMES.index(thing.name) + 1
                        colors[i, row, column] = list(COLORS).index(thing.color)
                        named[i, row, column] = thing.name in pair.named
    return names.flatten(1), colors.flatten(1), named.flatten(1)


class Meter:
    """Running means."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def add(self, **values: float) -> None:
        for key, value in values.items():
            if not math.isnan(value):
                self.sums[key] = 0.98 * self.sums.get(key, 0) + 0.02 * value
                self.weights[key] = 0.98 * self.weights.get(key, 0) + 0.02

    def __str__(self) -> str:
        return " ".join(f"{key} {self.sums[key] / self.weights[key]:.3f}" for key in self.sums)


class Trainer:
    """The net, its running average, two optimisers, and endless pairs."""

    def __init__(
        self, out: Path, *, batch: int, learning_rate: float, seed: int, begin: Path | None = None
    ) -> None:
        self.out, self.batch, self.learning_rate, self.seed = out, batch, learning_rate, seed
        torch.manual_seed(seed)
        self.net = EditorNet()
        if begin is not None:
            read_back(self.net.transformer, self.net.text, begin, scale=SCALE, constant=CONSTANT)
        frozen = {id(p) for p in copying_parameters(self.net)}
        for parameter in copying_parameters(self.net):
            parameter.requires_grad_(False)
        self.parameters = {name: p for name, p in self.net.named_parameters() if id(p) not in frozen}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.done = self._load()
        matrices = {
            name: p
            for name, p in self.parameters.items()
            if p.ndim == 2 and name.startswith("transformer.") and "blocks" in name
        }
        slow = [p for name, p in self.parameters.items() if name not in matrices and "modulation" in name]
        others = [
            p for name, p in self.parameters.items() if name not in matrices and "modulation" not in name
        ]
        self.muon = Muon(matrices.values(), learning_rate)
        self.adamw = torch.optim.AdamW(
            [{"params": others, "scale": 0.75}, {"params": slow, "scale": 0.05}],
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        self.rng = np.random.default_rng([seed, 3, self.done])

    def step(self, number: int, rate: float) -> dict[str, float]:
        for group in self.muon.param_groups:
            group["lr"] = rate
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["scale"]
        rng = self.rng
        chosen = torch.from_numpy(rng.choice(len(DRAWN), size=self.batch, p=DRAWN))
        told = signs(chosen)
        pairs = [draw_pair(rng, choice) for choice in chosen.tolist()]
        clean, wanted, draft = (
            patch(tensor_of(scenes))
            for scenes in (
                [p.before for p in pairs],
                [p.after for p in pairs],
                [foreseen(p, rng) for p in pairs],
            )
        )
        draft = clean.lerp(draft, torch.rand(self.batch, 1, 1).sqrt())
        changed_BT = (clean - wanted).abs().amax(-1) > 0.1 / SCALE
        names, colors, named = labels(pairs)
        every = number % 4 == 0
        which = torch.arange(TOKENS).expand(self.batch, -1)
        if not every:
            order = 2 * changed_BT.float() + 0.7 * (names > 0) + torch.rand(changed_BT.shape)
            which = order.topk(FEW, 1).indices
        first = torch.from_numpy(rng.random(self.batch) < FIRST)
        sigma = torch.where(first, *LEVELS)
        state, target = self._flow(pick(wanted, which), pick(draft, which), told, sigma)
        changed = changed_BT.gather(1, which)[..., None].float()
        weight = (
            1 + 4 * changed + 2 * (names.gather(1, which) > 0)[..., None]
        )  # which thing is meant is hardest: things that stay count, too
        open_ends = first & torch.tensor([pair.asked is not None for pair in pairs])
        weight = weight * torch.where(open_ends, 0.25, 1.0)[:, None, None]
        text = self.net.embed([pair.instruction for pair in pairs])
        velocity, made, seen = self._velocity(state, clean, sigma, text, which)
        error = (velocity - target).square()
        loss = (error.mean(-1, keepdim=True) * weight).mean()
        recognised = self.net.recognise(seen).split([len(NAMES) + 1, len(COLORS), 1], -1)
        name_logits, color_logits, named_logit = recognised
        losses = {
            "name": F.cross_entropy(name_logits.flatten(0, 1), names.flatten()),
            "color": F.cross_entropy(color_logits.flatten(0, 1), colors.flatten(), ignore_index=-100),
            "named": F.binary_cross_entropy_with_logits(
                named_logit.squeeze(-1), named, pos_weight=torch.tensor(8.0)
            ),
            "foresee": F.binary_cross_entropy_with_logits(
                self.net.foresee(made), changed, pos_weight=torch.tensor(3.0)
            ),
        }
        loss = (
            loss
            + 0.3 * losses["name"]
            + 0.1 * losses["color"]
            + 2.0 * losses["named"]
            + 0.5 * losses["foresee"]
        )
        # The plan is four channels of 196, and has to be right in its mean: of the first step to a part of
        # what noise brings, of the second to a part of itself.
        missed = plan(sigma[:, None, None] * (velocity - target)) / torch.where(first, NOISE, PLAN)[:, None]
        loss = loss + 0.2 * F.smooth_l1_loss(missed, torch.zeros_like(missed))
        loss.backward()
        for parameter, mask in empty_parameters(self.net.transformer):
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            self.muon.step()
        self.adamw.step()
        self.net.zero_grad()
        decay = min(0.998, (number + 1) / (number + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), [p.detach() for p in self.parameters.values()], 1 - decay
            )
        pixels = error[..., :PIXELS].mean(-1, keepdim=True).detach()
        report = {key: value.item() for key, value in losses.items()}
        report["kept"] = _share(pixels, (1 - changed)) ** 0.5 * GREY
        report["changed"] = _share(pixels, changed) ** 0.5 * GREY
        for kind in ("add", "remove", "replace", "make", "Add"):
            rows = ~first & torch.tensor([pair.instruction.split()[0] == kind for pair in pairs])
            report[kind] = _share(pixels, changed * rows[:, None, None]) ** 0.5 * GREY
        off = missed.detach().abs().mean(-1)
        report["foreseen"], report["plan"] = _share(off, first.float()), _share(off, (~first).float())
        return report

    @staticmethod
    def _flow(wanted: Tensor, draft: Tensor, signs_B3: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """State and velocity: from there one step leads to what is wanted, and to its plan, if the state's
        plan says so.

        At the highest level nothing does: what is made has the plan FORESEEN. Below, noise alone
        says it, or also what was foreseen.
        """
        batch, tokens = wanted.shape[:2]
        sigma, below = sigma_B[:, None, None], (sigma_B < 1)[:, None]
        by_noise = torch.randn(batch, 3).abs() * sigma_B[:, None] * NOISE / tokens**0.5
        by_foresight = (1 - sigma_B[:, None]) * PLAN * torch.rand(batch, 3) * (torch.rand(batch, 1) < 0.5)
        noise = torch.randn_like(wanted) * DEVIATIONS
        state = sigma * noise + (1 - sigma) * draft
        told = with_plan(state, signs_B3 * (by_noise + by_foresight))
        state = torch.where(below[..., None], told, state)
        wanted = with_plan(wanted, torch.where(below, signs_B3 * PLAN, FORESEEN))
        return state, (state - wanted) / sigma

    def _velocity(self, *args: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The net's, with products in bfloat16: twice as fast on a processor that has units for them."""
        with torch.autocast("cpu", torch.bfloat16):
            velocity, made, seen = self.net.velocity(*args)
        return velocity.float(), made.float(), seen.float()

    def use_average(self) -> dict[str, Tensor]:
        """Put the running average in place of the weights, which are returned."""
        raw = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.put(self.average)
        return raw

    @torch.no_grad()
    def put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def save(self, done: int) -> None:
        """The running average, and the weights beside it."""
        self.out.mkdir(parents=True, exist_ok=True)
        everything = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        save_file(everything, self.out / "weights.safetensors")
        save_file(
            {**everything, **{name: p.clone() for name, p in self.average.items()}},
            self.out / "average.safetensors",
        )
        (self.out / "progress.json").write_text(json.dumps({"pairs": done}))

    def _load(self) -> int:
        if not (self.out / "progress.json").exists():
            return 0
        self.net.load_state_dict(load_file(self.out / "weights.safetensors"), strict=False)
        average = self.out / "average.safetensors"  # where it was not kept, it begins again from the weights
        known = load_file(average) if average.exists() else dict(self.parameters)
        self.average = {name: known[name].detach().clone() for name in self.parameters}
        return int(json.loads((self.out / "progress.json").read_text())["pairs"])


def foreseen(pair: Pair, rng: np.random.Generator) -> Scene:
    """What the first step may foresee: what will be, or something else that could have been."""
    if pair.asked is None or rng.random() < 0.5:
        return pair.after
    other = distracted(pair.before, pair.asked, DISTRACTORS[int(rng.integers(len(DISTRACTORS)))])
    return other or pair.before


def _share(value: Tensor, weight: Tensor) -> float:
    """Weighted mean; nan where there is no weight."""
    total = weight.sum()
    return float((value * weight).sum() / total) if total > 0 else math.nan


def held_out(number: int, kind: str) -> tuple[list[Pair], Tensor]:
    """Pairs of one kind that no training has seen, and the noise that tells their choices."""
    weights = [float(name == kind) for name in EDITS]
    noise = torch.randn(number, TOKENS, PIXELS + CONSTANTS, generator=torch.Generator().manual_seed(HELD_OUT))
    below = LEVELS[1]
    shift = (1 - below) / below * FORESEEN / NOISE
    made = enumerate(choices(plan(noise) + shift).tolist())
    return [draw_pair(np.random.default_rng([HELD_OUT, i]), choice, weights) for i, choice in made], noise


def evaluate(net: EditorNet, number: int, sheet: Path | None = None) -> str:
    """By kind: the share of edits in which the oracle sees the thing that was asked for, and the share in
    which it sees all others unchanged; error in grey levels on changed and other pixels.
    """
    lines, rows = [], []
    for kind in EDITS:
        pairs, noise = held_out(number, kind)
        clean, wanted = tensor_of([p.before for p in pairs]), tensor_of([p.after for p in pairs])
        made = edit(net, clean, [p.instruction for p in pairs], noise)
        pictures = [((m + 1) * 127.5 + 0.5).byte().permute(1, 2, 0).numpy() for m in made]
        done, kept = [], []
        for pair, picture in zip(pairs, pictures, strict=True):
            seen = {(s.name, s.color, s.box) for s in find(picture)}
            before, after = (
                {(t.name, t.color, t.box) for t in scene.things} for scene in (pair.before, pair.after)
            )
            done.append(
                _near(after - before, seen) and not any(_near({thing}, seen) for thing in before - after)
            )
            kept.append(_near(before & after, seen) and len(seen) <= len(after))
        different = (clean - wanted).abs().amax(1, keepdim=True) > 0.1
        error = (made - wanted).square() * 127.5**2
        changed, other = (
            (error * mask).sum() / (3 * mask.sum()).clamp(min=1) for mask in (different, ~different)
        )
        lines.append(
            f"{kind} done {np.mean(done):.2f} kept {np.mean(kept):.2f} error {changed**0.5:.1f} "
            f"{other**0.5:.1f}"
        )
        rows.append([(clean[i], made[i], wanted[i]) for i in range(min(ACROSS, number))])
    if sheet is not None:
        _sheet(rows, sheet)
    return " | ".join(lines)


def _near(
    wanted: set[tuple[str, str, tuple[int, int, int, int]]],
    seen: set[tuple[str, str, tuple[int, int, int, int]]],
) -> bool:
    """Each wanted (name, colour, box) is seen, within two pixels."""
    return all(
        any(
            name == n and color == c and all(abs(a - b) <= 2 for a, b in zip(box, other, strict=True))
            for n, c, other in seen
        )
        for name, color, box in wanted
    )


def _sheet(rows: list[list[tuple[Tensor, Tensor, Tensor]]], path: Path, zoom: int = 2) -> None:
    """A row a kind of edit: before, made, wanted under each other."""
    height, width = (side * zoom + 4 for side in rows[0][0][0].shape[1:])
    across = max(len(row) for row in rows)
    canvas = Image.new("RGB", (across * width, (3 * height + 8) * len(rows)), (250, 250, 250))
    for top, row in enumerate(rows):
        for left, pictures in enumerate(row):
            for j, picture in enumerate(pictures):
                image = Image.fromarray(((picture + 1) * 127.5 + 0.5).byte().permute(1, 2, 0).numpy())
                place = left * width, top * (3 * height + 8) + j * height
                canvas.paste(image.resize((width - 4, height - 4), Image.Resampling.NEAREST), place)
    canvas.save(path)


def main(
    out: Annotated[Path, typer.Option()],
    pairs: Annotated[int, typer.Option(help="pairs in all, with those of earlier calls")] = 330_000,
    decay: Annotated[
        float, typer.Option(help="last share of them over which the learning rate falls")
    ] = 0.33,
    batch: Annotated[int, typer.Option()] = 32,
    learning_rate: Annotated[float, typer.Option()] = 3e-3,
    every: Annotated[int, typer.Option(help="pairs between two savings")] = 4_800,
    look: Annotated[int, typer.Option(help="savings between two measurements")] = 4,
    measure: Annotated[int, typer.Option(help="held-out edits of each kind at a measurement")] = 48,
    begin: Annotated[Path | None, typer.Option(help="an exported editor to begin from")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train the editor."""
    torch.set_num_threads(threads)
    trainer = Trainer(out, batch=batch, learning_rate=learning_rate, seed=seed, begin=begin)
    meter, began, start, steps = Meter(), time.time(), trainer.done // batch, pairs // batch
    for number in range(start, steps):
        rate = (
            learning_rate
            * min(1, (number + 1 - start) / 120)
            * min(1, max((1 - number / steps) / decay, 0.02))
        )
        meter.add(**trainer.step(number, rate))
        if number % 50 == 49:
            print(
                f"{(number + 1) * batch}/{pairs} {meter} "
                f"{(number + 1 - start) * batch / (time.time() - began):.1f}/s",
                flush=True,
            )
        if (number + 1) * batch % every < batch or number == steps - 1:
            trainer.save((number + 1) * batch)
        if (number + 1) * batch % (look * every) < batch or number == steps - 1:
            raw = trainer.use_average()
            print(evaluate(trainer.net, measure, out / "sheet.png"), flush=True)
            trainer.put(raw)


if __name__ == "__main__":
    typer.run(main)
