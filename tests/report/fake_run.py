"""A run's folder as a game would leave it, without a game: pictures and questions are real scenes, the
players are dice.

Everything goes through the real Ledger and Stage, and the figures of `summary.json` are computed by the real
evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from sparring.data.pixels import sharpness_ratio
from sparring.data.records import Answer, Edit, Target, Verdict, VisualQuestion
from sparring.engine.files import write_json
from sparring.engine.ledger import Ledger
from sparring.engine.stages import Stage
from sparring.judging.kinds import KINDS as KINDS_OF_EDIT
from sparring.measures.payoff import Opponent, Payoff, attack_report, gains, play_off
from sparring.measures.statistics import rate
from sparring_arena.questions import KINDS, ask
from sparring_arena.sprites import NAMES
from sparring_arena.world import Scene, place, random_color, render, sample_scene

RECIPE: dict[str, Any] = {
    "name": "arena",
    "description": "A made-up run for developing the report.",
    "seed": 0,
    "data": {"held_out": 48},
    "attacker": {"model": "arena/editor", "algorithm": {"type": "diffusion_nft", "beta": 0.1}, "steps": 30},
    "defender": {
        "model": "arena/defender",
        "algorithm": {"type": "dapo"},
        "steps": 30,
        "prompt": "{question}\n{options}",
    },
    "selfplay": {"rounds": 3},
}
CLEAN_ACCURACY = 0.92


class FakeRun:
    """Writes a run step by step, so that one can stop anywhere."""

    def __init__(
        self, out: Path, *, held_out: int = 48, rounds: int = 3, steps: int = 30, seed: int = 0
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.rounds, self.steps = out.resolve(), rounds, steps
        self.rng = np.random.default_rng(seed)
        (out / "recipe.yaml").write_text(
            yaml.safe_dump(RECIPE | {"selfplay": {"rounds": rounds}}, sort_keys=False), encoding="utf-8"
        )
        self.ledger = Ledger(self.out)
        self.scenes: dict[str, Scene] = {}
        self.questions = [self._question(i) for i in range(held_out)]
        self.suffix = ""  # ends every reply
        self.right: dict[tuple[str, str], list[bool | None]] = {}
        self.verdicts: dict[str, list[Verdict]] = {}
        self.kinds: dict[str, dict[str, str]] = {}
        self.dice = np.random.default_rng(seed + 1)

    def _question(self, number: int) -> VisualQuestion:
        while True:
            scene = sample_scene(self.rng)
            asked = ask(scene, KINDS[number % len(KINDS)], self.rng)
            if asked is not None:
                break
        path = self.out / "data" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render(scene)).save(path)
        name = f"held-{number}"
        self.scenes[name] = scene
        targets = tuple(Target(thing.name, thing.box) for thing in asked.about)
        return VisualQuestion(
            name, path, asked.question, asked.options, "ABCDEFGH"[asked.right], targets, asked.kind
        )

    def data(self) -> None:
        self.ledger.record_questions("held_out", self.questions)
        self.done("data", {"files": ["train.jsonl", "held_out.jsonl"]})

    def done(self, name: str, result: dict[str, Any]) -> None:
        stage = Stage(self.out, name, self.ledger)
        stage.begin()
        stage.finish(result)

    def train(
        self,
        stage: str,
        *,
        metrics: tuple[str, ...],
        steps: int | None = None,
        finish: bool = True,
        **result: Any,
    ) -> None:
        """A phase with noisy rising rewards. Its result is what a phase of the game reports."""
        steps = self.steps if steps is None else steps
        handle = Stage(self.out, stage, self.ledger)
        handle.begin()
        for step in range(steps):
            along = step / max(1, self.steps - 1)
            values = {
                "reward_mean": 0.25 + 0.4 * along**0.6 + self.rng.normal(0, 0.03),
                "reward_std": 0.3 + self.rng.normal(0, 0.02),
                "intact": 0.93 - 0.05 * along + self.rng.normal(0, 0.02),
                "accepted": 0.85 - 0.05 * along + self.rng.normal(0, 0.02),
                "fooled": 0.08 + 0.35 * along + self.rng.normal(0, 0.03),
                "dead_groups": 0.2 * (1 - along),
                "loss": 0.02 * (1 - 0.6 * along) + self.rng.normal(0, 0.001),
                "grad_norm": 1 + self.rng.normal(0, 0.2),
                "kept_groups": 32.0,
                "thrown_high": float(self.rng.integers(4, 12)) + 20 * along,
                "thrown_low": float(self.rng.integers(0, 8)) * (1 - along),
                "rollouts": 512.0,
                "clip_fraction": 0.01 + self.rng.normal(0, 0.002),
                "length_mean": 11 + self.rng.normal(0, 0.3),
                "ratio_first": 1.0,
            }
            self.ledger.record_update(stage, step, {name: values[name] for name in metrics})
        if finish:
            handle.finish(result)

    def evaluate(self, opponents: list[str], defenders: list[str]) -> None:
        """Held-out play of the cells that have not been played."""
        for opponent in opponents:
            if opponent != "clean" and f"evaluation/{opponent}" not in self.verdicts:
                self._edit(opponent)
            for defender in defenders:
                if (defender, opponent) not in self.right:
                    self._play(defender, opponent)

    def _edit(self, attacker: str) -> None:
        handle = Stage(self.out, f"evaluation/{attacker}", self.ledger)
        handle.begin()
        stage, edits, verdicts = handle.name, [], []
        for question in self.questions:
            scene = self.scenes[question.id]
            new = None
            if attacker != "reencoded":
                name = next(
                    n for n in (NAMES[int(i)] for i in self.rng.permutation(len(NAMES))) if not scene.count(n)
                )
                new = place(self.rng, name, random_color(self.rng), scene.things)
            pixels = render(scene.with_thing(new) if new else scene).astype(np.float64)
            pixels += self.rng.normal(0, 2.0, pixels.shape)
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            edits.append(Edit(question.id, attacker, "add something", 7, image))
            intact, duplicate = bool(self.rng.random() < 0.92), bool(self.rng.random() < 0.06)
            valid = bool(self.rng.random() < 0.98) if intact and not duplicate else None
            integrity = float(self.rng.uniform(0.82, 0.99) if intact else self.rng.uniform(0.3, 0.79))
            notes = {"sharpness": float(sharpness_ratio(Image.fromarray(render(scene)), image))}
            verdicts.append(
                Verdict(question.id, integrity, intact, duplicate, 0.0, 0.0, label_valid=valid, notes=notes)
            )
        self.ledger.record_edits(stage, 0, edits)
        if attacker != "reencoded":
            self.ledger.record_verdicts(stage, 0, verdicts)
        self.verdicts[stage] = verdicts
        weights = (0.0, 0.1, 0.4, 0.1, 0.25, 0.15)
        self.kinds[attacker] = {
            v.question_id: KINDS_OF_EDIT[int(self.dice.choice(len(weights), p=weights))]
            for v in verdicts
            if v.accepted
        }
        handle.finish({} if attacker == "reencoded" else {"kinds": self.kinds[attacker]})

    def _play(self, defender: str, opponent: str) -> None:
        strength = {"clean": 0.0, "reencoded": 0.02, "bootstrap": 0.12}.get(
            opponent, 0.25 + 0.05 * int(opponent[-1]) if opponent[-1].isdigit() else 0
        )
        defence = 0 if defender == "base" else 0.25 * int(defender[-1])
        chance = CLEAN_ACCURACY - strength * (1 - defence)
        answers, played = [], list[bool | None]()
        verdicts = self.verdicts.get(f"evaluation/{opponent}")
        for i, question in enumerate(self.questions):
            if opponent not in ("clean", "reencoded") and verdicts and not verdicts[i].accepted:
                played.append(None)
                continue
            right = bool(self.rng.random() < chance)
            wrong = [letter for letter in question.letters if letter != question.answer]
            letter = question.answer if right else wrong[int(self.rng.integers(len(wrong)))]
            option = question.options["ABCDEFGH".index(letter)]
            seen = (
                ", ".join(f"{t.name} {t.box[0] // 8 + 1} {t.box[1] // 8 + 1}" for t in question.targets)
                or "nothing of that name"
            )
            answers.append(
                Answer(
                    question.id,
                    defender,
                    f"{seen}, {option} \\boxed{{{letter}}}{self.suffix}",
                    letter,
                    "boxed",
                    right,
                    None,
                    12,
                )
            )
            played.append(right)
        self.right[defender, opponent] = played
        stage = Stage(self.out, f"evaluation/{opponent}/{defender}", self.ledger)
        stage.begin()
        self.ledger.record_answers(f"evaluation/{opponent}", 0, answers)
        stage.finish({"asked": len(answers), "right": sum(a.right for a in answers)})

    def payoff(self) -> Payoff:
        defenders = ["base", *(f"round{i}" for i in range(1, self.rounds + 1))]
        names = ["clean", "reencoded", "bootstrap", *defenders[1:]]
        opponents = [
            Opponent(n, None if n in ("clean", "reencoded") else tuple(self.verdicts[f"evaluation/{n}"]))
            for n in names
        ]
        return play_off(defenders, opponents, self.right, [str(q.image) for q in self.questions])

    def strategies(self, payoff: Payoff, attacker: str) -> dict[str, Any]:
        hits = payoff.fooled("base", attacker) & payoff.right("base", "clean")
        told = [self.kinds[attacker][q.id] for q, hit in zip(self.questions, hits, strict=True) if hit]
        return {kind: rate([each == kind for each in told]).as_dict() for kind in KINDS_OF_EDIT}

    def summarise(self) -> dict[str, Any]:
        payoff, last = self.payoff(), f"round{self.rounds}"
        difference = gains(
            payoff,
            base="base",
            last=last,
            first_attacker="bootstrap",
            last_attacker=last,
            resamples=200,
            seed=0,
        )

        def figures(attacker: str, defender: str) -> dict[str, Any]:
            report = attack_report(payoff, attacker=attacker, defender=defender).as_dict()
            return {
                name: report[name]
                for name in ("integrity_rate", "accepted_rate", "valid_asr", "label_valid_rate")
            }

        def asr(defender: str, opponent: Opponent) -> dict[str, Any] | None:
            return None if opponent.verdicts is None else figures(opponent.name, defender)["valid_asr"]

        rounds = []
        for i in range(1, self.rounds + 1):
            stages = {
                part: Stage(self.out, f"round{i}/{part}", self.ledger).result
                for part in ("attacker", "curriculum", "defender")
            }
            against = "base" if i == 1 else f"round{i - 1}"
            attacker = {"algorithm": "diffusion_nft", "edits": 2432, "against": against} | figures(
                f"round{i}", against
            )
            attacker |= {"valid_asr_base": figures(f"round{i}", "base")["valid_asr"]} | stages["attacker"]
            defender = {"algorithm": "dapo"} | stages["defender"]
            watched = Stage(self.out, f"round{i}/watch", self.ledger).result
            rounds.append(
                {
                    "round": i,
                    "attacker": attacker,
                    "defender": defender,
                    "curriculum": stages["curriculum"],
                    "watch": watched,
                }
            )
        summary = {
            "schema": 1,
            "recipe": "arena",
            "seed": 0,
            "wall_seconds": 684.2,
            "peak_rss_mb": 3210.5,
            "questions": {"train": 2400, "held_out": len(self.questions)},
            "bootstrap": Stage(self.out, "round0/bootstrap", self.ledger).result
            | {"against": "base"}
            | figures("bootstrap", "base"),
            "rounds": rounds,
            "payoff": payoff.as_dict()
            | {
                "valid_asr": [[asr(d, o) for o in payoff.opponents] for d in payoff.defenders],
                "worst_case": [payoff.worst_case(d).as_dict() for d in payoff.defenders],
            },
            "gains": {name: value.as_dict() for name, value in difference.items()},
            "rivals": {},
            "strategies": {
                o.name: self.strategies(payoff, o.name) for o in payoff.opponents if o.verdicts is not None
            },
            "warnings": [
                f"round{r['round']}/curriculum: {text}"
                for r in rounds
                for text in r["curriculum"]["warnings"]
            ]
            + [f"round{r['round']}/watch: {text}" for r in rounds for text in r["watch"]["warnings"]],
        }
        write_json(self.out / "summary.json", summary)
        return summary


ATTACKER = ("reward_mean", "reward_std", "dead_groups", "loss", "grad_norm", "intact", "accepted", "fooled")
DEFENDER = (
    "reward_mean",
    "kept_groups",
    "thrown_high",
    "thrown_low",
    "rollouts",
    "clip_fraction",
    "length_mean",
    "ratio_first",
    "loss",
    "grad_norm",
)


def watched(number: int) -> dict[str, Any]:
    """What a round's watch finds; the second round's reward rises while its labels break."""
    label = {"before": 0.98, "after": 0.98 if number != 2 else 0.71}
    warnings = (
        ["the reward rose while the share of held-out edits with a valid label fell"] if number == 2 else []
    )
    reward, success = {"before": 0.25, "after": 0.61}, {"before": 0.12, "after": 0.2 + 0.05 * number}
    rest = {"sharpness": {"before": 0.93, "after": None if number == 1 else 0.9}, "reencoded": 0.02}
    return {"reward": reward, "success": success, "label_valid": label, **rest, "warnings": warnings}


def write_fake_run(
    out: Path,
    *,
    held_out: int = 48,
    rounds: int = 3,
    until_round: int | None = None,
    steps: int = 30,
    seed: int = 0,
    alter: Callable[[FakeRun], object] | None = None,
) -> FakeRun:
    """A run of `rounds` rounds; with `until_round` it was cut off in the Defender's phase of that round (0:
    after the bootstrap). `alter` may change the questions and replies before anything is written.
    """
    run = FakeRun(out, held_out=held_out, rounds=rounds, steps=steps, seed=seed)
    if alter is not None:
        alter(run)
    run.data()
    funnel = [
        {"stage": "intake", "in": 128, "out": 128, "dropped": {}, "words": ""},
        {
            "stage": "integrity",
            "in": 128,
            "out": 121,
            "dropped": {"a target was changed": 7},
            "words": "a target was changed: 7",
        },
        {
            "stage": "effectiveness",
            "in": 121,
            "out": 61,
            "dropped": {"useless: still right": 60},
            "words": "useless: still right: 60",
        },
    ]
    forged = {"questions": 128, "candidates": 512, "accepted": 430, "pairs": 61, "funnel": funnel}
    run.done("round0/forge", forged)
    run.train("round0/bootstrap", metrics=("loss", "grad_norm"), **forged, warnings=[])
    run.evaluate(["clean", "reencoded", "bootstrap"], ["base"])
    names = ["base"]
    for i in range(1, rounds + 1):
        if until_round == 0:
            break
        run.train(f"round{i}/attacker", metrics=ATTACKER, updates=steps, ended_early=False, warnings=[])
        warnings = ["no edit of the frozen Attacker was accepted"] if i == 2 else []
        run.done(
            f"round{i}/curriculum",
            {"edits": 512, "accepted": 431 if i != 2 else 0, "effective": 180, "warnings": warnings},
        )
        if until_round == i:
            run.train(f"round{i}/defender", metrics=DEFENDER, steps=steps // 2, finish=False)
            break
        run.train(
            f"round{i}/defender",
            metrics=DEFENDER,
            rollouts=512 * steps,
            kept_groups=32 * steps,
            updates=steps,
            ended_early=False,
            warnings=[],
        )
        names.append(f"round{i}")
        run.evaluate(["clean", "reencoded", "bootstrap", *names[1:]], names)
        run.done(f"round{i}/watch", watched(i))
    if until_round is None:
        run.summarise()
    run.ledger.close()
    return run
