"""Writes the pages that the documentation site is built of to build/docs (`make docs`).

These are the pages of this folder, the README as the first one, and two that are generated: the settings,
from their types, and the reference of the code, which mkdocstrings fills in from docstrings. A link to a file
that is no page becomes the file's name: the site stands without the repository.

    python docs/site.py
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import sparring
from sparring.fields_command import Line, lines_of_verbs

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build/docs"
KEPT = (".md", ".png", ".webp", ".ipynb")
INSIDE = {
    "Mathematics": ["rl.advantages", "rl.policy", "rl.flow", "rl.nft"],
    "Players": ["models.editors.base.FlowEditor", "models.vlms.base", "attackers.rivals.base.Rival"],
    "Judging": ["judging.vet", "judging.rewards", "judging.integrity"],
    "Measures": ["measures.statistics", "measures.payoff"],
    "A run": ["selfplay.loop", "engine.ledger", "engine.folder"],
}
"""Of the code behind the public names, what extensions and readers of figures need."""


def write_site() -> None:
    """Write build/docs anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for file in sorted((ROOT / "docs").iterdir()):
        if file.suffix in KEPT:
            shutil.copyfile(file, OUT / file.name)
    for page in OUT.glob("*.md"):
        page.write_text(_linked(page.read_text(encoding="utf-8"), ROOT / "docs"), encoding="utf-8")
    for name, title in (("README", "index"), ("CHANGELOG", "changelog")):
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        (OUT / f"{title}.md").write_text(_linked(text, ROOT), encoding="utf-8")
    (OUT / "settings.md").write_text("\n".join(_settings()) + "\n", encoding="utf-8")
    (OUT / "reference.md").write_text("\n".join(_reference()) + "\n", encoding="utf-8")


def _linked(text: str, folder: Path) -> str:
    """A page of `folder` with its links as they are in the site."""

    def link(match: re.Match[str]) -> str:
        shown, place, anchor = match.groups()
        target = (folder / place).resolve()
        if target.parent == ROOT / "docs" and target.suffix in KEPT:
            return f"[{shown}]({target.name}{anchor or ''})"
        if target == ROOT / "CHANGELOG.md":
            return f"[{shown}](changelog.md)"
        where = f"`{target.relative_to(ROOT)}`"
        return where if shown.strip("`") in where else f"{shown} ({where})"

    return re.sub(r"\[((?:[^\[\]])*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)", link, text)


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Every setting, as `--set` takes it and `sparring fields` prints it."
    yield "Where an algorithm alone reads one, that stands in brackets."
    for verb, lines in lines_of_verbs():
        yield f"\n## sparring {verb}\n"
        yield "| setting | kind | default | what it means |"
        yield "|---|---|---|---|"
        yield from map(_row, lines)


def _row(line: Line) -> str:
    name = f"`{line.name}`" + (f" ({line.algorithm})" if line.algorithm else "")
    words = "; ".join(part for part in (line.description, line.again) if part)
    cells = [name, _code(line.kind), _code(line.default.removeprefix("default ")), html.escape(words)]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>".replace("|", "&#124;") if text else ""


def _reference() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Made from the docstrings. What `import sparring` offers comes first ([how to use it](python.md));"
    yield "the rest may change from version to version."
    yield "\n## sparring\n"
    for name, module in sparring.HOMES.items():
        yield f"::: {module}.{name}\n"
    for title, names in INSIDE.items():
        yield f"\n## {title}\n"
        for name in names:
            yield f"::: sparring.{name}\n"


if __name__ == "__main__":
    write_site()
