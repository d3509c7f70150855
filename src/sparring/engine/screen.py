"""What a person sees of a run: one bar a stage in a terminal, one line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

LINE_EVERY_SECONDS = 5.0
ROOMY = 110
"""Columns of a terminal from which a bar is drawn too; in a narrower one it would take the room of the
counts."""


def plain_console(*, stderr: bool = False, **options: Any) -> Console:
    """A console that prints text as it is: square brackets and colons in names are no markup, and no line is
    cut or folded."""
    return Console(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False, **options)


def labelled(label: str, style: str, text: str) -> Text:
    """A message behind a coloured label; the message itself is left as it is."""
    return Text.assemble((f"{label}:", style), " ", text)


class Bar:
    """The progress of one stage."""

    def __init__(self, console: Console, title: str, total: int | None, bar: Progress | None) -> None:
        self._console, self._title, self._total, self._bar = console, title, total, bar
        self._task = bar.add_task(title, total=total, figures="") if bar else None
        self._done, self._last_line = 0, time.monotonic()

    def advance(self, count: int, figures: Mapping[str, float]) -> None:
        """`count` more are done; `figures` are shown beside the bar."""
        self._done += count
        text = "  ".join(
            f"{name} {value if isinstance(value, int) else format(value, '#.3g')}"
            for name, value in figures.items()
        )
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, figures=text)
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            of = f"/{self._total}" if self._total is not None else ""
            _print(self._console, f"{self._title}: {self._done}{of}  {text}".rstrip())


class Screen:
    """Where a run reports: standard error, so that standard output stays for results.

    quiet: of the whole process; of what it reports, warnings alone are shown.
    """

    quiet: ClassVar[bool] = False

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or plain_console(stderr=True)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Bar]:
        """A bar for one stage; in a log, a line when it ends."""
        began = time.monotonic()
        if self.quiet:
            yield Bar(Console(quiet=True), title, total, None)
        elif self.console.is_terminal:
            with Progress(*_columns(self.console.width), console=self.console) as progress:
                yield Bar(self.console, title, total, progress)
        else:
            yield Bar(self.console, title, total, None)
            _print(self.console, f"{title}: done in {time.monotonic() - began:.1f} s")

    def say(self, text: str) -> None:
        """One line of news."""
        if not self.quiet:
            _print(self.console, text)

    def warn(self, text: str) -> None:
        """Something that a person should know and that does not stop the run."""
        _print(self.console, labelled("warning", "yellow", text))


def _columns(width: int) -> list[ProgressColumn]:
    """The columns of a bar. Counts and times are never cut: the figures, and then the title, fold where
    there is no room."""
    whole = [Column(no_wrap=True) for _ in range(4)]
    bar = [BarColumn(bar_width=24, table_column=whole[0])] if width >= ROOMY else []
    return [
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        *bar,
        MofNCompleteColumn(table_column=whole[1]),
        TimeElapsedColumn(table_column=whole[2]),
        TimeRemainingColumn(table_column=whole[3]),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(overflow="fold")),
    ]


def _print(console: Console, text: str | Text) -> None:
    """As `plain_console` prints, on any console."""
    console.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)


def duration(seconds: float) -> str:
    """Seconds as "3 h 20 min", "11 min 24 s", "48 s" or, below ten, "4.8 s"."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s" if whole >= 10 or seconds == whole else f"{seconds:.2g} s"


def figures_of(metrics: Mapping[str, Any], *names: str) -> dict[str, float]:
    """The figures of those names that an update reports, for a bar."""
    return {name: float(metrics[name]) for name in names if isinstance(metrics.get(name), (int, float))}
