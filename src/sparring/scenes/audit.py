"""An audit of edited pictures: is the right answer of a question about a scene still right after the edit?

It reads pixels with the oracle and knows how the questions of `questions.py` are worded. It audits what was
made; it is never a reward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sparring.data.errors import DataError
from sparring.data.images import load_image
from sparring.data.pixels import same_light
from sparring.data.records import Target, VisualQuestion
from sparring.scenes.filters import Array
from sparring.scenes.oracle import Fit, Fitter, find, locate, rival
from sparring.scenes.questions import KINDS, SceneQuestion, ask
from sparring.scenes.sprites import COLORS, NAMES, plural
from sparring.scenes.world import SIZE, Scene, Thing, place, random_color, render, sample_scene

_ANY = "|".join(NAMES)
_MANY = "|".join(plural(name) for name in NAMES)
_PATTERNS = (
    rf"Where is the ({_ANY}) relative to the ({_ANY})\?",
    rf"What color is the ({_ANY})\?",
    rf"Is there a ({_ANY}) in the picture\?",
    rf"How many ({_MANY}) are in the picture\?",
)
_SINGULAR = {plural(name): name for name in NAMES} | {name: name for name in NAMES}
CHANGED = 14.0  # grey levels, mean over channels and 3 x 3 pixels, from which a pixel is not as it was
KEPT = 18.0  # grey levels, root mean square under a target, up to which it was not touched
COVERED, MOST_COVERED = (
    60.0,
    0.3,
    # grey levels from which a pixel of a target shows something else; the share up to which a target may be
    # hidden
)
GAIN, TINT = (
    1.8,
    1.25,
    # the strongest change of light that is undone: of all channels by such a factor, of one against their
    # mean by such a one
)
DOUBT = 0.85  # a second colour that explains a target this much as well as its own makes the colour ambiguous


def asked_names(question: str) -> tuple[str, ...] | None:
    """The names of the objects that a question mentions, or None when it is not worded like one of
    `questions.py`.
    """
    for pattern in _PATTERNS:
        if match := re.fullmatch(pattern, question.strip()):
            return tuple(_SINGULAR[name] for name in match.groups())
    return None


def label_valid(question: VisualQuestion, edited: Image.Image) -> bool | None:
    """Whether the question's right answer is still right in the edited picture.

    It is when every target is still at its place, uncovered and of its colour, and no object of a name that
    the question mentions was added. None when the question is not one about a scene: other words, a picture
    of another size, or targets that its picture does not show. Raises DataError when the edited picture has
    not the size of the question's, or the question's picture cannot be read.
    """
    names = asked_names(question.question)
    if names is None:
        return None
    stat = question.image.stat() if question.image.exists() else None
    reference = _reference(
        question.image, (stat.st_mtime_ns, stat.st_size) if stat else None, question.targets
    )
    if reference is None:
        return None
    clean, things = reference
    pixels = np.asarray(edited.convert("RGB"), dtype=np.float32)
    if pixels.shape != clean.shape:
        raise DataError(
            f'question "{question.id}": the edited picture is {edited.width} x {edited.height}, the clean '
            f"one {SIZE} x {SIZE} pixels."
        )
    return still_right(names, things, clean, pixels)


@lru_cache(maxsize=256)
def _reference(
    path: Path, version: object, targets: tuple[Target, ...]
) -> tuple[Array, tuple[Thing, ...]] | None:
    """The clean picture and the targets as they are drawn in it; `version` only tells files of one path
    apart.
    """
    clean = np.asarray(load_image(path), dtype=np.float32)
    if clean.shape != (SIZE, SIZE, 3) or any(target.name not in NAMES for target in targets):
        return None
    fits = [locate(clean, target.name, target.box) for target in targets]
    found = tuple(fit.thing for fit in fits if fit is not None)
    return (clean, found) if len(found) == len(targets) else None


def still_right(
    names: Sequence[str], things: Sequence[Thing], clean: NDArray[Any], edited: NDArray[Any]
) -> bool:
    """The audit itself: `things` are all objects with one of the `names` in the clean picture; pictures
    [SIZE, SIZE, 3] in 0 to 255.

    A change of light alone, within bounds, leaves every answer true.
    """
    before = np.asarray(clean, dtype=np.float32)
    after = same_light(before, np.asarray(edited, dtype=np.float32), gain=GAIN, tint=TINT)
    return all(_kept(thing, before, after) for thing in things) and not _added(names, things, before, after)


def added(
    names: Sequence[str], things: Sequence[Thing], clean: NDArray[Any], edited: NDArray[Any]
) -> list[Thing]:
    """The objects of these names that an edit put in; `things` were there before, at least all of the names.
    Pictures as for `still_right`.
    """
    before = np.asarray(clean, dtype=np.float32)
    return _added(
        names, things, before, same_light(before, np.asarray(edited, dtype=np.float32), gain=GAIN, tint=TINT)
    )


def _added(names: Sequence[str], things: Sequence[Thing], before: Array, after: Array) -> list[Thing]:
    changed = _changed(before, after)
    if not changed.any():
        return []
    rest = after.copy()
    for thing in things:
        Fitter(rest, thing).erase()
        x0, y0, x1, y1 = thing.box
        changed[y0:y1, x0:x1] = False
    return [fit.thing for fit in find(rest, tuple(names), changed)]


def _changed(before: Array, after: Array) -> NDArray[np.bool_]:
    difference = np.pad(np.abs(after - before).mean(-1), 1, mode="edge")
    return np.asarray(
        sum(difference[y : y + SIZE, x : x + SIZE] for y in range(3) for x in range(3)) / 9 > CHANGED
    )


def _kept(thing: Thing, before: Array, after: Array) -> bool:
    """The thing is still there: nearly untouched, or what is to be seen of it is its own sprite in its own
    colour, and no other name fits better.
    """
    x0, y0, x1, y1 = thing.box
    sprite = Fitter(after, thing).sprite(thing.size, thing.angle, thing.mirror)
    body = sprite[..., 3] > 128
    moved = np.square(after[y0:y1, x0:x1] - before[y0:y1, x0:x1]).mean(-1)
    hidden = moved > COVERED**2
    if hidden[body].mean() < 0.05 and moved[body].mean() < KEPT**2:
        return True
    if hidden[body].mean() > MOST_COVERED:
        return False
    seen = after.copy()
    seen[y0:y1, x0:x1][hidden] = before[y0:y1, x0:x1][hidden]
    fitter = Fitter(seen, thing)
    fit = fitter.at(thing.size, thing.angle, thing.mirror, 2, thing.center)
    if fit.explained < 0.7 or _second_color(fitter, fit) > DOUBT * fit.nats:
        return False
    whole = Fitter(after, thing).at(thing.size, thing.angle, thing.mirror, 2, thing.center)
    return rival(after, whole, (thing.name,)) is None


def _second_color(fitter: Fitter, fit: Fit) -> float:
    """How well the best other colour explains the place, in nats."""
    pose = fit.thing
    others = [replace(pose, color=color) for color in COLORS if color != pose.color]
    return max(
        Fitter(fitter.pixels, other).at(pose.size, pose.angle, pose.mirror, 0, pose.center).nats
        for other in others
    )


EDITS = (
    "none",
    "add",
    "duplicate",
    "remove",
    "remove other",
    "move",
    "recolor",
    "recolor other",
    "replace",
    "replace other",
    "replace by asked",
)


@dataclass
class Agreement:
    """How often the audit agreed with the truth on planted edits: of those that leave the answer right, and
    of those that do not.
    """

    valid: int = 0
    valid_agreed: int = 0
    invalid: int = 0
    invalid_agreed: int = 0
    mistakes: list[str] = field(default_factory=list)


def measure(seed: int, number: int, blur: float = 0.0) -> Agreement:
    """The audit against the truth on `number` planted edits of random scenes, the kinds of edit and of
    question in turn.

    The edited picture is a render of the changed scene, softened by a Gaussian of `blur` pixels as a small
    autoencoder's pictures are.
    """
    result = Agreement()
    index = 0
    while result.valid + result.invalid < number:
        done, index = result.valid + result.invalid, index + 1
        rng = np.random.default_rng([seed, index])
        scene = sample_scene(rng)
        asked = ask(scene, KINDS[done // len(EDITS) % len(KINDS)], rng)
        after = None if asked is None else plant(scene, asked, EDITS[done % len(EDITS)], rng)
        if asked is None or after is None:
            continue
        picture = (
            Image.fromarray(render(after)).filter(ImageFilter.GaussianBlur(blur))
            if blur
            else Image.fromarray(render(after))
        )
        truth = all(thing in after.things for thing in asked.about) and all(
            after.count(name) == scene.count(name) for name in asked.names
        )
        agreed = still_right(asked.names, asked.about, render(scene), np.asarray(picture)) == truth
        if truth:
            result.valid, result.valid_agreed = result.valid + 1, result.valid_agreed + agreed
        else:
            result.invalid, result.invalid_agreed = result.invalid + 1, result.invalid_agreed + agreed
        if not agreed:
            result.mistakes.append(
                f"[{seed}, {index}] {EDITS[done % len(EDITS)]}, {asked.question} "
                f"{'valid' if truth else 'invalid'} in truth"
            )
    return result


def plant(scene: Scene, asked: SceneQuestion, edit: str, rng: np.random.Generator) -> Scene | None:
    """The scene after an edit of that kind, or None when it allows none. Targets are what the question is
    about, others what it does not name.
    """
    targets = [i for i, thing in enumerate(scene.things) if thing in asked.about]
    others = [i for i, thing in enumerate(scene.things) if thing.name not in asked.names]
    free = [name for name in NAMES if name not in asked.names and not scene.count(name)]
    name, asked_name = free[int(rng.integers(len(free)))], asked.names[int(rng.integers(len(asked.names)))]
    if edit == "none":
        return scene
    if edit in ("add", "duplicate"):
        new = place(
            rng,
            name if edit == "add" else asked_name,
            random_color(rng),
            [t.box for t in scene.things],
            sizes=(14, 25),
            tries=60,
        )
        return None if new is None else scene.with_thing(new)
    pool = (
        others if edit in ("remove other", "recolor other", "replace other", "replace by asked") else targets
    )
    if not pool:
        return None
    index = pool[int(rng.integers(len(pool)))]
    old, rest = scene.things[index], scene.without(index)
    taken = [thing.box for thing in rest.things]
    if edit.startswith("remove"):
        return rest
    if edit.startswith("recolor"):
        color = random_color(rng)
        return None if color == old.color else scene.swapped(index, replace(old, color=color))
    if edit == "move":
        moved = place(rng, old.name, old.color, taken, tries=60)
        return (
            None
            if moved is None or max(abs(a - b) for a, b in zip(moved.center, old.center, strict=True)) < 6
            else scene.swapped(index, moved)
        )
    # The new thing has the colour and nearly the place of the old one: the hardest to tell.
    found = [
        place(rng, asked_name if edit == "replace by asked" else name, old.color, taken, tries=4)
        for _ in range(60)
    ]
    near = [
        new
        for new in found
        if new is not None and max(abs(a - b) for a, b in zip(new.center, old.center, strict=True)) < 8
    ]
    return scene.swapped(index, near[0]) if near else None
