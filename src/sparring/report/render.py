"""From a template and its contents to a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sparring.engine.files import write_whole
from sparring.report import numbers
from sparring.report.charts import boxes

FILTERS = (
    "percent",
    "points",
    "interval",
    "points_interval",
    "change",
    "count",
    "duration",
    "player",
    "algorithm",
    "kind",
    "hits",
)


TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """The templates of pages, with the filters that write figures as a person reads them."""
    found = Environment(
        loader=PackageLoader("sparring.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update({name: getattr(numbers, name) for name in FILTERS})
    found.globals["boxes"] = boxes
    return found


def write_page(out: Path, template: str, contents: Mapping[str, Any]) -> Path:
    """Write `out/report.html`, whole or not at all; gives its path."""
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    text = environment().get_template(template).render(style=style, **contents)
    path = out / "report.html"
    write_whole(path, text)
    return path
