"""Cards at the hub, and names that mean the same on another machine."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData

from sparring.data.words import plural
from sparring.engine.files import write_whole
from sparring.forge.publish import places, short
from sparring.recipes.paths import GROUP

PLACE = re.compile(r"""\w+://[^\s"'<>]+|(?<![\w./])/(?:[^\s/"'():;,]+/)+[^\s/"'():;,]*""")
"""An address or an absolute path within a sentence."""


def save_card(out: Path, data: CardData, template: str, **words: Any) -> None:
    """Write README.md: the hub's metadata, and a template of this package filled in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparring.publish"), undefined=jinja2.StrictUndefined, autoescape=False
    )
    environment.filters |= {"plain": plain, "code": code}
    text = environment.get_template(template).render(
        card_data=data.to_yaml(), figure=figure, plural=plural, **words
    )
    write_whole(out / "README.md", text.rstrip() + "\n")


def plain(text: str) -> str:
    """A name or a sentence in Markdown, in one line, such that all of it is text: no markup, link or tag."""
    return re.sub(r"[\\`*_{}\[\]<>#!|&~$@]", r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """A name as code in a line of Markdown, whatever stands in it."""
    line = " ".join(text.split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`"


def figure(rate: dict[str, Any] | None) -> str:
    """A figure with its 95 % interval and n."""
    if not rate or rate["value"] is None:
        return "nothing to count"
    low, high = rate["ci95"]
    return f"{rate['value']:.3f} ({low:.3f} to {high:.3f}), n {rate['n']}"


def without_places(text: str) -> str:
    """A sentence whose addresses and absolute paths are `portable`; a path that has a space, up to that."""
    return PLACE.sub(lambda found: str(portable(found[0])), text)


def portable(value: Any) -> Any:
    """Nested settings whose absolute paths are gone: a model of an installed package has its name again
    (`arena/editor`), other paths their last two parts.
    """
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if "://" in value or "\n" in value:
        return short(value) if "://" in value else value
    return "".join(_name(part) for part in places(value))


def _name(path: str) -> str:
    for point in entry_points(group=GROUP):
        _, found, rest = path.partition(f"/{point.value.replace('.', '/')}/")
        if found:
            return f"{point.name}/{rest}"
    return short(path)
