"""Where a job was computed is told with it."""

import json
import subprocess
from pathlib import Path

import pytest

from sparring.config import SftSettings
from sparring.engine import environment
from sparring.engine.environment import environments, in_words, note_environment
from sparring.engine.folder import run_folder


def test_versions_commit_and_processor_are_told() -> None:
    found = environment.environment()
    assert found["versions"]["sparring"]
    assert found["versions"]["torch"].startswith("2.")
    assert found["cores"] >= 1
    root = Path(environment.__file__).parents[3]
    if (root / ".git").exists():
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
        assert found["commit"].removesuffix("-dirty") == head.stdout.strip()
    assert json.loads(json.dumps(found)) == found
    told = in_words(found | {"gpus": ["NVIDIA H200"], "commit": None})
    assert told.endswith("NVIDIA H200")
    assert f"torch {found['versions']['torch']}, " in told
    assert "commit" not in told


def test_every_other_machine_is_added_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (2, 2, 8, 2):
        monkeypatch.setattr(environment, "environment", lambda cores=cores: {"cores": cores})
        note_environment(tmp_path)
    assert [one["cores"] for one in environments(tmp_path)] == [2, 8, 2]
    (tmp_path / "environment.json").write_text("[{")
    assert environments(tmp_path) == []
    note_environment(tmp_path)
    assert environments(tmp_path) == [{"cores": 2}]


def test_a_commands_absence_or_failure_is_no_error() -> None:
    assert environment._said(["no-such-command-anywhere"]) is None
    assert environment._said(["false"]) is None
    assert environment._said(["echo", "a"]) == "a"


def test_a_folder_says_where_it_was_computed(tmp_path: Path) -> None:
    settings = SftSettings.model_validate({"data": "d.jsonl", "defender": {"model": "m"}})
    for _ in range(2):
        with run_folder(settings, tmp_path / "out", file="sft.yaml") as folder:
            assert environments(folder) == [environment.environment()]
