"""What a person sees of a run: one bar a stage in a terminal, one line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 5.0


class Bar:
    """The progress of one stage."""

    def __init__(self, console: Console, title: str, total: int | None, bar: Progress | None) -> None:
        self._console, self._title, self._total, self._bar = console, title, total, bar
        self._task = bar.add_task(title, total=total, figures="") if bar else None
        self._done, self._last_line = 0, time.monotonic()

    def advance(self, count: int, figures: Mapping[str, float]) -> None:
        """`count` more are done; `figures` are shown beside the bar."""
        self._done += count
        text = "  ".join(f"{name} {value if isinstance(value, int) else format(value, '#.3g')}" for name, value in figures.items())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, figures=text)
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            of = f"/{self._total}" if self._total is not None else ""
            self._console.print(f"{self._title}: {self._done}{of}  {text}".rstrip(), highlight=False)


class Screen:
    """Where a run reports: standard error, so that standard output stays for results."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, emoji=False)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Bar]:
        """A bar for one stage; in a log, a line when it ends."""
        began = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<24}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, TextColumn("{task.fields[figures]}"), console=self.console) as progress:
                yield Bar(self.console, title, total, progress)
        else:
            yield Bar(self.console, title, total, None)
            self.console.print(f"{title}: done in {time.monotonic() - began:.1f} s", highlight=False)

    def say(self, text: str) -> None:
        """One line of news."""
        self.console.print(text, highlight=False)

    def warn(self, text: str) -> None:
        """Something that a person should know and that does not stop the run."""
        self.console.print(f"[yellow]warning:[/yellow] {text}", highlight=False)


def figures_of(metrics: Mapping[str, Any], *names: str) -> dict[str, float]:
    """The figures of those names that an update reports, for a bar."""
    return {name: float(metrics[name]) for name in names if isinstance(metrics.get(name), (int, float))}
