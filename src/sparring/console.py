"""What every verb of the command line shares: where it writes, and how an error looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from sparring.data.errors import SparringError

# Without emoji: names such as corruption:fog:3 are to be read as they are.
out_console = Console(soft_wrap=True, highlight=False, emoji=False)
error_console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


@contextmanager
def clean_errors() -> Iterator[None]:
    """Errors that Sparring raises on purpose are messages, not tracebacks; exit code 2."""
    try:
        yield
    except SparringError as error:
        error_console.print(f"[bold red]Error:[/bold red] {escape(str(error))}")
        raise typer.Exit(2) from error


@contextmanager
def stoppable(then: str = "The same command goes on from here.") -> Iterator[None]:
    """Ctrl-C is a wish, not an error: a line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        error_console.print(f"Stopped. {then}")
        raise typer.Exit(130) from None
