"""What a reader of an attack's figures is warned of."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sparring.redteam.results import _warnings

ALONE = "an edit counts when the targets are intact, so the right answer may no longer be right"
SILENT = "the audit mine:check could say nothing of any edit that passed the checks"


@pytest.mark.parametrize(
    ("call", "judge", "audited", "expected"),
    [
        (None, None, False, [f"neither judge nor audit: {ALONE}"]),
        ("mine:check", None, False, [f"{SILENT}: {ALONE}"]),
        ("mine:check", "some/judge", False, [SILENT]),
        (None, "some/judge", False, []),
        ("mine:check", None, True, []),
    ],
)
def test_what_nobody_audited_is_said_once(
    call: str | None, judge: str | None, audited: bool, expected: list[str]
) -> None:
    audit = None if call is None else SimpleNamespace(call=call)
    settings = cast(Any, SimpleNamespace(audit=audit, judge=SimpleNamespace(model=judge)))
    right = {"value": 1.0, "n": 9, "ci95": [0.7, 1.0]}
    summary: dict[str, Any] = {
        "set_aside": {},
        "unchanged": 0,
        "edits": 9,
        "first_try": {"asr": right},
        "accepted_rate": right,
        "clean_accuracy": right,
        "baselines": {"majority": {"value": 0.5}},
        "unparsed": {"clean": {"value": 0.0}},
        "label_valid_rate": right,
        "audited": audited,
    }
    assert _warnings(settings, summary) == expected
