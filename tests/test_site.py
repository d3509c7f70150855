"""The documentation site."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sparring
from sparring.fields_command import lines_of_verbs

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that the site is built of."""
    out = tmp_path_factory.mktemp("site") / "docs"
    names = runpy.run_path(str(ROOT / "docs/site.py"))
    names["write_site"].__globals__["OUT"] = out
    names["write_site"]()
    return out


def test_every_page_is_in_the_navigation_once(pages: Path) -> None:
    named = re.findall(r"[\w-]+\.md", str(CONFIG["nav"]))
    assert sorted(named) == sorted(path.name for path in pages.glob("*.md"))


def test_links_lead_to_pages_of_the_site(pages: Path) -> None:
    for page in pages.glob("*.md"):
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (pages / link).is_file(), f"{page.name}: {link}"


def test_settings_and_names_are_all_there(pages: Path) -> None:
    settings = (pages / "settings.md").read_text(encoding="utf-8")
    for verb, lines in lines_of_verbs():
        assert f"## sparring {verb}\n" in settings
        assert all(f"| `{line.name}`" in settings for line in lines)
    reference = (pages / "reference.md").read_text(encoding="utf-8")
    assert all(f"::: {module}.{name}\n" in reference for name, module in sparring.HOMES.items())


@pytest.mark.slow
def test_it_builds_without_warnings(pages: Path) -> None:
    folder = pages.parent
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    text = text.replace("build/", "").replace('paths = ["src"]', f'paths = ["{ROOT / "src"}"]')
    (folder / "zensical.toml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--clean", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown = (folder / "site/reference.html").read_text(encoding="utf-8")
    assert "Play a recipe's game in a folder, from the start or from where it was cut off" in shown
    assert "sparring.rl.policy.policy_loss" in shown
