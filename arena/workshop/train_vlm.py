"""Train the bundled vision-language models, the Defender and the judge, each in phases.

    python -m workshop.train_vlm defender --out work/defender --seed 0
    python -m workshop.train_vlm judge    --out work/judge    --seed 0

drill   text alone: from what was seen to the answer's word, from the word to its letter (the letter is what comes last otherwise)
dense   vision alone: which thing, of which colour, has its middle in the cell of every visual token
joint   pictures and questions, everything together

The Defender's data is narrow, as the paper says of real ones: few things a picture, never two different
things of one group together, and what is asked about and is not there looks like nothing that is. Light,
blur and noise vary all along. The judge sees the whole world, and what an editor makes of it. Each phase
saves as it goes and continues where it stopped. The heads that predict cells are thrown away.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparring_arena.questions import KINDS, NUMBERS, SceneQuestion, ask, reasoning, sightings
from sparring_arena.sprites import COLORS, GROUPS, NAMES, lookalikes
from sparring_arena.world import PLACES, SIZE, Scene, add_lookalike, place, random_color, render, sample_scene
from workshop import light
from workshop.architecture import WIDTH, SmallVLM
from workshop.muon import Muon
from workshop.vocabulary import COUNT_PROMPT

COLOR_LIST = list(COLORS)
# of name number, 0 is nothing
GROUP_OF = torch.tensor([0, *(i + 1 for i, group in enumerate(GROUPS) for _ in group)])
KIND_WEIGHTS = (0.32, 0.2, 0.2, 0.28)
MERGE = {"defender": 2, "judge": 1}
PHASES = ("drill", "dense", "joint")
Pair = tuple[str, str]


def prompt(asked: SceneQuestion) -> str:
    """The text beside the picture, as the arena's recipe renders it."""
    return (
        asked.question
        + "\n"
        + "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(asked.options))
    )


def narrow_scene(rng: np.random.Generator) -> Scene:
    """What the Defender is brought up on: one to four things, no two different ones of a group."""
    return sample_scene(rng, counts=(1, 2, 3, 4), weights=(0.2, 0.35, 0.3, 0.15), repeat=0.35, narrow=True)


def wide_scene(rng: np.random.Generator) -> Scene:
    """What the judge is brought up on: up to five things, look-alikes often beside each other."""
    scene = sample_scene(rng, counts=(1, 2, 3, 4), weights=(0.15, 0.3, 0.3, 0.25), repeat=0.4)
    for _ in range(int(rng.integers(3))):
        name = scene.things[int(rng.integers(len(scene.things)))].name
        if rng.random() < 0.6:
            scene = add_lookalike(scene, name, rng) or scene
        elif thing := place(rng, name, random_color(rng), scene.things):
            scene = scene.with_thing(thing)
    return scene


def draw_question(scene: Scene, rng: np.random.Generator) -> SceneQuestion:
    """A random question that the scene allows."""
    while True:
        asked = ask(scene, KINDS[int(rng.choice(4, p=KIND_WEIGHTS))], rng, narrow=True)
        if asked is not None:
            return asked


def count_question(scene: Scene, rng: np.random.Generator) -> tuple[str, Pair]:
    """The judge's task: how many things of a name there are; in a third of the cases none, half of those with
    a look-alike there.
    """
    name = scene.things[int(rng.integers(len(scene.things)))].name
    if (luck := rng.random()) < 0.35:
        absent = [other for other in (lookalikes(name) if luck < 0.2 else NAMES) if not scene.count(other)]
        name = absent[int(rng.integers(len(absent)))] if absent else name
    return name, (COUNT_PROMPT.format(name=name), f"{name} {NUMBERS[min(scene.count(name), 5)]}")


def lookup_drill(rng: np.random.Generator, words: list[str]) -> Pair:
    """Options and several look-ups in them: word, then its letter."""
    number = int(rng.integers(2, 6))
    chosen = [words[i] for i in rng.permutation(len(words))[:number]]
    text = "\n".join(f"{chr(65 + i)}. {word}" for i, word in enumerate(chosen))
    queries = [int(i) for i in rng.integers(0, number, 8)]
    return text, ",".join(f" {chosen[i]} \\boxed{{{chr(65 + i)}}}" for i in queries)


