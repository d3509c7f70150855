"""What every verb of the command line shares: where it writes, and how headings, warnings and errors look."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import typer

from sparring.data.errors import SparringError
from sparring.engine.screen import labelled, plain_console

MENDED_BY_A_PERSON = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Of the operating system's errors: no permission, no room."""
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        # What a terminal's encoding has no letter for is shown by its number: no name of a file or a question
        # ends a command.
        stream.reconfigure(errors="backslashreplace")
# Neither reads markup or emoji codes: names such as runs/[a]/b and corruption:fog:3 are to be read as they
# are.
out_console = plain_console()
error_console = plain_console(stderr=True)


def as_argument(path: Path) -> str:
    """A path as it is typed in a shell."""
    return quote(str(path))


def warn(texts: Iterable[str]) -> None:
    """A line to standard error for each: what a reader of the results should know."""
    for text in texts:
        error_console.print(labelled("warning", "yellow", text))


@contextmanager
def clean_errors() -> Iterator[None]:
    """Errors that Sparring raises on purpose are messages, not tracebacks; exit code 2."""
    try:
        yield
    except SparringError as error:
        error_console.print(labelled("Error", "bold red", str(error)))
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in MENDED_BY_A_PERSON:
            raise
        error_console.print(labelled("Error", "bold red", f"{error.filename or 'a file'}: {error.strerror}."))
        raise typer.Exit(2) from error


@contextmanager
def stoppable(then: str = "The same command goes on from here.") -> Iterator[None]:
    """Ctrl-C is a wish, not an error: a line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        error_console.print(f"Stopped. {then}")
        raise typer.Exit(130) from None
