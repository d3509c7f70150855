"""The demo's Defender phase: every prompt once for its group, in one packed row, against a padded row for
every reply.

python benchmarks/defender_phase.py [--updates 4] [--seed 0]

The bundled Defender learns by the settings of `arena` (24 prompts of 6 answers, up to four batches of them
an update) from clean scenes, drawn as the recipe draws them. Two rivals are the same trainer with a row for
every reply. `padded` shares nothing, as TRL's trainer does not: picture and prompt are computed for every
reply, to sample it and to learn from it. `own_rows` is what model families get here that cannot share a row:
it samples from copies of a prompt's cache, and shares nothing in learning. All draw the same random numbers
and take turns update by update. One JSON line: seconds of processor time, one thread, of whole updates and
of the sampling and the learning in them. `weights_difference` is the largest of any weight after the last
update, `weights_error` the norm of the difference over that of what was learned. Bars: twice as fast as
either. Only the one for `padded` is an error where it is missed: sampling is most of the phase, and
`own_rows` samples nearly as fast as ours, for pictures of 16 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from _defenders import finish, parameters, report
from torch import Tensor

from sparring.config import Recipe
from sparring.data.questions import read_questions
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.base import Completion, Sampling
from sparring.models.vlms.generating import sample_replies, uniforms
from sparring.models.vlms.local import LocalVLM
from sparring.recipes import load_recipe
from sparring.selfplay.curriculum import Curriculum
from sparring_arena.dataset import write_questions

PARTS = ("update", "sampling", "learning")


class Unshared(LocalVLM):
    """Computes prompt and picture for every reply that it samples."""

    @torch.inference_mode()
    def generate(
        self, images: Sequence[Any], prompts: Sequence[str], sampling: Sampling, *, starts: Sequence[str] = ()
    ) -> list[list[Completion]]:
        replies: list[list[Completion]] = []
        n, at_once, limit = sampling.n, sampling.batch // sampling.n, sampling.max_new_tokens
        for start in range(0, len(prompts), at_once):
            places = range(start, min(start + at_once, len(prompts)))
            rows = [place for place in places for _ in range(n)]
            encoded = self.encode([images[row] for row in rows], [prompts[row] for row in rows])
            drawn = uniforms(sampling.seed, [sampling.number(place) for place in places], n, limit)
            flat = [
                own[0] for own in sample_replies(self, encoded, drawn.reshape(len(rows), 1, limit), sampling)
            ]
            replies += [flat[i : i + n] for i in range(0, len(flat), n)]
        return replies


class Player:
    """A Defender in training, and the seconds that its updates and their parts have taken."""

    def __init__(self, family: type[LocalVLM], recipe: Recipe, seed: int, *, packed: bool) -> None:
        settings = recipe.defender
        self.vlm = family.load(settings.model, dtype=settings.dtype)
        self.vlm.shares_rows = packed
        self.trainer = DefenderTrainer(self.vlm, settings, seed)
        self.start = self.weights()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.update = self._timed("update", self.trainer.update)
        self.vlm.generate = self._timed("sampling", self.vlm.generate)  # type: ignore[method-assign]
        self.trainer._learn = self._timed("learning", self.trainer._learn)  # type: ignore[method-assign]

    def weights(self) -> Tensor:
        """All of them in one row."""
        return torch.cat([parameter.detach().flatten() for parameter in self.vlm.model.parameters()])

    def _timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            result = work(*arguments, **named)
            self.seconds[part] += time.process_time() - start
            return result

        return timed


def scenes(recipe: Recipe, folder: Path, seed: int) -> Curriculum:
    """The recipe's clean training questions, as many as a few updates can use up."""
    assert recipe.data.generator is not None
    arguments = recipe.data.generator.arguments | {"train": 480, "held_out": 1}
    train, _ = write_questions(folder, seed=seed, **arguments)
    return Curriculum({question.id: question for question in read_questions(train)}, (), (), 1.0, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    recipe, history = load_recipe("arena"), list[dict[str, float]]()
    players = {
        "packed": Player(LocalVLM, recipe, options.seed, packed=True),
        "padded": Player(Unshared, recipe, options.seed, packed=False),
        "own_rows": Player(LocalVLM, recipe, options.seed, packed=False),
    }
    with tempfile.TemporaryDirectory() as folder:
        curriculum = scenes(recipe, Path(folder), options.seed)
        for step in range(options.updates):
            metrics = {
                name: player.update(curriculum.stream(options.seed, step), step)
                for name, player in players.items()
            }
            assert len({(own["rollouts"], own["kept_groups"]) for own in metrics.values()}) == 1, (
                "the paths have parted"
            )
            history.append(metrics["packed"])
    ours = players.pop("packed")
    learned = (ours.weights() - ours.start).norm()
    apart = {name: ours.weights() - player.weights() for name, player in players.items()}
    case = {
        "updates": options.updates,
        "prompts": recipe.defender.prompts_per_step,
        "group": recipe.defender.group_size,
        "sampled": int(sum(metrics["rollouts"] for metrics in history)),
        "learned_groups": int(sum(metrics["kept_groups"] for metrics in history)),
        "parameters": parameters(ours.vlm),
        "threads": 1,
    }
    figures: dict[str, Any] = {"ours": {part: round(seconds, 2) for part, seconds in ours.seconds.items()}}
    for name, player in players.items():
        figures[name] = {part: round(seconds, 2) for part, seconds in player.seconds.items()}
        figures[name] |= {
            f"{part}_ratio": round(seconds / ours.seconds[part], 2)
            for part, seconds in player.seconds.items()
        }
        figures[name] |= {
            "weights_difference": float(f"{apart[name].abs().max().item():.2g}"),
            "weights_error": float(f"{(apart[name].norm() / learned).item():.2g}"),
        }
    bars = {f"2 times faster than {name}": figures[name]["update_ratio"] >= 2 for name in players}
    report(
        "The demo's Defender phase against rows of their own",
        case,
        figures | {"unit": f"seconds for {options.updates} updates"},
        bars,
    )
    finish(bars["2 times faster than padded"])


if __name__ == "__main__":
    main()
