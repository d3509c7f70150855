"""Valid attack success against wall time: the Attacker's algorithms against the frozen base Defender, on the
bundled players.

python benchmarks/attack_progress.py [--algorithms flow_grpo flow_grpo_fast diffusion_nft awm] [--seeds 3]
[--steps 40] [--every 5]
                                     [--held-out 128] [--out runs/attack_progress] [--results
                                     benchmarks/results]

Every seed is a game of the arena recipe, with the bootstrap Attacker as the common start; an algorithm is a
stage of it, and its reward is the game's own. Before the first update and after every few, the editor's
deterministic edits of held-out pictures are gated, audited and put to the Defender: valid attack success is
the share of items, right when clean, that are answered wrong on an accepted edit whose right answer is still
right. Time is processor time, of the updates alone. A run that is stopped and started again goes on from its
last measurement; more --steps lengthen it: the learning rate is constant, so that a curve does not depend on
where it ends. Prints one JSON line an algorithm; the curves are written to `attack_progress.json` and
`attack_progress.png` in --results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sparring.asking.questions import ask
from sparring.attackers.rollout import deterministic_edits, sample_seed
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, Recipe
from sparring.data.images import pictures_of
from sparring.data.records import Verdict, VisualQuestion
from sparring.engine.files import write_json
from sparring.engine.screen import Screen
from sparring.measures.payoff import CLEAN, Opponent, attack_report, play_off
from sparring.recipes.load import load_recipe
from sparring.report.axes import ticks
from sparring.selfplay.bootstrap import bootstrap
from sparring.selfplay.game import Game
from sparring.selfplay.loop import open_game
from sparring.selfplay.phases import pair
from sparring.selfplay.turns import FrozenOpponent, answers_when_clean, right_when_clean

Point = dict[str, float]
ALGORITHMS: dict[str, dict[str, Any]] = {
    "flow_grpo": {"type": "flow_grpo", "window": {"size": None}},
    "flow_grpo_fast": {"type": "flow_grpo", "sampler": "cps", "window": {"size": 1, "shared_start": True}},
    "diffusion_nft": {"type": "diffusion_nft", "forward_timesteps": 1},
    "awm": {"type": "awm", "forward_timesteps": 1},
}
NAMES = {
    "flow_grpo": "Flow-GRPO",
    "flow_grpo_fast": "Flow-GRPO-Fast",
    "diffusion_nft": "DiffusionNFT",
    "awm": "AWM",
}
COLOURS = {"flow_grpo": "#b3541e", "flow_grpo_fast": "#c79a1b", "diffusion_nft": "#0f6f78", "awm": "#5b4b9a"}


def recipe_of(seed: int) -> Recipe:
    """The arena, with enough questions that the base Defender gets right when clean for a long training."""
    return load_recipe("arena", [f"seed={seed}", "threads=1", "selfplay.curriculum.questions=600"])


def settings_of(algorithm: str, recipe: Recipe, changes: Sequence[str]) -> AttackerSettings:
    """The arena's Attacker with another algorithm, a constant learning rate and the base Defender as its only
    opponent.
    """
    given: dict[str, Any] = dict(change.split("=", 1) for change in changes)
    common = {"learning_rate_end": 1.0, "past_share": 0.0, "algorithm": ALGORITHMS[algorithm]}
    return AttackerSettings.model_validate(recipe.attacker.model_dump() | common | given)


@dataclass
class Examiner:
    """Held-out pictures, and what the base Defender makes of an editor's edits of them."""

    game: Game
    opponent: FrozenOpponent
    questions: list[VisualQuestion]

    def __post_init__(self) -> None:
        self.images = pictures_of(self.questions)
        self.right_when_clean = [
            answer.right for answer in self._ask(range(len(self.questions)), self.images)
        ]

    def _ask(self, which: Sequence[int], images: Sequence[Image.Image]) -> list[Any]:
        game, asked = self.game, [self.questions[i] for i in which]
        return ask(
            game.league.defender("base"),
            asked,
            images,
            game.recipe.defender,
            temperature=0.0,
            seed=game.seed("evaluation"),
        )

    def measure(self, trainer: AttackerTrainer) -> Point:
        """valid_asr, accepted_rate and label_valid_rate of the editor as it is."""
        game, settings, questions = self.game, trainer.settings, self.questions
        edits = deterministic_edits(
            trainer.editor,
            self.images,
            [game.instruction(question) for question in questions],
            [game.seed("evaluation", question.id) for question in questions],
            steps=settings.evaluation_steps,
            guidance=settings.guidance_scale,
            batch=settings.micro_batch,
        )
        gates = [
            gate for (gate,) in self.opponent.judge.gate(questions, self.images, [[edit] for edit in edits])
        ]
        accepted = [i for i, gate in enumerate(gates) if gate.accepted]
        words = dict(
            zip(
                accepted,
                game.auditor.audit([questions[i] for i in accepted], [edits[i] for i in accepted]),
                strict=True,
            )
        )
        verdicts = tuple(
            Verdict(
                question.id, gate.integrity, gate.intact, gate.duplicate, 0.0, 0.0, label_valid=words.get(i)
            )
            for i, (question, gate) in enumerate(zip(questions, gates, strict=True))
        )
        answers = (
            dict(zip(accepted, self._ask(accepted, [edits[i] for i in accepted]), strict=True))
            if accepted
            else {}
        )
        right = {
            ("base", CLEAN): self.right_when_clean,
            ("base", "edits"): [answers[i].right if i in answers else None for i in range(len(questions))],
        }
        payoff = play_off(
            ["base"],
            [Opponent(CLEAN), Opponent("edits", verdicts)],
            right,
            [question.id for question in questions],
        )
        report = attack_report(payoff, attacker="edits", defender="base")
        return {
            name: getattr(report, name).value or 0.0
            for name in ("valid_asr", "accepted_rate", "label_valid_rate")
        }


