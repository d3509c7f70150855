"""From a template and its contents to one self-contained page."""

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


def write_page(out: Path, template: str, contents: Mapping[str, Any]) -> Path:
    """Write `out/report.html`, whole or not at all; gives its path."""
    environment = Environment(
        loader=PackageLoader("sparring.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(numbers, name) for name in FILTERS})
    environment.globals["boxes"] = boxes
    style = Markup((Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8"))
    text = environment.get_template(template).render(style=style, **contents)
    path = out / "report.html"
    write_whole(path, text)
    return path