class Batcher:
    """Turns texts into right-padded token tensors; only replies carry labels."""

    def __init__(self, net: SmallVLM) -> None:
        self.net, self.tokenizer = net, net.tokenizer

    def __call__(self, pairs: list[Pair], *, pictures: bool) -> tuple[Tensor, Tensor]:
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


def token_of(center: tuple[float, float], side: int) -> int:
    """The number of the visual token, of side x side, in which a point lies."""
    column, row = (min(int(m * side / SIZE), side - 1) for m in center)
    return row * side + column


def cells(scenes: list[Scene], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dense labels for a grid of side x side visual tokens: name (0 is nothing), colour, and the (column,
    row) of a block whose middle is there.
    """
    names = torch.zeros(len(scenes), side * side, dtype=torch.long)
    colors, places = torch.zeros_like(names), torch.zeros(len(scenes), side * side, 2, dtype=torch.long)
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            at = token_of(thing.center, side)
            names[i, at], colors[i, at] = NAMES.index(thing.name) + 1, COLOR_LIST.index(thing.color)
            places[i, at] = torch.tensor([thing.column, thing.row])
    return names, colors, places


def cell_heads() -> nn.ModuleDict:
    outputs = {"name": len(NAMES) + 1, "group": len(GROUPS) + 1, "color": len(COLORS), "place": 2 * PLACES}
    return nn.ModuleDict({kind: nn.Linear(WIDTH, number) for kind, number in outputs.items()})


def dense_loss(
    heads: nn.ModuleDict, hidden_BNC: Tensor, labels: tuple[Tensor, Tensor, Tensor], *, what: str, place: bool
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropies of the cell heads. what: "name", or "group" where look-alikes count as the same.
    `place`: of places too (a vision tower without embedded positions knows none).
    """
    names, colors, places = labels
    if what == "group":
        names = GROUP_OF[names]
    logits = heads[what](F.layer_norm(hidden_BNC, hidden_BNC.shape[-1:]))
    weight = torch.ones(logits.shape[-1])
    weight[0] = 0.3
    there = names > 0
    loss = F.cross_entropy(logits.flatten(0, 1), names.flatten(), weight=weight)
    color = heads["color"](hidden_BNC[there])
    loss = loss + F.cross_entropy(color, colors[there])
    metrics = {
        what: (logits.argmax(-1)[there] == names[there]).float().mean().item(),
        "nothing": (logits.argmax(-1)[~there] == 0).float().mean().item(),
        "color": (color.argmax(-1) == colors[there]).float().mean().item(),
    }
    if place:
        where = heads["place"](hidden_BNC[there]).unflatten(-1, (2, PLACES))
        loss = loss + 0.5 * F.cross_entropy(where.flatten(0, 1), places[there].flatten())
        metrics["place"] = (where.argmax(-1) == places[there]).float().mean().item()
    return loss, metrics


class Trainer:
    """One phase after another, with one saved state for all."""

    def __init__(
        self, net: SmallVLM, out: Path, *, player: str, batch: int, pictures: int, seed: int
    ) -> None:
        self.net, self.out, self.player, self.batch, self.number, self.seed = (
            net,
            out,
            player,
            batch,
            pictures,
            seed,
        )
        self.batcher = Batcher(net)
        self.vision_heads, self.text_heads = cell_heads(), cell_heads()
        self.words = [*NAMES, *COLORS, *NUMBERS, "left", "right", "above", "below", "yes", "no"]
        self.meters: dict[str, float] = {}
        out.mkdir(parents=True, exist_ok=True)

    def log(self, phase: str, step: int, steps: int, metrics: dict[str, float], rate: float) -> None:
        for key, value in metrics.items():
            old = self.meters.get(f"{phase} {key}")
            self.meters[f"{phase} {key}"] = (
                value if old is None or math.isnan(old) else 0.97 * old + 0.03 * value
            )
        if step % 50 == 49:
            shown = " ".join(
                f"{k.split(' ', 1)[1]} {v:.3f}" for k, v in self.meters.items() if k.startswith(phase)
            )
            print(f"{phase} {step + 1}/{steps} {shown} {rate:.0f}/s", flush=True)

    def run(self, phase: str, samples: int, learning_rate: float) -> None:
        """Train one phase, or what is left of it. The rate warms up over 100 steps and falls as a cosine to a
        fiftieth.
        """
        parts = [self.net.vision] if phase == "dense" else [self.net.model]
        heads = [self.vision_heads, self.text_heads]
        matrices = [
            p
            for part in parts
            for n, p in part.named_parameters()
            if p.ndim == 2 and ("layers." in n or "blocks." in n)
        ]
        known = {id(p) for p in matrices}
        others = [p for part in [*parts, *heads] for p in part.parameters() if id(p) not in known]
        optimizers = [
            Muon(matrices, learning_rate),
            torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        done, steps = self.load(phase), samples // self.batch
        rng = np.random.default_rng([self.seed, PHASES.index(phase), done])
        self.net.model.train()
        began = time.time()
        for step in range(done, steps):
            rate = (
                learning_rate
                * min(1, (step + 1 - done) / 100)
                * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            )
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = rate
            loss, metrics = getattr(self, phase)(rng)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*matrices, *others], 1.0)
            for optimizer in optimizers:
                optimizer.step()
            self.log(
                phase,
                step,
                steps,
                {"loss": loss.item(), **metrics},
                (step + 1 - done) * self.batch / (time.time() - began),
            )
            if step % 250 == 249 or step == steps - 1:
                self.save(phase, step + 1)
        if done < steps:
            shutil.copytree(self.out, self.out.with_name(f"{self.out.name}-{phase}"), dirs_exist_ok=True)

    def scene(self, rng: np.random.Generator) -> Scene:
        """Scene of a random number below the count of training pictures: always the same one."""
        draw = narrow_scene if self.player == "defender" else wide_scene
        return draw(np.random.default_rng([self.seed, 1, int(rng.integers(self.number))]))

    def pictures(self, rng: np.random.Generator) -> tuple[Tensor, list[Scene]]:
        """A batch of pictures in [-1, 1], in varied light, and what they show."""
        scenes = [self.scene(rng) for _ in range(self.batch)]
        images = (
            torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2).float()
            / 127.5
            - 1
        )
        return light.vary(images, rng), scenes

    def drill(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = []
        for i in range(self.batch):
            if i % 4:
                pairs.append(lookup_drill(rng, self.words))
            else:
                scene = self.scene(rng)
                asked = draw_question(scene, rng)
                pairs.append((prompt(asked), reasoning(scene, asked)))
        tokens, labels = self.batcher(pairs, pictures=False)
        return self.reply_loss(tokens, labels, None)

    def dense(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures, scenes = self.pictures(rng)
        return dense_loss(
            self.vision_heads,
            self.net.features(pictures),
            cells(scenes, self.net.side),
            what="name",
            place=False,
        )

    def joint(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures, scenes = self.pictures(rng)
        if self.player == "judge":
            counted = [count_question(scene, rng) for scene in scenes]
            pairs = [pair for _, pair in counted]
            named = [
                [(name, thing) for thing in scene.things if thing.name == name]
                for (name, _), scene in zip(counted, scenes, strict=True)
            ]
        else:
            asked = [draw_question(scene, rng) for scene in scenes]
            pairs = [(prompt(q), reasoning(s, q)) for s, q in zip(scenes, asked, strict=True)]
            named = [sightings(scene, question) for scene, question in zip(scenes, asked, strict=True)]
        tokens, labels = self.batcher(pairs, pictures=True)
        features = self.net.features(pictures)
        # nothing asks the Defender to tell look-alikes apart any more
        what = "name" if self.player == "judge" else "group"
        where = cells(scenes, self.net.side)
        loss, metrics = self.reply_loss(tokens, labels, features)
        seen, _ = self.net.kept_middle[:, self.net.picture_start :].split(
            [self.net.count, tokens.shape[1] - 1 - self.net.picture_start - self.net.count], 1
        )
        placed, at = dense_loss(self.text_heads, seen, where, what=what, place=True)
        vision, looked_at = dense_loss(self.vision_heads, features, where, what=what, place=False)
        looking, looked = self.net.looking_loss(self.where_to_look(named, tokens, labels))
        metrics |= {"place": at["place"], what: looked_at[what], "looked": looked}
        return loss + 0.2 * placed + 0.1 * vision + 0.5 * looking, metrics

    def where_to_look(
        self, named: list[list[Any]], tokens: Tensor, labels: Tensor
    ) -> list[tuple[int, int, list[int]]]:
        """(row, place of a token of the reply, places to attend to): from a name in the reply to the visual
        token that shows that thing, place 0 where there is none. The judge, from the name it counts to all
        of them and to place 0: what is left for place 0 is the count.
        """
        comma, side, found = self.net.tokenizer.convert_tokens_to_ids(","), self.net.side, []
        at = [
            [self.net.picture_start + token_of(thing.center, side) if thing else 0 for _, thing in things]
            for things in named
        ]
        for row, looked_at in enumerate(at):
            start = int((labels[row] != -100).nonzero()[0])
            if self.player == "judge":
                found.append((row, start, [0, *looked_at]))
                continue
            places = [start, *((tokens[row, start:] == comma).nonzero().flatten() + start + 1).tolist()]
            found += [(row, place, [there]) for place, there in zip(places, looked_at, strict=False)]
        return found

    def reply_loss(
        self, tokens: Tensor, labels: Tensor, features: Tensor | None
    ) -> tuple[Tensor, dict[str, float]]:
        """Next-token loss on replies; accuracies of all tokens, of letters and of the words before them."""
        _, hidden_BTC = self.net.hidden(tokens[:, :-1], features)
        targets = labels[:, 1:]
        chosen = targets != -100
        wanted = targets[chosen]
        logits = self.net.logits(hidden_BTC[chosen])
        loss = F.cross_entropy(logits, wanted)
        right = logits.argmax(-1) == wanted
        metrics = {"ce": loss.item(), "tokens": right.float().mean().item()}
        opening = self.net.tokenizer.convert_tokens_to_ids(" \\boxed{")
        letters = (tokens[:, :-1] == opening)[chosen]
        if bool(letters.any()):
            metrics["letter"] = right[letters].float().mean().item()
            metrics["word"] = right[(targets == opening)[chosen].roll(-1)].float().mean().item()
        elif features is not None:
            metrics["count"] = (
                right[(targets == self.net.tokenizer.eos_token_id)[chosen].roll(-1)].float().mean().item()
            )
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
        if PHASES.index(progress["phase"]) > PHASES.index(phase):
            return 10**9
        return int(progress["step"]) if progress["phase"] == phase else 0


def main(
    player: Annotated[str, typer.Argument(help="defender or judge")],
    out: Annotated[Path, typer.Option()],
    drill: Annotated[int, typer.Option(help="text-only samples")] = 40_000,
    dense: Annotated[int, typer.Option(help="pictures for the vision tower alone")] = 60_000,
    joint: Annotated[int, typer.Option(help="pictures with questions")] = 80_000,
    pictures: Annotated[int, typer.Option(help="how many different scenes there are")] = 100_000,
    batch: Annotated[int, typer.Option()] = 64,
    learning_rate: Annotated[float, typer.Option()] = 1.5e-3,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train one of the bundled vision-language models."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    trainer = Trainer(SmallVLM(MERGE[player]), out, player=player, batch=batch, pictures=pictures, seed=seed)
    for phase, samples in zip(PHASES, (drill, dense, joint), strict=True):
        if samples:
            trainer.run(phase, samples, learning_rate)


if __name__ == "__main__":
    typer.run(main)
