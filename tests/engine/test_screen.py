"""Progress: a quiet log, at most a line every few seconds; bars in a terminal."""

import io

import pytest
from rich.console import Console

from sparring.engine import screen
from sparring.engine.screen import Screen, figures_of


def test_a_log_gets_one_line_every_few_seconds_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Screen(Console(file=out, width=200)).stage("round 1: Attacker", 100) as bar:
        for step in range(100):
            now[0] += 0.25
            bar.advance(1, {"reward_mean": step / 100})
    lines = out.getvalue().splitlines()
    assert lines[0] == "round 1: Attacker: 20/100  reward_mean 0.190"
    assert len(lines) == 6
    assert lines[-1] == "round 1: Attacker: done in 25.0 s"


def test_a_share_of_one_does_not_look_like_a_count() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=200, force_terminal=True)).stage("edits", 4) as bar:
        bar.advance(4, {"accepted": 1.0, "kept": 1})
    assert "accepted 1.00  kept 1" in out.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=200, force_terminal=True)).stage("round 1: Attacker", 4) as bar:
        bar.advance(4, {"reward_mean": 0.5})
    assert "4/4" in out.getvalue()
    assert "reward_mean 0.5" in out.getvalue()


def test_warnings_are_marked() -> None:
    out = io.StringIO()
    Screen(Console(file=out, width=200)).warn("round1/attacker: the Attacker found nothing [sic]")
    assert out.getvalue().startswith("warning: round1/attacker")


def test_only_figures_are_shown() -> None:
    assert figures_of({"a": 1, "b": "text", "c": 0.5}, "a", "b", "missing") == {"a": 1.0}
