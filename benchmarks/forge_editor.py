"""Does an editor fine-tuned on forged pairs put second instances of queried objects into pictures less often
than the untuned one? One JSON line.

python benchmarks/forge_editor.py [--questions 320] [--scenes 96] [--steps 100] [--out runs/forge_editor]
[--set stages.propose.number=1 ...]

Pairs are forged of embedded scenes with the arena's stages (cut-outs). A LoRA on the bundled editor is
fine-tuned on them; then the untuned and the tuned editor edit the same held-out scenes from the same noise.
Questions are those with at least one queried object in the picture. What an edit put in is read by the
scenes' oracle. By the recipe's instruction the bundled editor, which was brought up on it, adds something
else: a second instance in none of 40 edits, and in 3 at most by a dozen other wordings that hold the
question. By an instruction that names the queried object it adds one, so that is the default here, in the
pairs as in the edits. `--instruction ''` is the recipe's.

"second": share of edits with a further instance of a queried object. "other": share with an object of
another name; "anything": with either; "changed": share in which a region beside the targets changed,
recognisable or not. An editor that does nothing would pass the first bar and fail these. A call that is
stopped and made again goes on; a call with another case needs another --out.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from sparring.attackers.rollout import deterministic_edits
from sparring.attackers.sft import Pair, finetune
from sparring.config import AttackerSettings, BootstrapSettings, KindSettings
from sparring.engine.files import write_json
from sparring.engine.screen import Screen
from sparring.forge.ledger import Ledger
from sparring.forge.run import run_forge
from sparring.judging.kinds import changed_regions
from sparring.measures.statistics import bootstrap_statistic, rate
from sparring.models.editors import FlowEditor
from sparring.models.players import load_attacking_editor
from sparring.recipes.borrow import forge_settings
from sparring.recipes.load import load_recipe
from sparring.seeds import derive_seed
from sparring.selfplay.bootstrap import kept_pairs
from sparring_arena.audit import added
from sparring_arena.dataset import draw, write_questions
from sparring_arena.questions import SceneQuestion
from sparring_arena.sprites import NAMES
from sparring_arena.world import Scene, render

MEASURED = ("second", "other", "anything", "changed")
MOST = 1 / 3  # of the untuned editor's share, what the tuned one may have
Held = tuple[Scene, SceneQuestion, Image.Image]
Shares = dict[str, NDArray[np.bool_]]


def forge_pairs(options: argparse.Namespace, editor: FlowEditor, attacker: AttackerSettings) -> list[Pair]:
    """The kept pairs of so many embedded questions, under the benchmark's instruction."""
    source, out = options.out / "questions", options.out / "forge"
    if not (source / "train.jsonl").is_file():
        write_questions(source, seed=options.seed, train=options.questions, held_out=1)
    settings = forge_settings(
        [("data", str(source / "train.jsonl")), ("seed", options.seed)],
        recipe="arena",
        changes=["stages.implant=painter", *options.set],
    )
    run_forge(settings, out, screen=Screen(Console(file=io.StringIO())))
    with closing(Ledger(out)) as ledger:
        questions = [ledger.question(row) for row in ledger.rows("kept")]
        pairs = [pair.cut(attacker.crop, editor.multiple) for pair in kept_pairs(ledger)]
    names = [[target.name for target in question.targets] for question in questions]
    told = [
        instruct(options, attacker, own[0], question.question) if own else text
        for own, question, (_, text, _) in zip(names, questions, pairs, strict=True)
    ]
    return [
        (clean, text, adversarial)
        for text, (clean, _, adversarial), own in zip(told, pairs, names, strict=True)
        if own
    ]


def instruct(options: argparse.Namespace, attacker: AttackerSettings, name: str, question: str) -> str:
    """What the editor is told about a question whose first queried object has that name."""
    return (
        str(options.instruction or attacker.instruction)
        .replace("{name}", name)
        .replace("{question}", question)
    )


def held_out(options: argparse.Namespace) -> list[Held]:
    """Scenes that no pair was made of, with questions about something that is in them."""
    found: list[Held] = []
    index = 0
    while len(found) < options.scenes:
        scene, asked = draw(options.seed, "held_out", index)
        index += 1
        if asked.about:
            found.append((scene, asked, Image.fromarray(render(scene))))
    return found


def measure(
    name: str,
    editor: FlowEditor,
    held: Sequence[Held],
    options: argparse.Namespace,
    attacker: AttackerSettings,
) -> Shares:
    """What the editor's edits hold, edit by edit; an earlier call's findings are read again."""
    kept = options.out / f"{name}-{len(held)}.json"
    if kept.is_file():
        return {measured: np.array(values) for measured, values in json.loads(kept.read_text()).items()}
    images = [image for _, _, image in held]
    edits = deterministic_edits(
        editor,
        images,
        [instruct(options, attacker, asked.about[0].name, asked.question) for _, asked, _ in held],
        [derive_seed(options.seed, "forge_editor", place) for place in range(len(held))],
        steps=attacker.evaluation_steps,
        batch=attacker.micro_batch,
    )
    draw_sheet(images, edits, options.out / f"{name}.png")
    found = [what_was_added(*each) for each in zip(held, edits, strict=True)]
    write_json(kept, {measured: [one[measured] for one in found] for measured in MEASURED})
    return {measured: np.array([one[measured] for one in found]) for measured in MEASURED}