def learn(game: Game, algorithm: str, options: argparse.Namespace) -> list[Point]:
    """The curve of one algorithm in one game: points {update, seconds, valid_asr, ...}. Goes on from where an
    earlier call was cut off.
    """
    stage = game.stage(f"progress/{algorithm}")
    stage.begin(resumes=True)
    settings, curve = settings_of(algorithm, game.recipe, options.set), stage.folder / "curve.json"
    trainer = AttackerTrainer(
        game.league.attacker("bootstrap", keep=False), settings, seed := game.seed(stage.name)
    )
    done = stage.load_state(trainer)
    game.ledger.forget(stage.name, done)
    written: dict[str, Any] = (
        json.loads(curve.read_text(encoding="utf-8"))
        if curve.is_file()
        else {"settings": settings.model_dump()}
    )
    if written["settings"] != settings.model_dump():
        raise SystemExit(
            f"{stage.folder} holds a run with other settings of {algorithm}. Choose another folder with "
            f"--out."
        )
    points: list[Point] = [point for point in written.get("points", []) if point["update"] <= done]
    questions = right_when_clean(game, 0)
    opponent = FrozenOpponent(game, stage.name, 0, answers_when_clean(game, 0))
    examiner = Examiner(game, opponent, game.held_out[: options.held_out])
    seconds = points[-1]["seconds"] if points else 0.0

    def keep(update: int) -> None:
        points.append({"update": update, "seconds": round(seconds, 2), **examiner.measure(trainer)})
        write_json(curve, {"settings": settings.model_dump(), "points": points})
        if update:
            stage.save_state(trainer, update)
        print(f"{NAMES[algorithm]}, seed {game.recipe.seed}: {points[-1]}", file=sys.stderr)

    if not points:
        keep(0)
    for step in range(done, options.steps):
        chosen = pair({0: questions}, 0, settings, step, seed)[0]
        images = pictures_of(chosen)

        def reward(
            edits: list[list[Image.Image]],
            chosen: list[VisualQuestion] = chosen,
            images: list[Image.Image] = images,
            step: int = step,
        ) -> Tensor:
            faced = opponent.face(
                algorithm,
                chosen,
                images,
                edits,
                seed_of=lambda question, sample: sample_seed(seed, step, question.id, sample),
                step=step,
            )
            faced.record(game.ledger, stage.name, step)
            return torch.tensor([[verdict.reward for verdict in own] for own in faced.verdicts])

        began = time.process_time()
        metrics = trainer.update(chosen, images, reward, step)
        seconds += time.process_time() - began
        game.ledger.record_update(stage.name, step, metrics)
        if (step + 1) % options.every == 0 or step + 1 == options.steps:
            keep(step + 1)
    return points


