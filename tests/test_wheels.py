"""The two wheels, installed where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
SHORT = {
    "data.generator.arguments": "{train: 32, held_out: 8}",
    "data.held_out": "8",
    "threads": "1",
    "attacker.steps": "1",
    "attacker.questions_per_step": "2",
    "defender.steps": "1",
    "defender.prompts_per_step": "4",
    "selfplay.rounds": "1",
    "selfplay.curriculum.questions": "8",
    "selfplay.require_skill": "false",
    "bootstrap.questions": "4",
    "bootstrap.steps": "1",
}


def test_the_arena_is_played_from_the_wheels_alone(tmp_path: Path) -> None:
    wheels, site, elsewhere = tmp_path / "wheels", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    build = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels))
    subprocess.run([*build, str(HERE), str(HERE / "arena")], check=True)
    sparring, arena = (next(wheels.glob(f"{name}-*.whl")) for name in ("sparring", "sparring_arena"))
    assert sparring.stat().st_size < 1_000_000
    assert arena.stat().st_size < 60_000_000
    with ZipFile(sparring) as packed:
        assert not [name for name in packed.namelist() if "arena/" in name or "workshop" in name]
        assert {"sparring/report/static/view.js", "sparring/report/templates/view/base.html.j2"} <= set(
            packed.namelist()
        )
    with ZipFile(arena) as packed:
        names = packed.namelist()
        assert {name.split("/")[0] for name in names} == {
            "sparring_arena",
            arena.name[: -len("-py3-none-any.whl")] + ".dist-info",
        }
        assert "sparring_arena/players/judge/model.safetensors" in names
    subprocess.run(
        [*PIP, "install", "--no-deps", "--target", str(site), str(sparring), str(arena)], check=True
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def python(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    places = python(
        "import sparring, sparring_arena; print(sparring.__file__, sparring_arena.__file__)"
    ).split()
    assert all(Path(place).is_relative_to(site) for place in places)
    changes = [text for field, value in SHORT.items() for text in ("--set", f"{field}={value}")]
    python("from sparring.cli import app; app()", "run", "arena", "--out", "played", *changes)
    assert (elsewhere / "played/report.html").is_file()
    assert str(site) in (elsewhere / "played/recipe.yaml").read_text()
