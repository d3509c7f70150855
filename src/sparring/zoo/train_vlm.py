"""Train the bundled vision-language models: the Defender (Qwen2.5-VL) and the judge (LLaVA), each in phases.

    python -m sparring.zoo.train_vlm --player defender --pool pool --out defender --seed 0
    python -m sparring.zoo.train_vlm --player judge    --pool pool --out judge    --seed 0

drill   text alone: from what was seen to the answer's word, from the word to its letter (the letter is what comes last otherwise)
dense   vision alone: which object, of which colour, has its centre in the cell of every visual token
language  pictures and questions together, the vision tower frozen: what it says of a picture is computed once
joint   everything together
Each phase saves as it goes and continues where it stopped. The heads that predict cells are thrown away.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparring.scenes.questions import KINDS, NUMBERS, SceneQuestion, ask, reasoning, sightings
from sparring.scenes.sprites import COLORS, NAMES, placed
from sparring.scenes.world import SIZE, Scene, Thing, place, random_color
from sparring.zoo import light
from sparring.zoo.architectures import Architecture, Judge, QwenDefender
from sparring.zoo.pool import Pool
from sparring.zoo.vocabulary import COUNT_PROMPT

COLOR_LIST = list(COLORS)
FROZEN_PICTURES = 12_000
KIND_WEIGHTS = (0.32, 0.2, 0.2, 0.28)
PLAYERS: dict[str, type[Architecture]] = {"defender": QwenDefender, "judge": Judge}


def prompt(asked: SceneQuestion) -> str:
    """The text beside the picture, as the arena's recipe renders it."""
    return (
        asked.question
        + "\n"
        + "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(asked.options))
    )


def draw_question(scene: Scene, rng: np.random.Generator) -> SceneQuestion:
    """A random question that the scene allows."""
    while True:
        asked = ask(scene, KINDS[int(rng.choice(4, p=KIND_WEIGHTS))], rng)
        if asked is not None:
            return asked


