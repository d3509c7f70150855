"""Small evaluation suites on scenes that no player was trained on, in the shape of the benchmarks that people
use, written as a user's data would come.

    visual_search    as V*: the colour of a small object ("direct_attributes"), where one is relative to another ("relative_position")
    large_pictures   as HR-Bench: small objects far apart in a large picture, "single" (colour) and "cross" (position), each asked with its options
                     in four orders; ids end in the number of the order
    presence         as POPE: is an object there? Absent ones at random, popular, adversarial. Names in these scenes are not alike frequent, and some
                     like to stand together, or neither word would mean anything
    altered_pairs    as HallusionBench and BEAF: a picture and the same picture with a thing more or less, the same yes-no questions about both: one
                     whose answer changed ("added", "removed"), one whose answer did not ("kept"); ids end in
                     -before and -after

Everything follows from (seed, suite, number of the picture); streams are apart from those of the arena and
of the players' training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparring.data.convert import write_questions
from sparring.data.errors import DataError
from sparring.data.presence import NEGATIVES, NO, YES, Annotated, presence_probes, presence_question
from sparring.data.records import LETTERS, Target, VisualQuestion
from sparring.scenes.dataset import to_record
from sparring.scenes.questions import ask
from sparring.scenes.sprites import NAMES, placed
from sparring.scenes.world import Scene, Thing, apart, background, place, random_color, render, sample_scene

STREAMS = {"visual_search": 2001, "large_pictures": 2002, "presence": 2003, "altered_pairs": 2004}
SMALL = (14.0, 20.0)  # pixels, sizes of things in a search
USUAL = (18.0, 26.0)
CYCLES = 4
SIDE = 512
Save = Callable[[str, NDArray[np.uint8]], Path]


def write_suites(folder: str | Path, *, seed: int, number: int, side: int = SIDE) -> dict[str, Path]:
    """Write every suite; the JSONL file of each, by name. See `write_suite`."""
    return {name: write_suite(folder, name, seed=seed, number=number, side=side) for name in STREAMS}


def write_suite(folder: str | Path, name: str, *, seed: int, number: int, side: int = SIDE) -> Path:
    """Write `number` pictures' (pairs', in "altered_pairs") questions as `folder`/NAME.jsonl with PNG files
    below `folder`/pictures/NAME.

    side: width and height of large pictures. The same arguments write the same bytes. Raises DataError for a
    suite that is not known.
    """
    if name not in SUITES:
        raise DataError(f"there is no suite {name!r}, only {', '.join(SUITES)}")
    folder = Path(folder)
    pictures = folder / "pictures" / name
    pictures.mkdir(parents=True, exist_ok=True)

    def save(picture: str, pixels: NDArray[np.uint8]) -> Path:
        path = pictures / f"{picture}.png"
        Image.fromarray(pixels).save(path, compress_level=4)
        return path

    return write_questions(folder / f"{name}.jsonl", SUITES[name](seed, number, side, save))


def _random(seed: int, suite: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, STREAMS[suite], number])


def _visual_search(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    for index in range(number):
        rng = _random(seed, "visual_search", index)
        kind, category = (("attribute", "direct_attributes"), ("position", "relative_position"))[index % 2]
        while True:
            scene = sample_scene(rng, counts=(3, 4), weights=(0.5, 0.5), sizes=SMALL)
            asked = ask(scene, kind, rng)  # type: ignore[arg-type]
            if asked is not None:
                break
        name = f"search-{index:06d}"
        record = to_record(name, save(name, render(scene)), asked)
        yield VisualQuestion(
            record.id, record.image, record.question, record.options, record.answer, record.targets, category
        )


def _large_pictures(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    for index in range(number):
        rng = _random(seed, "large_pictures", index)
        kind, category = (("attribute", "single"), ("position", "cross"))[index % 2]
        while True:
            scene = large_scene(rng, side)
            asked = ask(scene, kind, rng)  # type: ignore[arg-type]
            if asked is not None:
                break
        name = f"large-{index:06d}"
        path = save(name, render_large(scene, side))
        targets = tuple(Target(thing.name, thing.box) for thing in asked.about)
        for cycle in range(CYCLES):
            options = asked.options[cycle:] + asked.options[:cycle]
            answer = LETTERS[options.index(asked.answer)]
            yield VisualQuestion(f"{name}-{cycle}", path, asked.question, options, answer, targets, category)


def large_scene(rng: np.random.Generator, side: int) -> Scene:
    """Six to ten things of different names, of the usual sizes in pixels, anywhere in a picture of `side`
    pixels.
    """
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[: int(rng.integers(6, 11))]]
    things: list[Thing] = []
    for name in names:
        color, size, angle, mirror = (
            random_color(rng),
            float(rng.uniform(*USUAL)),
            float(rng.uniform(-20, 20)),
            bool(rng.random() < 0.5),
        )
        width, height = placed(name, color, size, angle, mirror).size
        for _ in range(100):
            x, y = int(rng.integers(1, side - width)), int(rng.integers(1, side - height))
            box = (x, y, x + width, y + height)
            if all(apart(box, other.box, margin=8) for other in things):
                things.append(Thing(name, color, size, angle, mirror, box))
                break
    return Scene(int(rng.integers(2**31)), tuple(things))


def render_large(scene: Scene, side: int) -> NDArray[np.uint8]:
    """The picture of a large scene, [side, side, 3]: its background blown up, its things at their
    own size.
    """
    small = Image.fromarray(np.clip(background(scene.background) + 0.5, 0, 255).astype(np.uint8))
    canvas = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)
    for thing in scene.things:
        rgba = np.asarray(
            placed(thing.name, thing.color, thing.size, thing.angle, thing.mirror), dtype=np.float32
        )
        x0, y0, x1, y1 = thing.box
        canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - rgba[..., 3:] / 255) + rgba[..., :3]
    picture: NDArray[np.uint8] = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return picture


def _presence(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    annotated = []
    for index in range(number):
        scene = sociable_scene(_random(seed, "presence", index))
        targets = tuple(Target(thing.name, thing.box) for thing in scene.things)
        annotated.append(
            Annotated(
                save(f"presence-{index:06d}", render(scene)),
                tuple(dict.fromkeys(target.name for target in targets)),
                targets,
            )
        )
    for negatives in NEGATIVES:
        yield from presence_probes(annotated, negatives, per_picture=2, seed=seed)


def sociable_scene(rng: np.random.Generator) -> Scene:
    """Three or four things of different names. Names early in the list come more often; neighbours in the
    list come together in two of three scenes.
    """
    weights = 1 / np.arange(1, len(NAMES) + 1) ** 0.7
    while True:
        drawn = [int(i) for i in rng.choice(len(NAMES), size=4, replace=False, p=weights / weights.sum())]
        if rng.random() < 2 / 3:
            drawn.insert(1, drawn[0] ^ 1)
        names = list(dict.fromkeys(NAMES[i] for i in drawn))[: int(rng.integers(3, 5))]
        things: list[Thing] = []
        for name in names:
            thing = place(rng, name, random_color(rng), [other.box for other in things], sizes=USUAL)
            if thing is not None:
                things.append(thing)
        if len(things) == len(names):
            return Scene(int(rng.integers(2**31)), tuple(things))


def _altered_pairs(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    for index in range(number):
        rng = _random(seed, "altered_pairs", index)
        with_thing = sociable_scene(rng)
        without = with_thing.without(len(with_thing.things) - 1)
        added = bool(index % 2)
        changed, stays = with_thing.things[-1].name, without.things[0].name
        absent = [name for name in NAMES if not with_thing.count(name)]
        kept = stays if index // 2 % 2 == 0 else absent[int(rng.integers(len(absent)))]
        for half, scene in (
            ("before", without if added else with_thing),
            ("after", with_thing if added else without),
        ):
            path = save(f"altered-{index:06d}-{half}", render(scene))
            for which, name, category in (
                ("changed", changed, "added" if added else "removed"),
                ("kept", kept, "kept"),
            ):
                targets = tuple(Target(thing.name, thing.box) for thing in scene.things if thing.name == name)
                answer = "A" if targets else "B"
                identity = f"altered-{index:06d}-{which}-{half}"
                yield VisualQuestion(
                    identity, path, presence_question(name), (YES, NO), answer, targets, category
                )


SUITES: dict[str, Callable[[int, int, int, Save], Iterator[VisualQuestion]]] = {
    "visual_search": _visual_search,
    "large_pictures": _large_pictures,
    "presence": _presence,
    "altered_pairs": _altered_pairs,
}
