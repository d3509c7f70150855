"""What a summary says of its own figures."""

from typing import Any

import pytest

from sparring.selfplay.summary import doubts_of


def rate(value: float | None, n: int = 200) -> dict[str, Any]:
    return {
        "value": value,
        "n": n,
        "ci95": [0.0 if value is None else value - 0.05, 1.0 if value is None else value + 0.05],
    }


def summary(valid: list[float | None], success: list[float | None]) -> dict[str, Any]:
    """The bootstrap's figures, then those of each round."""
    rounds = [
        {
            "round": number,
            "attacker": {"label_valid_rate": rate(v), "valid_asr": rate(0.9), "valid_asr_base": rate(s)},
        }
        for number, (v, s) in enumerate(zip(valid[1:], success[1:], strict=True), start=1)
    ]
    return {
        "bootstrap": {"label_valid_rate": rate(valid[0]), "valid_asr": rate(success[0])},
        "rounds": rounds,
    }


@pytest.mark.parametrize(
    ("valid", "success", "expected"),
    [
        ([1.0, 0.96, 0.95], [0.2, 0.3, 0.4], []),
        ([None, None], [None, 0.3], []),
        ([1.0, 1.0], [0.3, 0.3], []),
        ([0.94, 1.0, 0.903], [0.1, 0.2, 0.3], ["round0: the right answer", "round2: the right answer"]),
        (
            [1.0, 1.0, 1.0, 1.0],
            [0.2, 0.5, 0.4, 0.3],
            ["round2: the Attacker fools", "round3: the Attacker fools"],
        ),
        ([1.0, 0.5], [0.2, 0.1], ["round1: the right answer", "round1: the Attacker fools"]),
    ],
)
def test_what_is_to_be_doubted_is_said(
    valid: list[float | None], success: list[float | None], expected: list[str]
) -> None:
    texts = doubts_of(summary(valid, success))
    assert len(texts) == len(expected)
    assert all(text.startswith(start) for text, start in zip(texts, expected, strict=True)), texts
    if success[-1] == 0.3 and len(success) == 4:
        assert "0.300 (0.250 to 0.350) against 0.400 (0.350 to 0.450)" in texts[-1]


def test_a_run_without_figures_has_no_doubts() -> None:
    assert doubts_of({"bootstrap": {}, "rounds": [{"round": 1, "attacker": {}}]}) == []
