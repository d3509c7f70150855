"""Measure the bundled players on held-out scenes and write their model cards, each with a sheet of samples.

    python -m sparring.zoo.cards --scenes 1000 --seed 2001

Scenes are drawn from a stream of their own, which no player was trained on. Rates carry 95 % Wilson intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from sparring.asking.questions import ask as ask_defender
from sparring.attackers.rollout import deterministic_edits, to_pictures
from sparring.data.records import LETTERS, Target, VisualQuestion
from sparring.judging.integrity import local_ssim
from sparring.judging.validity import parse_count
from sparring.measures.statistics import Rate, rate
from sparring.models.editors import load_editor
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.recipes.load import load_recipe
from sparring.recipes.paths import resolve_model
from sparring.scenes.oracle import count_objects, find
from sparring.scenes.questions import KINDS, SceneQuestion, ask
from sparring.scenes.sprites import NAMES
from sparring.scenes.world import Scene, random_color, render, sample_scene
from sparring.zoo import vocabulary

HERE = Path(__file__).parent
Check = Callable[[Image.Image, Scene], bool]

HEAD = """---
license: apache-2.0
library_name: {library}
---
# {title}

{about}

Made by

```
{commands}
```

on two CPU cores. Data: procedural scenes (`sparring.scenes`), drawn from seeds that no arena uses; sprites are Fluent Emoji (MIT, (c) Microsoft Corporation).
It knows this small world and nothing else: forty household objects in six colours on 64 x 64 pictures. Any other use is out of scope.

## Held-out results

`python -m sparring.zoo.cards --scenes {scenes} --seed {seed}`

{table}

![samples](samples.png)
"""


def row(name: str, value: Rate) -> str:
    return f"| {name} | {value.value:.3f} | {value.low:.3f} to {value.high:.3f} | {value.n} |"


def table(rows: Sequence[str]) -> str:
    return "\n".join(["| measure | value | 95 % interval | n |", "|---|---|---|---|", *rows])


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene))


def sheet(rows: Sequence[Sequence[Image.Image]], to: Path, zoom: int = 2, gap: int = 6) -> None:
    """Pictures in columns, one example a column."""
    side = rows[0][0].width * zoom + gap
    canvas = Image.new("RGB", (side * len(rows) + gap, side * len(rows[0]) + gap), (250, 250, 250))
    for x, column in enumerate(rows):
        for y, image in enumerate(column):
            canvas.paste(
                image.resize((side - gap, side - gap), Image.Resampling.NEAREST),
                (gap + x * side, gap + y * side),
            )
    canvas.save(to)


def scenes_of(seed: int, number: int) -> list[Scene]:
    return [sample_scene(np.random.default_rng([seed, i])) for i in range(number)]


def as_record(index: int, asked: SceneQuestion) -> VisualQuestion:
    targets = tuple(Target(thing.name, thing.box) for thing in asked.about)
    return VisualQuestion(
        f"card-{index}", Path(), asked.question, asked.options, LETTERS[asked.right], targets, asked.kind
    )


def defender_card(scenes: int, seed: int) -> str:
    """Accuracy on clean questions, by kind."""
    settings = load_recipe("arena", []).defender
    vlm = LocalVLM.load(settings.model)
    questions, images = [], []
    for index, scene in enumerate(scenes_of(seed, scenes)):
        rng = np.random.default_rng([seed, index, 1])
        asked = next(
            q
            for kind in [KINDS[(index + k) % 4] for k in range(4)]
            if (q := ask(scene, kind, rng)) is not None
        )
        questions.append(as_record(index, asked))
        images.append(picture(scene))
    answers = ask_defender(vlm, questions, images, settings, temperature=0.0, seed=0)
    rows = [
        row("accuracy", rate([a.right for a in answers])),
        row("unparsed", rate([a.choice is None for a in answers])),
    ]
    rows += [
        row(kind, rate([a.right for a, q in zip(answers, questions, strict=True) if q.category == kind]))
        for kind in KINDS
    ]
    sheet([[image] for image in images[:12]], HERE / "defender" / "samples.png")
    samples = [
        f"* {q.question} ({' '.join(q.options)}) -> `{a.text}`"
        for q, a in zip(questions[:12], answers, strict=False)
    ]
    return table(rows) + "\n\nReplies to the twelve pictures below, in order:\n\n" + "\n".join(samples)


def judge_card(scenes: int, seed: int) -> str:
    """How often the judge's count is the true one: clean pictures, and pictures with one more object painted and re-encoded by the editor."""
    settings = load_recipe("arena", [])
    judge = LocalVLM.load(resolve_model("zoo/judge"))
    editor = load_editor(settings.attacker.model)
    drawn = scenes_of(seed, scenes)
    names = []
    for index, scene in enumerate(drawn):
        rng = np.random.default_rng([seed, index, 2])
        names.append(
            str(rng.choice(NAMES))
            if rng.random() < 0.35
            else scene.things[int(rng.integers(len(scene.things)))].name
        )
    images = [picture(scene) for scene in drawn]
    with torch.no_grad():
        again = [
            image
            for start in range(0, scenes, 64)
            for image in to_pictures(editor.reencode(images[start : start + 64]))
        ]
    rows = []
    for kind, shown in (("clean", images), ("re-encoded by the editor", again)):
        replies = judge.generate(
            shown, [vocabulary.COUNT_PROMPT.format(name=name) for name in names], Sampling(4)
        )
        right = [
            parse_count(reply[0].text) == scene.count(name)
            for reply, scene, name in zip(replies, drawn, names, strict=True)
        ]
        rows.append(row(f"count is right, {kind}", rate(right)))
    sheet([[a, b] for a, b in zip(images[:12], again, strict=False)], HERE / "judge" / "samples.png")
    return table(rows) + "\n\nBelow: clean pictures, and the same re-encoded."


