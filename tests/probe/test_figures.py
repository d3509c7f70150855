"""What a reader of an attack's figures is warned of."""

import pytest

from sparring.probe.figures import unaudited

ALONE = "an edit counts as valid when the targets are intact, so the right answer may no longer be right"
SILENT = "the audit mine:check could say nothing of any edit that passed the checks"


@pytest.mark.parametrize(
    ("call", "judge", "expected"),
    [
        (None, None, [f"neither judge nor audit: {ALONE}"]),
        ("mine:check", None, [f"{SILENT}: {ALONE}"]),
        ("mine:check", "some/judge", [SILENT]),
        (None, "some/judge", []),
    ],
)
def test_what_nobody_audited_is_said_once(call: str | None, judge: str | None, expected: list[str]) -> None:
    assert unaudited(call, judge) == expected
