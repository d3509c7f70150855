"""`sparring convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sparring.console import clean_errors, error_console, out_console
from sparring.options import OutOption, SkipOption


def convert(
    data: Annotated[
        Path,
        typer.Option("--data", metavar="PATH", help="Questions in any layout that Sparring reads.", show_default=False),
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
        from sparring.data.convert import convert as write
        from sparring.data.questions import open_records
        from sparring.evaluation.benchmarks import find_benchmark, read_benchmark_records

        if suite is not None:
            records = iter(read_benchmark_records(find_benchmark(suite), data, images, skip_bad=skip_bad_records))
        else:
            records = open_records(data, images, kind or "auto")
        done = write(data, records, out.resolve(), skip_bad=skip_bad_records)
        skipped = len({problem.line for problem in done.problems})
        for count, why in [
            *((count, why) for why, count in done.left_out.items()),
            *([(skipped, "bad")] if skipped else []),
        ]:
            error_console.print(f"[yellow]warning:[/yellow] {count} records are left out: {why}")
        out_console.print(f"{done.written} questions: {escape(str(done.path))}")
