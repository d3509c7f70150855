"""The style sheet: whatever is written or drawn stands out against whatever it may lie on, in light and in
dark."""

import re
from importlib.resources import files

import pytest

from sparring.report.numbers import ON_NIGHT, ON_PAPER, color_of, contrast, ink_on
from sparring.report.page import KIND_ORDER

CSS = files("sparring.report").joinpath("templates/report.css").read_text(encoding="utf-8")
ROOTS = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
LEAST = 4.5  # WCAG 2.2, level AA, text of any size
PLACES = ("paper", "card", "wash", "accent-wash")
DECORATION = {"line"}  # borders of cards and the grid of charts, which say nothing


def variables(root: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6,8})", root))


LIGHT = variables(ROOTS[0])
SCHEMES = {"light": LIGHT, "dark": LIGHT | variables(ROOTS[1])}


def over(top: str, ground: str) -> str:
    """A colour with transparency, such as #17343699, on an opaque one."""
    share = int(top[7:9], 16) / 255 if len(top) == 9 else 1.0
    pairs = ((int(top[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def test_there_are_two_schemes_and_both_name_every_colour() -> None:
    assert len(ROOTS) == 2
    assert variables(ROOTS[1]).keys() == LIGHT.keys()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_ink_can_be_read_on_every_ground(scheme: str) -> None:
    colors = SCHEMES[scheme]
    used = set(re.findall(r"(?:^|[;{\s])(?:color|fill|stroke|background): var\(--([\w-]+)\)", CSS)) - {
        *PLACES,
        *DECORATION,
    }
    used -= {"l", "d"}  # the cells of heat maps, tested below
    assert used == {"ink", "soft", "faint", "accent"}
    for ink in used:
        for ground in ("paper", "card"):
            for place in PLACES:
                found = contrast(colors[ink], over(colors[place], colors[ground]))
                assert found >= LEAST, f"{ink} on {place} over {ground}: {found:.2f}"


def test_nothing_is_made_fainter_than_its_colour() -> None:
    """Transparency would undo what the colours promise; an input without a look of its own is no text."""
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", CSS):
        if "opacity" in body:
            assert selector.strip() == "fieldset input"
    # boxes on pictures
    fixed = re.sub(r"\.kind-[^}]*\}|\.inside \{ fill: #fff;", "", CSS).replace("stroke: #fff", "")
    assert not re.findall(r"(?:color|fill|stroke): #", fixed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_kinds_of_edits_stand_out_and_their_figures_can_be_read(scheme: str) -> None:
    kinds = dict(re.findall(r"\.kind-(\w+) \{ fill: (#[0-9a-f]{6});", CSS))
    assert kinds.keys() == set(KIND_ORDER)
    assert len(set(kinds.values())) == len(kinds)
    for color in kinds.values():
        assert contrast("#ffffff", color) >= LEAST  # the figure inside the bar
        for place in ("paper", "card"):
            assert contrast(color, SCHEMES[scheme][place]) >= 3  # WCAG 2.2: what a graphic is made of


VIEW = files("sparring.report").joinpath("static/view.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_colours_of_the_viewer_stand_out(scheme: str) -> None:
    """What is good or bad, and the line of every run, on whatever they may lie on; runs differ."""
    found = re.findall(r"--(bad|good): (#[0-9a-f]{6})", VIEW)
    runs = re.findall(r"\.run\d \{ --run: (#[0-9a-f]{6});", VIEW)
    assert (len(found), len(runs)) == (4, 12)
    own = [color for _, color in found][:2] if scheme == "light" else [color for _, color in found][2:]
    lines = runs[:6] if scheme == "light" else runs[6:]
    assert len(set(lines)) == 6
    for color in (*own, *lines):
        for place in ("paper", "card"):
            assert contrast(color, SCHEMES[scheme][place]) >= LEAST, (color, place)


@pytest.mark.parametrize("stops", [ON_PAPER, ON_NIGHT])
def test_figures_can_be_read_on_every_colour_of_a_heat_map(stops: tuple[str, ...]) -> None:
    assert (
        min(contrast(ink_on(color), color) for color in (color_of(step / 200, stops) for step in range(201)))
        >= LEAST
    )
