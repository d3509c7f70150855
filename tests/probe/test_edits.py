"""Shared edits are taken over by probes that would make the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sparring.config import ProbeSettings
from sparring.data.errors import RunError
from sparring.probe.edits import require_edits_of


def settings(**changes: Any) -> ProbeSettings:
    data: dict[str, Any] = {
        "data": "q.jsonl",
        "defenders": {"d": "/models/d"},
        "defender": {"model": "/models/d"},
        "attackers": {"fog": "corruption:fog:3"},
        "judge": {"integrity_threshold": 0.5},
    }
    return ProbeSettings.model_validate(data | changes)


def write(folder: Path, stored: dict[str, Any]) -> Path:
    (folder / "edits.json").write_text("{}")
    (folder / "probe.yaml").write_text(yaml.safe_dump(stored))
    return folder


def test_what_another_version_did_not_know_has_its_default(tmp_path: Path) -> None:
    stored = settings().model_dump(mode="json")
    del stored["judge"]["light_spread"], stored["samples"]
    require_edits_of(settings(), write(tmp_path, stored))


def test_who_is_probed_and_attackers_of_one_side_alone_do_not_matter(tmp_path: Path) -> None:
    attackers = {"fog": "corruption:fog:3", "cut": "paste:add"}
    more = settings(attackers=attackers, defenders={"e": "/models/e"}, defender={"model": "/models/e"})
    require_edits_of(more, write(tmp_path, settings().model_dump(mode="json")))
    require_edits_of(settings(), write(tmp_path, more.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": {"integrity_threshold": 0.6}}, "judge.integrity_threshold is 0.5 there and 0.6 here"),
        ({"attackers": {"fog": "corruption:fog:2"}}, "attackers.fog is 'corruption:fog:3' there"),
        ({"seed": 4}, "seed is 0 there and 4 here"),
    ],
)
def test_edits_of_other_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match="holds edits of other settings") as error:
        require_edits_of(settings(**changes), write(tmp_path, settings().model_dump(mode="json")))
    assert message in str(error.value)


def test_edits_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no finished edits"):
        require_edits_of(settings(), tmp_path)