def count_question(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """The judge's task: how many objects of a name there are, none in a third of the cases."""
    if rng.random() < 0.35:
        name = NAMES[int(rng.integers(len(NAMES)))]
    else:
        name = scene.things[int(rng.integers(len(scene.things)))].name
    return COUNT_PROMPT.format(name=name), f"{name} {NUMBERS[min(scene.count(name), 5)]}"


def lookup_drill(rng: np.random.Generator, words: list[str]) -> tuple[str, str]:
    """Options and several look-ups in them: word, then its letter."""
    number = int(rng.integers(2, 6))
    chosen = [words[i] for i in rng.permutation(len(words))[:number]]
    text = "\n".join(f"{chr(65 + i)}. {word}" for i, word in enumerate(chosen))
    queries = [int(i) for i in rng.integers(0, number, 8)]
    return text, ",".join(f" {chosen[i]} \\boxed{{{chr(65 + i)}}}" for i in queries)


class Batcher:
    """Turns texts into right-padded token tensors; only replies carry labels."""

    def __init__(self, net: Architecture) -> None:
        self.net, self.tokenizer = net, net.tokenizer

    def __call__(self, pairs: list[tuple[str, str]], *, pictures: bool) -> tuple[Tensor, Tensor]:
        """(prompt, reply) pairs -> tokens_BT, labels_BT (-100 where nothing is learned)."""
        heads = [self.net.chat(text, picture=pictures) for text, _ in pairs]
        ids = self.tokenizer(heads, add_special_tokens=False)["input_ids"]
        tails = self.tokenizer([reply for _, reply in pairs], add_special_tokens=False)["input_ids"]
        eos = self.tokenizer.eos_token_id
        length = max(len(a) + len(b) + 1 for a, b in zip(ids, tails, strict=True))
        tokens = torch.full((len(pairs), length), self.tokenizer.pad_token_id)
        labels = torch.full((len(pairs), length), -100)
        for row, (a, b) in enumerate(zip(ids, tails, strict=True)):
            whole = torch.tensor([*a, *b, eos])
            tokens[row, : len(whole)] = whole
            labels[row, len(a) : len(whole)] = whole[len(a) :]
        return tokens, labels


def cells(scenes: list[Scene], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dense labels for a grid of side x side visual tokens: name (0 is nothing), colour, and the 8 x 8 cell
    (column, row) of a centre.
    """
    names = torch.zeros(len(scenes), side * side, dtype=torch.long)
    colors, places = torch.zeros_like(names), torch.zeros(len(scenes), side * side, 2, dtype=torch.long)
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            x, y = thing.center
            at = min(int(y * side / SIZE), side - 1) * side + min(int(x * side / SIZE), side - 1)
            names[i, at], colors[i, at] = NAMES.index(thing.name) + 1, COLOR_LIST.index(thing.color)
            places[i, at] = torch.tensor([thing.cell[0] - 1, thing.cell[1] - 1])
    return names, colors, places


def dense_loss(
    heads: nn.ModuleDict, hidden_BNC: Tensor, labels: tuple[Tensor, Tensor, Tensor], *, within: int | None
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropies of the cell heads. `within`: predict places modulo so many cells (a vision tower knows
    no absolute place).
    """
    names, colors, places = labels
    logits = heads["name"](hidden_BNC)
    weight = torch.ones(logits.shape[-1])
    weight[0] = 0.3
    there = names > 0
    loss = F.cross_entropy(logits.flatten(0, 1), names.flatten(), weight=weight)
    color = heads["color"](hidden_BNC[there])
    loss = loss + F.cross_entropy(color, colors[there])
    where = heads["place"](hidden_BNC[there]).unflatten(-1, (2, 8))
    target = places[there] % within if within else places[there]
    loss = loss + 0.5 * F.cross_entropy(where.flatten(0, 1), target.flatten())
    metrics = {
        "name": (logits.argmax(-1)[there] == names[there]).float().mean().item(),
        "nothing": (logits.argmax(-1)[~there] == 0).float().mean().item(),
        "color": (color.argmax(-1) == colors[there]).float().mean().item(),
        "place": (where.argmax(-1) == target).float().mean().item(),
    }
    return loss, metrics


def paint(image_CHW: Tensor, thing: Thing) -> Tensor:
    """The picture, in [-1, 1], with one more thing before it."""
    rgba = (
        torch.from_numpy(
            np.asarray(placed(thing.name, thing.color, thing.size, thing.angle, thing.mirror)).copy()
        ).permute(2, 0, 1)
        / 255
    )
    x, y = thing.box[:2]
    image_CHW = image_CHW.clone()
    region = image_CHW[:, y : y + rgba.shape[1], x : x + rgba.shape[2]]
    region.mul_(1 - rgba[3:]).add_(2 * rgba[:3] - rgba[3:])
    return image_CHW


def blur(images_BCHW: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of so many pixels."""
    line = torch.exp(-torch.arange(-2, 3).float().square() / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(images_BCHW, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, kernel.expand(3, 1, 5, 5), groups=3)


def cell_heads(width: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "name": nn.Linear(width, len(NAMES) + 1),
            "color": nn.Linear(width, len(COLORS)),
            "place": nn.Linear(width, 16),
        }
    )


class Trainer:
    """One phase after another, with one saved state for all."""

    def __init__(
        self,
        net: Architecture,
        pool: Pool,
        out: Path,
        *,
        player: str,
        batch: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        self.net, self.pool, self.out, self.player = net, pool, out, player
        self.batch, self.learning_rate, self.seed = batch, learning_rate, seed
        self.batcher = Batcher(net)
        self.vision_heads, self.text_heads = cell_heads(net.width), cell_heads(net.width)
        self.words = [*NAMES, *COLORS, *NUMBERS, "left", "right", "above", "below", "yes", "no"]
        self.began = time.time()
        self.meters: dict[str, float] = {}
        self.frozen: Tensor | None = None
        out.mkdir(parents=True, exist_ok=True)

    def log(self, phase: str, step: int, steps: int, metrics: dict[str, float]) -> None:
        for key, value in metrics.items():
            old = self.meters.get(f"{phase} {key}")
            self.meters[f"{phase} {key}"] = (
                value if old is None or math.isnan(old) else 0.97 * old + 0.03 * value
            )
        if step % 50 == 49:
            shown = " ".join(
                f"{k.split(' ', 1)[1]} {v:.3f}" for k, v in self.meters.items() if k.startswith(phase)
            )
            print(f"{phase} {step + 1}/{steps} {shown} {time.time() - self.began:.0f}s", flush=True)

    def run(self, phase: str, samples: int, learning_rate: float) -> None:
        """Train one phase, or what is left of it. The rate warms up over 100 steps and falls as a cosine to a
        fiftieth.
        """
        modules = [self.net.model, self.vision_heads, self.text_heads]
        if phase == "dense":
            modules = [self.net.vision, self.vision_heads]
        elif phase == "language":
            modules = [self.net.language(), self.text_heads]
        parameters = [p for module in modules for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        done, steps = self.load(phase), samples // self.batch
        rows = self.pool.batches(self.batch, hash_seed(self.seed, phase, done))
        rng = np.random.default_rng([self.seed, len(phase), done])
        self.net.model.train()
        for step in range(done, steps):
            for group in optimizer.param_groups:
                group["lr"] = (
                    learning_rate
                    * min(1, (step + 1 - done) / 100)
                    * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
                )
            loss, metrics = getattr(self, phase)(next(rows), rng)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            self.log(phase, step, steps, {"loss": loss.item(), **metrics})
            if step % 250 == 249 or step == steps - 1:
                self.save(phase, step + 1)

    def drill(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = []
        for i, row in enumerate(rows):
            scene = self.pool.scenes[int(row)]
            if i % 4:
                pairs.append(lookup_drill(rng, self.words))
            else:
                asked = draw_question(scene, rng)
                pairs.append((prompt(asked), reasoning(scene, asked)))
        tokens, labels = self.batcher(pairs, pictures=False)
        return self.net_loss(tokens, labels, None)

    def dense(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures, scenes = self.pictures(rows, rng)
        labels = cells(scenes, self.net.side)
        return dense_loss(self.vision_heads, self.net.features(pictures), labels, within=self.within)

    def joint(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures, scenes = self.pictures(rows, rng)
        pairs = []
        for scene in scenes:
            if self.player == "judge":
                pairs.append(count_question(scene, rng))
            else:
                asked = draw_question(scene, rng)
                pairs.append((prompt(asked), reasoning(scene, asked)))
        tokens, labels = self.batcher(pairs, pictures=True)
        features, where = self.net.features(pictures), cells(scenes, self.net.side)
        loss, metrics = self.net_loss(tokens, labels, features, where)
        dense, seen = dense_loss(self.vision_heads, features, where, within=self.within)
        return loss + 0.1 * dense, {**metrics, "name": seen["name"]}

    def language(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = rows % FROZEN_PICTURES
        scenes = [self.pool.scenes[int(row)] for row in rows]
        asked = [draw_question(scene, rng) for scene in scenes]
        tokens, labels = self.batcher(
            [(prompt(q), reasoning(s, q)) for s, q in zip(scenes, asked, strict=True)], pictures=True
        )
        loss, metrics = self.net_loss(
            tokens, labels, self.frozen_features()[rows], cells(scenes, self.net.side)
        )
        looking, looked = self.net.looking_loss(tokens, self.where_to_look(scenes, asked, tokens, labels))
        return loss + 0.5 * looking, {**metrics, "looked": looked}

    def where_to_look(
        self, scenes: list[Scene], asked: list[SceneQuestion], tokens: Tensor, labels: Tensor
    ) -> list[tuple[int, int, int]]:
        """(row, place of a name in the reply, place of the visual token that shows that thing; 0 where there
        is none).
        """
        comma, side, found = self.net.tokenizer.convert_tokens_to_ids(","), self.net.side, []
        for row, (scene, question) in enumerate(zip(scenes, asked, strict=True)):
            start = int((labels[row] != -100).nonzero()[0])
            places = [start, *((tokens[row, start:] == comma).nonzero().flatten() + start + 1).tolist()]
            for at, (_, thing) in zip(places, sightings(scene, question), strict=False):
                if thing is None:
                    found.append((row, at, 0))
                else:
                    x, y = (min(int(m * side / SIZE), side - 1) for m in thing.center)
                    found.append((row, at, self.net.picture_start + y * side + x))
        return found

    def frozen_features(self) -> Tensor:
        """The visual tokens of the pool's first pictures, computed at the first call."""
        if self.frozen is None:
            count = min(FROZEN_PICTURES, len(self.pool))
            with torch.no_grad():
                parts = [
                    self.net.features(self.pool.images(np.arange(i, min(i + 128, count))))
                    for i in range(0, count, 128)
                ]
            self.frozen = torch.cat(parts)
            print(f"{count} pictures seen, {time.time() - self.began:.0f}s", flush=True)
        return self.frozen

    @property
    def within(self) -> int | None:
        """A Qwen2.5-VL tower knows no absolute place, only where in its cell an object lies; a CLIP tower has
        embedded positions.
        """
        return 8 // self.net.side if self.net.side < 8 else None

    def pictures(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, list[Scene]]:
        """Pictures in [-1, 1] and what they show. The judge sees what it will have to judge: one more object
        in most of them, often a bit blurred, noisy and in another light, as an editor paints. The Defender
        sees clean scenes alone: it is the game that hardens it.
        """
        images, scenes = self.pool.images(rows), [self.pool.scenes[int(row)] for row in rows]
        if self.player == "defender":
            return images, scenes
        for i, scene in enumerate(scenes):
            if rng.random() < 0.7:
                name = scene.things[0].name if rng.random() < 0.4 else NAMES[int(rng.integers(len(NAMES)))]
                thing = place(rng, name, random_color(rng), [t.box for t in scene.things], sizes=(14, 26))
                if thing is not None:
                    images[i], scenes[i] = paint(images[i], thing), scene.with_thing(thing)
            if rng.random() < 0.5:
                images[i] = blur(images[i][None], float(rng.uniform(0.3, 0.9)))[0]
            if rng.random() < 0.7:
                gains = torch.tensor(light.drift(rng, 0.2, 0.06), dtype=torch.float32)[:, None, None]
                images[i] = ((images[i] + 1) * gains - 1).clamp(-1, 1)
        noise = torch.from_numpy(rng.normal(0, 1, tuple(images.shape)).astype(np.float32))
        return images + noise * torch.from_numpy(
            rng.uniform(0, 0.06, (len(rows), 1, 1, 1)).astype(np.float32)
        ), scenes

    def net_loss(
        self,
        tokens: Tensor,
        labels: Tensor,
        features: Tensor | None,
        where: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Next-token loss on replies; accuracies of all tokens, of letters and of the words before them."""
        middle_BTC, hidden_BTC = self.net.hidden(tokens[:, :-1], features)
        targets = labels[:, 1:]
        chosen = targets != -100
        logits = self.net.logits(hidden_BTC[chosen])
        wanted = targets[chosen]
        loss = F.cross_entropy(logits, wanted)
        metrics = {"ce": loss.item()}
        right = logits.argmax(-1) == wanted
        opening = self.net.tokenizer.convert_tokens_to_ids(" \\boxed{")
        letters = (tokens[:, :-1] == opening)[chosen]
        metrics["tokens"] = right.float().mean().item()
        if bool(letters.any()):
            metrics["letter"] = right[letters].float().mean().item()
            words = (targets == opening)[chosen].roll(-1)
            metrics["word"] = right[words].float().mean().item()
        if where is not None:
            seen = middle_BTC[:, self.net.picture_start : self.net.picture_start + self.net.side**2]
            dense, at = dense_loss(self.text_heads, seen, where, within=None)
            metrics["place"] = at["place"]
            loss = loss + 0.2 * dense
        return loss, metrics

    def save(self, phase: str, step: int) -> None:
        self.net.save(self.out)
        heads = {
            f"{kind}.{k}": v
            for kind in ("vision", "text")
            for k, v in getattr(self, f"{kind}_heads").state_dict().items()
        }
        save_file(heads, self.out / "heads.safetensors")
        (self.out / "progress.json").write_text(json.dumps({"phase": phase, "step": step}))

    def load(self, phase: str) -> int:
        """Load the last saved state, whatever phase it is from; returns the steps already done of `phase`."""
        if not (self.out / "progress.json").exists():
            return 0
        progress: dict[str, Any] = json.loads((self.out / "progress.json").read_text())
        self.net.load(self.out)
        heads = load_file(self.out / "heads.safetensors")
        for kind in ("vision", "text"):
            getattr(self, f"{kind}_heads").load_state_dict(
                {k.removeprefix(f"{kind}."): v for k, v in heads.items() if k.startswith(kind)}
            )
        order = ("drill", "dense", "joint", "language")
        if order.index(progress["phase"]) > order.index(phase):
            return 10**9
        return int(progress["step"]) if progress["phase"] == phase else 0


def hash_seed(seed: int, phase: str, step: int) -> int:
    return seed * 1_000_003 + len(phase) * 1009 + step


def main(
    player: Annotated[str, typer.Option(help="defender or judge")],
    pool: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    drill: Annotated[int, typer.Option(help="text-only samples")] = 40_000,
    dense: Annotated[int, typer.Option(help="pictures for the vision tower alone")] = 90_000,
    joint: Annotated[int, typer.Option(help="pictures with questions")] = 70_400,
    language: Annotated[int, typer.Option(help="pictures with questions, vision frozen")] = 64_000,
    batch: Annotated[int, typer.Option()] = 64,
    learning_rate: Annotated[float, typer.Option()] = 1.5e-3,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train one of the bundled vision-language models."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    net = PLAYERS[player]()
    trainer = Trainer(
        net, Pool(pool), out, player=player, batch=batch, learning_rate=learning_rate, seed=seed
    )
    for phase, samples in (("drill", drill), ("dense", dense), ("joint", joint), ("language", language)):
        if samples:
            trainer.run(phase, samples, learning_rate)


if __name__ == "__main__":
    typer.run(main)