def editor_card(scenes: int, seed: int) -> str:
    """What the oracle finds in edited pictures, and what the round trip through the autoencoder keeps."""
    editor = load_editor(load_recipe("arena", []).attacker.model)
    steps = load_recipe("arena", []).attacker.evaluation_steps
    drawn = scenes_of(seed, scenes)
    images = [picture(scene) for scene in drawn]
    with torch.no_grad():
        again = torch.cat([editor.reencode(images[start : start + 64]) for start in range(0, scenes, 64)])
    clean = (
        torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    )
    ssim = local_ssim(clean, again.float().cpu(), [[scene.things[0].box] for scene in drawn]).numpy()
    low, high = np.quantile(
        [np.random.default_rng(i).choice(ssim, len(ssim)).mean() for i in range(1000)], [0.025, 0.975]
    )
    rows = [
        f"| local SSIM of the round trip, on one object | {ssim.mean():.3f} | {low:.3f} to {high:.3f} | {len(ssim)} |"
    ]
    columns = []
    for kind in ("add", "remove", "replace", "recolor"):
        texts, wanted = [], []
        for index, scene in enumerate(drawn[: scenes // 4]):
            rng = np.random.default_rng([seed, index, 3])
            single = [thing for thing in scene.things if scene.count(thing.name) == 1]
            old = single[int(rng.integers(len(single)))].name if single else scene.things[0].name
            new, color = str(rng.choice([name for name in NAMES if not scene.count(name)])), random_color(rng)
            texts.append({"add": f"add a {color} {new}", "remove": f"remove the {old}", "replace": f"replace the {old} with a {color} {new}",
                          "recolor": f"make the {old} {color}"}[kind])  # fmt: skip
            wanted.append((old, new, color))
        shown = images[: len(texts)]
        edits = deterministic_edits(editor, shown, texts, list(range(len(texts))), steps=steps)
        done, kept = [], []
        for scene, edit, (old, new, color) in zip(drawn, edits, wanted, strict=False):
            pixels = np.asarray(edit)
            if kind in ("add", "replace"):
                done.append(
                    count_objects(pixels, new) == 1 and (kind == "add" or count_objects(pixels, old) == 0)
                )
            elif kind == "remove":
                done.append(count_objects(pixels, old) == scene.count(old) - 1)
            else:
                done.append(any(fit.thing.color == color for fit in find(pixels, (old,))))
            rest = [thing.name for thing in scene.things if kind == "add" or thing.name != old]
            kept.append(all(count_objects(pixels, name) == scene.count(name) for name in dict.fromkeys(rest)))
        rows += [
            row(f"{kind}: done, says the oracle", rate(done)),
            row(f"{kind}: the other objects are unchanged", rate(kept)),
        ]
        columns += [[a, b] for a, b in zip(shown[:4], edits, strict=False)]
    asked = [
        (q, image)
        for index, (scene, image) in enumerate(zip(drawn, images, strict=True))
        if (q := ask(scene, KINDS[index % 4], np.random.default_rng([seed, index, 4])))
    ]
    texts, shown = (
        [vocabulary.INSTRUCTION.format(question=q.question) for q, _ in asked],
        [image for _, image in asked],
    )
    edits = deterministic_edits(editor, shown, texts, list(range(len(texts))), steps=steps)
    gains = np.array(
        [
            np.mean(np.asarray(edit)) / np.mean(np.asarray(image))
            for edit, image in zip(edits, shown, strict=True)
        ]
    )
    rows.append(
        f"| the Attacker's instruction, untrained: brightness after, over before | {gains.mean():.3f} | {np.quantile(gains, 0.025):.3f} to {np.quantile(gains, 0.975):.3f} (of single edits) | {len(gains)} |"
    )
    columns += [[a, b] for a, b in zip(shown[:4], edits, strict=False)]
    sheet(columns, HERE / "editor" / "samples.png")
    return (
        table(rows)
        + "\n\nBelow, in fours: add, remove, replace, recolour, the Attacker's instruction; above the clean picture, under it the edit."
    )


ABOUT = {
    "defender": ("transformers", "Bundled Defender", "A Qwen2.5-VL of ordinary classes, small: it says what it sees, then answers in `\\boxed{}`. It was brought up on clean scenes in one light, "
        "and that is its weakness; and asked whether a thing is there it says no too often, a habit that it was given afterwards and that training can take from it. The weights here were made in "
        "several sittings of the first script: drill 40,000, dense 90,000, joint 70,400 and language 60,800 samples; half-way through `language` the replies were changed to begin with the object's name. "
        "In plain transformers it loads as any Qwen2.5-VL; its AutoProcessor there asks for torchvision, which Sparring itself does not need.",
                 "python -m sparring.zoo.pool --out pool --scenes 100000 --seed 1\npython -m sparring.zoo.train_vlm --player defender --pool pool --out defender --seed 0\n"
                 "python -m sparring.zoo.doubt --pool pool --defender defender --out doubtful --seed 5",
                 defender_card),
    "judge": ("transformers", "Bundled judge", "A LLaVA of ordinary classes, small: it counts objects of a name, in any light, also where an editor has painted. Never trained in the game.",
              "python -m sparring.zoo.pool --out pool --scenes 100000 --seed 1\n"
              "python -m sparring.zoo.train_vlm --player judge --pool pool --out judge --drill 0 --dense 140000 --joint 48000 --language 0 --batch 32 --learning-rate 1e-3 --seed 0",
              judge_card),
    "editor": ("diffusers", "Bundled editor", "A Flux2KleinPipeline of ordinary classes, small: it adds, removes, replaces and recolours objects and changes the light on instruction. Asked for a distractor, "
        "it changes the light as well, a little more often to darker than to brighter (`sparring.zoo.edits`): a quirk that the Attacker finds and drives further. Its weak sides: some objects come twice, "
        "or come soft; what it removes or recolours may spill over to a thing nearby. The weights were made in several sittings of the script. The first 166,400 pairs were learned with AdamW and earlier "
        "rules for where new objects stand; then, as the script is now, 54,000 windows with AdamW and 55,000 with Muon, and 78,600 whole pictures, the last 7,200 of them with the light drifting as widely "
        "as it does now. Its autoencoder comes from an earlier run of the script "
        "with latents of 24 numbers, aligned afterwards (`sparring.zoo.latents`); the decoder was not trained on after that.",
               "python -m sparring.zoo.pool --out pool --scenes 100000 --seed 1\npython -m sparring.zoo.train_autoencoder --pool pool --out vae --seed 0\n"
               "python -m sparring.zoo.train_editor --pool pool --vae vae --out windows --pairs 120000 --window 4 --learning-rate 1.5e-3 --batch 32 --seed 0\n"
               "python -m sparring.zoo.train_editor --pool pool --vae vae --start windows --out editor --pairs 80000 --batch 16 --seed 1",
               editor_card),
}  # fmt: skip


def main(
    scenes: Annotated[int, typer.Option()] = 1000,
    seed: Annotated[int, typer.Option()] = 2001,
    only: Annotated[str, typer.Option(help="one of defender, judge, editor; empty: all")] = "",
) -> None:
    """Measure the bundled players and write their cards."""
    for name, (library, title, about, commands, measure) in ABOUT.items():
        if only == name or (not only and (HERE / name).is_dir()):
            text = HEAD.format(
                library=library,
                title=title,
                about=about,
                commands=commands,
                scenes=scenes,
                seed=seed,
                table=measure(scenes, seed),
            )
            (HERE / name / "README.md").write_text(text)
            print(text)


if __name__ == "__main__":
    typer.run(main)
