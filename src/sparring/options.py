"""Options that several verbs of the command line have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Folder of the results; made if it is not there.", show_default=False
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Questions at most, drawn by the seed. Left out: all.", show_default=False
    ),
]
SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-bad-records",
        help="Drop records that do not load, and say how many and why, instead of stopping at them.",
    ),
]
AuditOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="A function of yours, f(question, edited_image) -> True, False or None: is the right answer "
        "still right?",
        show_default=False,
    ),
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Requests under way at a time; 8 if left out.", show_default=False),
]
