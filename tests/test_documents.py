"""What people read holds: links lead somewhere, commands exist, versions agree."""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

import sparring
from sparring.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    for block in re.findall(
        r"```\n(.*?)```|((?:^    .+\n)+)", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in "\n".join(block).replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\.venv/bin/)?sparring +(\w+)(.*)", line)
            if match is None:
                continue
            assert match[1] in VERBS, f"{page.name}: {line}"
            known = {
                name
                for parameter in VERBS[match[1]].params
                for name in (*parameter.opts, *parameter.secondary_opts)
            }
            given = {
                word.partition("=")[0]
                for word in re.findall(r"(?<=\s)--[\w-]+", match[2].partition("#")[0] + " ")
            }
            assert given <= known, f"{page.name}: {line}: {given - known}"


@pytest.mark.parametrize("file", sorted((ROOT / "docs/extend").glob("*.py")), ids=lambda file: file.name)
def test_examples_of_extensions_are_quoted_as_they_stand(file: Path) -> None:
    """`tests/test_extend.py` runs them."""
    page, code = (ROOT / "docs/extend.md").read_text(encoding="utf-8"), file.read_text(encoding="utf-8")
    assert f"```python\n{code}```" in page, f"docs/extend.md shows another {file.name}"


def test_the_files_of_an_update_are_there_and_hold_what_is_to_be_read() -> None:
    page, source = (ROOT / "docs/reading.md").read_text(encoding="utf-8"), ROOT / "src/sparring"
    for name in sorted(set(re.findall(r"`([\w/]+\.py)`", page))):
        assert (source / name).is_file(), f"docs/reading.md names {name}, which is not there"
    lists = [re.findall(r"^\d+\. `(.+?)`(?:, (.+?))?:", part, re.MULTILINE) for part in page.split("\n## ")]
    walks = [steps for steps in lists if steps]
    assert len(walks) == 2
    for steps in walks:
        assert len(steps) <= 8
        for name, inside in steps:
            code = (source / name).read_text(encoding="utf-8")
            for what in re.findall(r"`(\w+)`", inside):
                assert re.search(rf"^(?:def|class) {what}\b", code, re.MULTILINE), f"{name} has no {what}"


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == sparring.__version__
    assert (
        citation["license"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    )


def test_readme_says_beside_your_own_questions_whom_the_bundled_players_know() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Your own questions")[2].partition("\n## ")[0]
    assert "The bundled players know the bundled world only" in section
