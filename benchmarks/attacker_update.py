"""One Flow-GRPO update of the bundled editor, roll-out and optimisation: ours against a plain implementation
of the published procedure.

python benchmarks/attacker_update.py [--questions 2] [--group 16] [--steps 10] [--repeats 2]

The plain one makes every step but the last stochastic and trains on each, encodes the conditions of every
sample by itself, and decodes one sample at a time; its denoising and its training are batched as ours are.
It draws the same noise, so with the full window both must end with the same weights, which is checked before
anything is timed. The reward is the redness of an edit: the judge would be the same for both. Three JSON
lines: our full window, our window of two steps, and the same with a shared start (Flow-GRPO-Fast), whose
seconds are the mean over all places of its window. Seconds are processor time; a ratio above 1 means that
ours is faster.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparring.attackers.rollout import sample_seed, to_pictures
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, FlowGRPOSettings
from sparring.data.records import VisualQuestion
from sparring.models.editors import load_editor
from sparring.models.editors.base import Conditions, FlowEditor
from sparring.recipes.paths import resolve_model
from sparring.seeds import derive_seed

EDITOR = Path(resolve_model("arena/editor"))
SIZE, SEED = 64, 0
FAST = "window of 2 steps, shared start"


def questions_and_pictures(count: int) -> tuple[list[VisualQuestion], list[Image.Image]]:
    rng = np.random.default_rng(SEED)
    pictures = [Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(count)]
    words = ("cup", "ball", "kite", "drum", "shoe", "hat", "bell", "key")
    questions = [
        VisualQuestion(f"q{i}", Path("none.png"), f"Where is the {words[i % 8]}?", ("left", "right"), "A")
        for i in range(count)
    ]
    return questions, pictures


def redness(edits: list[list[Image.Image]]) -> Tensor:
    return torch.tensor(
        [
            [float(np.asarray(edit)[..., 0].mean() - np.asarray(edit)[..., 2].mean()) / 255 for edit in own]
            for own in edits
        ]
    )


class PlainFlowGRPO:
    """Flow-GRPO as its paper has it, with nothing shared between the samples of a group."""

    def __init__(self, editor: FlowEditor, settings: AttackerSettings) -> None:
        assert settings.lora is not None
        assert isinstance(settings.algorithm, FlowGRPOSettings)
        own = settings.lora
        editor.add_lora(own.rank, own.alpha, derive_seed(SEED, "lora"), own.targets)
        self.editor, self.settings, self.algorithm = editor, settings, settings.algorithm
        self.parameters = editor.trainable_parameters()
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def update(self, questions: list[VisualQuestion], pictures: list[Image.Image], step: int) -> None:
        settings, editor = self.settings, self.editor
        samples = [(q, s) for q in range(len(questions)) for s in range(settings.group_size)]
        instruction = settings.instruction
        with torch.no_grad():
            encoded = [
                editor.encode([pictures[q]], [instruction.replace("{question}", questions[q].question)])
                for q, _ in samples
            ]
            seeds = [sample_seed(SEED, step, questions[q].id, s) for q, s in samples]
            sigmas = editor.sigmas(settings.rollout_steps, encoded[0]).tolist()
            batches = [
                self._roll_out(
                    encoded[i : i + settings.micro_batch], seeds[i : i + settings.micro_batch], sigmas
                )
                for i in self._starts()
            ]
            edits = []
            for conditions, states, _ in batches:
                for row in range(conditions.batch):
                    edits += to_pictures(
                        editor.decode(states[-1][row : row + 1], conditions.select(slice(row, row + 1)))
                    )
        group = settings.group_size
        rewards = redness([edits[i : i + group] for i in range(0, len(edits), group)])
        advantages = (
            ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4))
            .clamp(-5, 5)
            .flatten()
        )
        trained = settings.rollout_steps - 1
        for start, (conditions, states, old) in zip(self._starts(), batches, strict=True):
            own = advantages[start : start + conditions.batch]
            for place in range(trained):
                v = editor.velocity(states[place], sigmas[place], conditions)
                logp, _, _ = self._logp(states[place], v, sigmas[place], sigmas[place + 1], states[place + 1])
                ratio = torch.exp(logp - old[place])
                clipped = ratio.clamp(1 - self.algorithm.clip_range, 1 + self.algorithm.clip_range)
                loss = torch.maximum(-own * ratio, -own * clipped).sum() / (len(samples) * trained)
                loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _starts(self) -> range:
        settings = self.settings
        return range(0, settings.questions_per_step * settings.group_size, settings.micro_batch)

    def _roll_out(
        self, encoded: list[Conditions], seeds: list[int], sigmas: list[float]
    ) -> tuple[Conditions, list[Tensor], list[Tensor]]:
        """(conditions, the states of all steps, their log-probabilities)."""
        conditions = Conditions.cat(encoded)
        generators = [torch.Generator().manual_seed(derive_seed(seed, "steps")) for seed in seeds]
        states, logps = [self.editor.noise(conditions, seeds)], []
        for sigma, after in pairwise(sigmas):
            v = self.editor.velocity(states[-1], sigma, conditions)
            if after == 0:
                states.append(states[-1] + (after - sigma) * v)
                continue
            _, mean, std = self._logp(states[-1], v, sigma, after, states[-1])
            fresh = torch.stack(
                [torch.randn(states[-1].shape[1:], generator=generator) for generator in generators]
            )
            reached = mean + std * fresh
            logps.append(self._logp(states[-1], v, sigma, after, reached)[0])
            states.append(reached)
        return conditions, states, logps

    def _logp(
        self, x: Tensor, v: Tensor, sigma: float, after: float, reached: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        dt = after - sigma
        a = self.algorithm.noise_level * (sigma / (1 - (after if sigma == 1 else sigma))) ** 0.5
        mean = x * (1 + a**2 / (2 * sigma) * dt) + v * (1 + a**2 * (1 - sigma) / (2 * sigma)) * dt
        std = a * (-dt) ** 0.5
        logp = torch.distributions.Normal(mean, std).log_prob(reached).flatten(1).mean(1)
        return logp, mean, std


def settings_for(options: argparse.Namespace, **window: Any) -> AttackerSettings:
    return AttackerSettings.model_validate(
        {
            "model": str(EDITOR),
            "questions_per_step": options.questions,
            "group_size": options.group,
            "rollout_steps": options.steps,
            "micro_batch": 32,
            "lora": {"rank": 32, "alpha": 64},
            "algorithm": {"type": "flow_grpo", "window": window},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="roll-out steps")
    parser.add_argument(
        "--repeats",
        type=int,
        default=2,
        help="times that what does not depend on the window's place is measured",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    questions, pictures = questions_and_pictures(options.questions)
    plain = PlainFlowGRPO(load_editor(EDITOR), settings_for(options, size=None))
    windows = {
        "full window": {"size": None},
        "window of 2 steps": {"size": 2},
        FAST: {"size": 2, "move": "slide", "wrap": True, "shared_start": True},
    }
    ours = {
        name: AttackerTrainer(load_editor(EDITOR), settings_for(options, **window), SEED)
        for name, window in windows.items()
    }
    work: dict[str, Callable[[int], object]] = {"plain": lambda step: plain.update(questions, pictures, step)}
    for name, trainer in ours.items():
        work[name] = lambda step, trainer=trainer: trainer.update(questions, pictures, redness, step)  # type: ignore[misc]
    for each in work.values():
        each(0)
    for name, parameter in ours["full window"].optimizer.parameters.items():
        torch.testing.assert_close(
            plain.parameters[name],
            parameter,
            atol=1e-4,
            rtol=0,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    # In turns, so that a busy machine is busy for all. The shared start goes through every place of its
    # window, whose costs differ.
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(options.steps - 2):
        for name, each in work.items():
            if turn < options.repeats or name == FAST:
                start = time.process_time()
                each(turn)
                times[name].append(time.process_time() - start)
    seconds = {name: sum(own) / len(own) for name, own in times.items()}
    for name in ours:
        case = {
            "setting": name,
            "questions": options.questions,
            "group": options.group,
            "rollout_steps": options.steps,
            "pixels": SIZE,
            "threads": 1,
        }
        figures = {
            "ours": round(seconds[name], 3),
            "rival": round(seconds["plain"], 3),
            "ratio": round(seconds["plain"] / seconds[name], 2),
        }
        print(
            json.dumps(
                {"benchmark": "Attacker update against plain Flow-GRPO", "case": case}
                | figures
                | {"unit": "seconds an update"}
            )
        )


if __name__ == "__main__":
    main()