def averaged(curves: Sequence[list[Point]]) -> list[Point]:
    """The mean over seeds, at the updates that all of them were measured at."""
    shared = sorted(set.intersection(*({point["update"] for point in curve} for curve in curves)))
    by_update = [{point["update"]: point for point in curve} for curve in curves]
    names = ("seconds", "valid_asr", "accepted_rate", "label_valid_rate")
    return [
        {"update": u, **{name: sum(own[u][name] for own in by_update) / len(by_update) for name in names}}
        for u in shared
    ]


def draw(curves: dict[str, list[list[Point]]], path: Path) -> None:
    """Valid attack success against seconds: the mean of an algorithm's seeds as a thick line, the seeds as
    thin ones.
    """
    width, height, left, right, top, bottom = 1000, 560, 80, 190, 50, 70
    points = [point for own in curves.values() for curve in own for point in curve]
    x_most, y_most = (
        max(p["seconds"] for p in points) or 1.0,
        max(0.05, 1.08 * max(p["valid_asr"] for p in points)),
    )
    canvas = Image.new("RGB", (width, height), "#fbfaf7")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)

    def place(point: Point) -> tuple[float, float]:
        across = left + (width - left - right) * point["seconds"] / x_most
        return across, height - bottom - (height - top - bottom) * point["valid_asr"] / y_most

    for value in ticks(0.0, y_most):
        _, y = place({"seconds": 0.0, "valid_asr": value})
        pen.line((left, y, width - right, y), "#dedbd2")
        pen.text((left - 10, y), f"{value:.0%}" if y_most > 0.1 else f"{value:.1%}", "#63676b", font, "rm")
    for value in ticks(0.0, x_most, 6):
        x, y = place({"seconds": value, "valid_asr": 0.0})
        pen.text((x, y + 10), f"{value:g}", "#63676b", font, "mt")
    pen.text(
        ((left + width - right) / 2, height - 16),
        "processor seconds of updates, one thread",
        "#1b1d1f",
        font,
        "mb",
    )
    pen.text(
        (left, 16), "valid attack success on held-out pictures, frozen base Defender", "#1b1d1f", font, "lt"
    )
    names: list[float] = []
    means = {algorithm: averaged(own) for algorithm, own in curves.items()}
    for algorithm in sorted(means, key=lambda name: place(means[name][-1])[1]):
        colour = COLOURS[algorithm]
        for curve in curves[algorithm]:
            pen.line(
                [place(point) for point in curve],
                Image.blend(
                    Image.new("RGB", (1, 1), colour), Image.new("RGB", (1, 1), "#fbfaf7"), 0.65
                ).getpixel((0, 0)),
                1,
            )
        pen.line([place(point) for point in means[algorithm]], colour, 4, joint="curve")
        names.append(max(place(means[algorithm][-1])[1], names[-1] + 20 if names else 0.0))
        pen.text((width - right + 12, names[-1]), NAMES[algorithm], colour, font, "lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, "PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algorithms", nargs="+", choices=sorted(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=3, help="games, with seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=40, help="updates")
    parser.add_argument(
        "--every",
        type=int,
        default=5,
        help="updates between measurements, which are also what a stop can cost",
    )
    parser.add_argument("--held-out", type=int, default=128, help="held-out questions in a measurement")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        help="settings of the Attacker for all algorithms, such as learning_rate=1e-3",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/attack_progress"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    curves: dict[str, list[list[Point]]] = {algorithm: [] for algorithm in options.algorithms}
    for seed in range(options.seeds):
        with open_game(recipe_of(seed), options.out / f"seed{seed}", Screen()) as game:
            bootstrap(game)
            for algorithm in options.algorithms:
                curves[algorithm].append(learn(game, algorithm, options))
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / "attack_progress.json", {"held_out": options.held_out, "curves": curves})
    draw(curves, options.results / "attack_progress.png")
    for algorithm, own in curves.items():
        mean = averaged(own)
        case = {
            "algorithm": NAMES[algorithm],
            "seeds": options.seeds,
            "updates": int(mean[-1]["update"]),
            "held_out": options.held_out,
        }
        figures = {
            "start": round(mean[0]["valid_asr"], 4),
            "ours": round(mean[-1]["valid_asr"], 4),
            "seconds": round(mean[-1]["seconds"], 1),
        }
        print(
            json.dumps(
                {"benchmark": "valid attack success against wall time", "case": case}
                | figures
                | {"unit": "valid ASR, mean of seeds"}
            )
        )


if __name__ == "__main__":
    main()