def what_was_added(held: Held, edit: Image.Image) -> dict[str, bool]:
    """The oracle's word on one edit."""
    scene, asked, image = held
    clean, edited = np.asarray(image), np.asarray(edit)
    second = added(asked.names, asked.about, clean, edited)
    other = [thing for thing in added(NAMES, scene.things, clean, edited) if thing.name not in asked.names]
    regions = changed_regions(clean.astype(np.float64), edited.astype(np.float64), KindSettings())
    apart = [box for box in regions if not any(_touch(box, thing.box) for thing in asked.about)]
    return {
        "second": bool(second),
        "other": bool(other),
        "anything": bool(second or other),
        "changed": bool(apart),
    }


def _touch(a: Sequence[int], b: Sequence[int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def draw_sheet(
    images: Sequence[Image.Image], edits: Sequence[Image.Image], path: Path, columns: int = 16, rows: int = 3
) -> None:
    """The first scenes, each edit under its clean picture."""
    side = images[0].width
    sheet = Image.new("RGB", (columns * side, 2 * rows * side))
    for place, pair in enumerate(list(zip(images, edits, strict=True))[: columns * rows]):
        for line, picture in enumerate(pair):
            sheet.paste(picture, (place % columns * side, (2 * (place // columns) + line) * side))
    sheet.save(path)


def ratio_of(tuned_N: NDArray[np.bool_], untuned_N: NDArray[np.bool_]) -> dict[str, Any]:
    """Tuned share over untuned share, with the interval of a bootstrap of scenes; a draw without any untuned
    one counts as infinite.

    That interval has no width where the tuned editor adds none: `most`, Wilson's upper end over Wilson's
    lower end, has.
    """

    def ratio(drawn: Sequence[int]) -> float:
        below = untuned_N[list(drawn)].sum()
        return float(tuned_N[list(drawn)].sum() / below) if below else float("inf")

    interval = bootstrap_statistic(ratio, len(tuned_N), resamples=4000, seed=0)
    (_, high), (low, _) = (rate(own.tolist()).as_dict()["ci95"] for own in (tuned_N, untuned_N))
    return {
        "value": _finite(ratio(range(len(tuned_N)))),
        "ci95": [_finite(end) for end in interval],
        "most": _finite(high / low),
    }


def _finite(value: float | None) -> float | None:
    return round(value, 4) if value is not None and np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=320, help="questions that go into the forge")
    parser.add_argument("--scenes", type=int, default=96, help="held-out scenes that both editors edit")
    parser.add_argument("--steps", type=int, default=100, help="updates of the fine-tuning")
    parser.add_argument("--batch", type=int, default=16, help="pairs in an update")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument(
        "--instruction",
        default="add a red {name}",
        help="{name}: the first queried object, {question}: the question",
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="A.B=VALUE",
        help="settings of the forge, such as stages.propose.number=1",
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/forge_editor"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    attacker = load_recipe("arena").attacker
    editor = load_attacking_editor(attacker.model, attacker, torch.device("cpu"))
    pairs = forge_pairs(options, editor, attacker)
    held = held_out(options)
    untuned = measure("untuned", editor, held, options, attacker)
    assert attacker.lora is not None
    own = attacker.lora
    editor.add_lora(own.rank, own.alpha, derive_seed(options.seed, "lora"), own.targets)
    settings = BootstrapSettings(
        steps=options.steps, batch=options.batch, learning_rate=options.learning_rate
    )
    for _ in finetune(editor, pairs, settings, attacker, options.seed, options.out / "state"):
        pass
    tuned = measure(f"tuned-{options.steps}", editor, held, options, attacker)
    ratio = ratio_of(tuned["second"], untuned["second"])
    shares = {
        name: {
            which: rate(own[name].tolist()).as_dict()
            for which, own in (("untuned", untuned), ("tuned", tuned))
        }
        for name in untuned
    }
    result = {
        "benchmark": "second instances of queried objects, editor tuned on forged pairs against untuned",
        "case": {
            "pairs": len(pairs),
            "questions": options.questions,
            "scenes": len(held),
            **settings.model_dump(include={"steps", "batch", "learning_rate"}),
            "lora": attacker.lora.model_dump(),
            "instruction": options.instruction or attacker.instruction,
            "set": options.set,
            "seed": options.seed,
        },
        **shares,
        "ratio": ratio,
        "bar": round(MOST, 3),
        "met": {
            "second instances in less than a third as many edits": ratio["most"] is not None
            and ratio["most"] < MOST,
            "objects of other names in as many edits": bool(tuned["other"].sum() >= untuned["other"].sum()),
            "recognisable objects in as many edits": bool(
                tuned["anything"].sum() >= untuned["anything"].sum()
            ),
            "something changed in as many edits": bool(tuned["changed"].sum() >= untuned["changed"].sum()),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
