"""What a game's last Defender keeps, and what it loses on clean pictures, where it goes part of the way back to
the base Defender (`defender.final_interpolation`).

    python -m workshop.way_back runs/mine --share 1 --share 0.8 --share 0.65

of a run with `--set defender.final_interpolation=1`. One line a share: accuracy less the base Defender's, with
half of a 95 % interval, about fresh clean pictures, about these with a look-alike added or put in the place of
something else, and about the last Attacker's held-out edits, where a refused one counts as the clean picture.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image

import sparring_arena
from sparring.asking.questions import ask
from sparring.config import DefenderSettings
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.defenders.weights import move_towards_base
from sparring.models.vlms.local import LocalVLM
from sparring_arena.dataset import draw, to_record
from sparring_arena.world import render
from workshop.perfect_drawing import add_lookalike, put_lookalike

BASE = Path(sparring_arena.__file__).parent / "players" / "defender"
SETTINGS = DefenderSettings(model=str(BASE), prompt="{question}\n{options}", max_new_tokens=32)
Asked = tuple[list[VisualQuestion], list[Image.Image]]


def fresh(number: int, seed: int) -> dict[str, Asked]:
    """Clean questions that no game has, and what perfect drawing makes of them."""
    drawn = [draw(seed, "held_out", i) for i in range(number)]
    records = [to_record(str(i), Path("none.png"), asked) for i, (_, asked) in enumerate(drawn)]
    rng = np.random.default_rng(seed)
    found: dict[str, Asked] = {"clean": (records, [Image.fromarray(render(scene)) for scene, _ in drawn])}
    for name, change in (("added", add_lookalike), ("put", put_lookalike)):
        changed = [change(*one, rng) for one in drawn]
        found[name] = (
            [record for record, scene in zip(records, changed, strict=True) if scene is not None],
            [Image.fromarray(render(scene)) for scene in changed if scene is not None],
        )
    return found


def of_attacker(run: Path, stage: str) -> Asked:
    """The held-out questions of a run with the edits of that stage."""
    questions = {question.id: question for question in read_questions(run / "data" / "held_out.jsonl")}
    query = """SELECT e.question_id, e.picture, v.accepted FROM edits e
        JOIN verdicts v USING (stage, step, question_id, sample) WHERE stage = ?"""
    with closing(sqlite3.connect(f"{(run / 'ledger.sqlite').resolve().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(query, (stage,)).fetchall()
    pictures = [run / picture if accepted else questions[name].image for name, picture, accepted in rows]
    return [questions[name] for name, _, _ in rows], [Image.open(path).convert("RGB") for path in pictures]


def right(vlm: LocalVLM, asked: Asked) -> NDArray[np.float64]:
    return np.array([answer.right for answer in ask(vlm, *asked, SETTINGS, batch=64)], dtype=float)


def main(
    run: Annotated[Path, typer.Argument(help="folder of a run of arena")],
    share: Annotated[list[float], typer.Option(help="of the way that is kept; may be given often")],
    questions: Annotated[int, typer.Option()] = 1500,
    seed: Annotated[int, typer.Option()] = 987654,
    last: Annotated[int, typer.Option(help="the run's last round")] = 3,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Measure a game's last Defender on its way back."""
    torch.set_num_threads(threads)
    asked = fresh(questions, seed) | {"attacked": of_attacker(run, f"evaluation/round{last}")}
    base = LocalVLM.load(BASE)
    before = {name: right(base, one) for name, one in asked.items()}
    print("base: " + ", ".join(f"{name} {value.mean():.3f}" for name, value in before.items()), flush=True)
    for kept in share:
        vlm = LocalVLM.load(run / f"round{last}" / "defender" / "model")
        with torch.no_grad():
            move_towards_base(vlm, base, kept)
        parts = []
        for name, one in asked.items():
            gain = right(vlm, one) - before[name]
            parts.append(f"{name} {gain.mean():+.3f} ({1.96 * gain.std() / len(gain) ** 0.5:.3f})")
        print(f"{kept:.2f}: " + ", ".join(parts), flush=True)


if __name__ == "__main__":
    typer.run(main)
