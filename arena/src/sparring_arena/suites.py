"""Small evaluation suites on scenes that no player was trained on, in the shape of the benchmarks that people
use, written as a user's data would come.

    visual_search    as V*: the colour of one of three or four things ("direct_attributes"), where one is
                     relative to another ("relative_position")
    large_pictures   as HR-Bench: things far apart in a picture many times as large as a scene, "single"
                     (colour) and "cross" (position), each asked with its options in four orders; ids end in
                     the number of the order
    presence         as POPE: is a thing there? Absent ones at random, popular, adversarial. Names in these
                     scenes are not alike frequent, and some like to stand together, or neither word would
                     mean anything
    altered_pairs    as HallusionBench and BEAF: a picture and the same picture with a thing more or less, the
                     same yes-no questions about both: one whose answer changed ("added", "removed"), one
                     whose answer did not ("kept"); ids end in -before and -after

Every picture follows from (seed, suite, its number), and so do the questions, but for those of presence,
whose absent names depend on all pictures; streams are apart from those of the arena and of the players'
training.
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
from sparring_arena.dataset import to_record
from sparring_arena.questions import Kind, SceneQuestion, ask
from sparring_arena.sprites import GROUPS, NAMES
from sparring_arena.world import (
    BLOCK,
    CELL,
    SIZE,
    Scene,
    Thing,
    background,
    paint,
    place,
    random_color,
    render,
    sample_scene,
)

STREAMS = {"visual_search": 2001, "large_pictures": 2002, "presence": 2003, "altered_pairs": 2004}
CYCLES = 4
SIDE = 7 * SIZE  # pixels, width and height of a large picture
# The most frequent name first, and each pair of neighbours likes to stand together. One name of every group
# after the other, so that what is popular or often near is not what looks alike.
SOCIABLE = tuple(name for names in zip(*GROUPS, strict=True) for name in names)
Save = Callable[[str, NDArray[np.uint8]], Path]


def write_suites(folder: str | Path, *, seed: int, number: int, side: int = SIDE) -> dict[str, Path]:
    """Write every suite; the JSONL file of each, by name. See `write_suite`."""
    return {name: write_suite(folder, name, seed=seed, number=number, side=side) for name in STREAMS}


def write_suite(folder: str | Path, name: str, *, seed: int, number: int, side: int = SIDE) -> Path:
    """Write `number` pictures' (pairs', in "altered_pairs") questions as `folder`/NAME.jsonl with PNG files
    below `folder`/pictures/NAME.

    side: width and height of large pictures, pixels. The same arguments write the same bytes. Raises
    DataError for a suite that is not known, and for a side that is not a multiple of `CELL` or is less than
    a scene's.
    """
    if name not in SUITES:
        raise DataError(f"there is no suite {name!r}, only {', '.join(SUITES)}")
    if side < SIZE or side % CELL:
        raise DataError(f"large pictures have a side of {SIZE} pixels or more, a multiple of {CELL}: {side}")
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


def _asked(
    draw: Callable[[np.random.Generator], Scene], kind: Kind, rng: np.random.Generator
) -> tuple[Scene, SceneQuestion]:
    """A question of that kind about the first scene drawn that allows one."""
    while True:
        scene = draw(rng)
        asked = ask(scene, kind, rng)
        if asked is not None:
            return scene, asked


def _visual_search(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    kinds: tuple[tuple[Kind, str], ...] = (
        ("attribute", "direct_attributes"),
        ("position", "relative_position"),
    )
    for index in range(number):
        kind, category = kinds[index % 2]
        scene, asked = _asked(
            lambda rng: sample_scene(rng, counts=(3, 4), weights=(0.5, 0.5)),
            kind,
            _random(seed, "visual_search", index),
        )
        name = f"search-{index:06d}"
        record = to_record(name, save(name, render(scene)), asked)
        yield VisualQuestion(
            record.id, record.image, record.question, record.options, record.answer, record.targets, category
        )


def _large_pictures(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    kinds: tuple[tuple[Kind, str], ...] = (("attribute", "single"), ("position", "cross"))
    for index in range(number):
        kind, category = kinds[index % 2]
        scene, asked = _asked(
            lambda rng: large_scene(rng, side), kind, _random(seed, "large_pictures", index)
        )
        name = f"large-{index:06d}"
        path = save(name, render_large(scene, side))
        targets = tuple(Target(thing.name, thing.box) for thing in asked.about)
        for cycle in range(CYCLES):
            options = asked.options[cycle:] + asked.options[:cycle]
            answer = LETTERS[options.index(asked.answer)]
            yield VisualQuestion(f"{name}-{cycle}", path, asked.question, options, answer, targets, category)


def large_scene(rng: np.random.Generator, side: int) -> Scene:
    """Six to ten things of different names, or as many of them as find room, anywhere on the grid of a
    picture of `side` pixels.
    """
    things: list[Thing] = []
    for number in rng.permutation(len(NAMES))[: int(rng.integers(6, 11))]:
        thing = place(rng, NAMES[number], random_color(rng), things, side // CELL - BLOCK + 1)
        if thing is not None:
            things.append(thing)
    return Scene(int(rng.integers(2**31)), tuple(things))


def render_large(scene: Scene, side: int) -> NDArray[np.uint8]:
    """The picture of a large scene, [side, side, 3]: its background blown up, its things at their
    own size.
    """
    small = Image.fromarray(np.clip(background(scene.background) + 0.5, 0, 255).astype(np.uint8))
    return paint(
        np.array(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32), scene.things
    )


def _presence(seed: int, number: int, side: int, save: Save) -> Iterator[VisualQuestion]:
    annotated = []
    for index in range(number):
        scene = sociable_scene(_random(seed, "presence", index))
        targets = tuple(Target(thing.name, thing.box) for thing in scene.things)
        annotated.append(
            Annotated(
                save(f"presence-{index:06d}", render(scene)),
                tuple(target.name for target in targets),
                targets,
            )
        )
    for negatives in NEGATIVES:
        yield from presence_probes(annotated, negatives, per_picture=2, seed=seed)


def sociable_scene(rng: np.random.Generator) -> Scene:
    """Three or four things of different names. Names early in `SOCIABLE` come more often; its neighbours come
    together in two of three scenes.
    """
    weights = 1 / np.arange(1, len(SOCIABLE) + 1) ** 0.7
    while True:
        drawn = [int(i) for i in rng.choice(len(SOCIABLE), size=4, replace=False, p=weights / weights.sum())]
        if rng.random() < 2 / 3:
            drawn.insert(1, drawn[0] ^ 1)
        names = list(dict.fromkeys(SOCIABLE[i] for i in drawn))[: int(rng.integers(3, 5))]
        things: list[Thing] = []
        for name in names:
            thing = place(rng, name, random_color(rng), things)
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
