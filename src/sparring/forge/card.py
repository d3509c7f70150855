"""The card of a data set: what is in it, from where, by which models and settings, and how much was dropped why."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import yaml
from PIL import Image

from sparring.config import ForgeSettings
from sparring.data.images import load_image
from sparring.forge.ledger import Ledger

SHOWN, SIDE = 6, 160


def write_card(
    folder: Path, settings: ForgeSettings, ledger: Ledger, funnel: dict[str, Any], splits: Mapping[str, str], apart: Mapping[str, str]
) -> None:
    """Write README.md, and samples.png where a pair was kept. splits, apart: name -> file of those that have
    rows. Of paths on this disk only the last two names are told."""
    samples = _samples(folder / "samples.png", ledger)
    template = files("sparring.forge").joinpath("templates/card.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    told = _without_paths(settings.model_dump(mode="json"))
    funnel = funnel | {"models": _without_paths(funnel["models"])}
    text = environment.from_string(template).render(
        title=f"Forged pairs from {Path(settings.data).stem}",
        source=short(settings.data),
        licence=settings.licence,
        splits=splits,
        apart=apart,
        funnel=funnel,
        samples=samples,
        settings=yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=140),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def short(name: str) -> str:
    """A model's or file's name without the folders or the server that it lies in: those are nobody else's affair."""
    if "://" in name:
        return name.partition("#")[2] or "an endpoint"
    return "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() else name


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    return short(value) if isinstance(value, str) else value


def _samples(path: Path, ledger: Ledger) -> str | None:
    """The first kept pairs, clean above adversarial."""
    pairs = [(row.clean, row.picture) for row in islice(ledger.rows("kept"), SHOWN)]
    if not pairs:
        return None
    sheet = Image.new("RGB", (len(pairs) * (SIDE + 4) - 4, 2 * SIDE + 4), "white")
    for column, pair in enumerate(pairs):
        for line, name in enumerate(pair):
            picture = load_image(ledger.path(name or ""))
            scale = min(SIDE / picture.width, SIDE / picture.height)
            small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.LANCZOS)
            sheet.paste(small, (column * (SIDE + 4) + (SIDE - small.width) // 2, line * (SIDE + 4) + (SIDE - small.height) // 2))
    sheet.save(path)
    return path.name
