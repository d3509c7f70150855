"""Progress: a quiet log, at most a line every few seconds; bars in a terminal."""

import io
import re

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


@pytest.mark.parametrize(
    "text", ["runs/[exp]/a", "[/b] ends nothing", "corruption:fog:3", "[red]not red", ":smile:", "x" * 300]
)
def test_text_is_shown_as_it_is(text: str) -> None:
    for terminal in (False, True):
        out = io.StringIO()
        shown = Screen(Console(file=out, width=80, force_terminal=terminal, color_system=None))
        shown.say(text)
        shown.warn(text)
        with shown.stage(text, 1) as bar:
            bar.advance(1, {})
        written = out.getvalue()
        assert f"{text}\n" in written
        assert f"warning: {text}\n" in written
        assert len(text) > 80 or f"{text} " in written or f"{text}: done" in written


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_counts_and_times_are_never_cut(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with Screen(console).stage("held-out edits: reencoded", 123456) as bar:
        bar.advance(120000, {"reward_mean": -0.123, "accepted": 0.875, "fooled": 0.254})
    written = out.getvalue()
    assert "120000/123456" in written
    assert "\u2026" not in written
    for figure in ("reward_mean", "-0.123", "accepted", "0.875", "fooled", "0.254", "reencoded"):
        assert figure in written
    assert (
        max(len(line) for line in re.sub("\x1b\\[[0-9?;]*[a-zA-Z]|\r", "\n", written).splitlines()) <= width
    )


def test_only_figures_are_shown() -> None:
    assert figures_of({"a": 1, "b": "text", "c": 0.5}, "a", "b", "missing") == {"a": 1.0}
