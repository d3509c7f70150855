"""`sparring convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparring.console import clean_errors, out_console, warn
from sparring.options import OutOption, SkipOption


def convert(
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="PATH", help="Questions in any layout that Sparring reads.", show_default=False
        ),
    ],
    out: OutOption,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Benchmark whose files these are, as of `sparring eval`. Left out: told by what lies there.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Layout of the data, where it cannot be told, as of `sparring forge`.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of pictures that the data names by path. Left out: the data's own.",
            show_default=False,
        ),
    ] = None,
    skip_bad_records: SkipOption = False,
) -> None:
    """Write questions of any layout as JSON lines, which every verb reads: DIR/questions.jsonl, with the
    pictures in DIR/pictures.

    \b
    sparring convert --data MMStar.tsv --out converted/mmstar
    sparring convert --suite vqav2 --data vqa --images val2014 --out converted/vqa
    """
    with clean_errors():
        from sparring.benchmarks.layouts import find_benchmark, read_benchmark_records
        from sparring.data.convert import PICTURES
        from sparring.data.convert import convert as write
        from sparring.data.questions import open_records
        from sparring.engine.files import unless_refused

        if suite is not None:
            records = iter(
                read_benchmark_records(find_benchmark(suite), data, images, skip_bad=skip_bad_records)
            )
        else:
            records = open_records(data, images, kind or "auto")
        with unless_refused(out, PICTURES):
            done = write(data, records, out.resolve(), skip_bad=skip_bad_records)
        skipped = len({problem.line for problem in done.problems})
        left_out = {**done.left_out, **({"bad": skipped} if skipped else {})}
        warn(f"{count} records are left out: {why}" for why, count in left_out.items())
        out_console.print(f"{done.written} questions: {done.path}")
