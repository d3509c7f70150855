"""`sparring study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import OutOption, clean_errors, error_console, out_console, result, stoppable
from sparring.data.words import plural

if TYPE_CHECKING:
    from sparring.study.plan import Study


def study(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY.yaml", help="Arms, seeds, opponents (docs/study.md).", show_default=False
        ),
    ],
    out: OutOption,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Games and probes at a time, each a process of its own.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells and how long is left, and do nothing.")
    ] = False,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim", help="Delete of finished cells what no cell that is left, and no figure, needs."
        ),
    ] = False,
) -> None:
    """Compare recipes over seeds: play every arm's game with every seed, probe what it trained.

    A cell is one game, or the probe of one Defender. What is done is not done again: the same command goes
    on where a stopped or killed one was, and ends with the same figures. A cell that fails is told, the
    others go on, and the exit status is 1; the next time it is tried again. DIR then holds study.json (every
    figure with interval and seeds, and differences to the baseline arm), study.md (tables), study.png,
    report.html, games/ARM-SEED (runs), probes/ARM-SEED (probes) and logs/.

    \b
    sparring study examples/evidence.yaml --out studies/evidence --workers 2
    """
    with clean_errors():
        from sparring.study.plan import load_study
        from sparring.study.run import run_study
        from sparring.study.trim import require_own

        plan = load_study(file)
        _require_files(plan)
        if dry_run:
            require_own(plan, out.resolve())
            _show(plan, out.resolve(), workers)
            return
        with stoppable():
            results = run_study(plan, out, workers, trim=trim)
        from sparring.report.study import write_study_report

        report = write_study_report(out)
        out_console.print((out / "study.md").read_text(encoding="utf-8"))
        out_console.print(f"Figures: {out / 'study.json'}\nReport:  {out / report.name}")
        result(results)
        if results["failed"]:
            error_console.print(
                f"{plural(len(results['failed']), 'cell')} failed (see above). The same command tries again."
            )
            raise typer.Exit(1)


def _require_files(plan: Study) -> None:
    """Raise ModelError, RecipeError or DataError where a model, function or file of an arm is not there: its
    games would tell it an hour later, one after the other.
    """
    from sparring.data.errors import DataError, SparringError
    from sparring.plan import require_models
    from sparring.recipes.check import require_playable

    for arm in dict.fromkeys(plan.players.values()):
        recipe = plan.recipes[arm]
        try:
            require_models(recipe)
            require_playable(recipe)
        except SparringError as error:
            raise type(error)(f"arms.{arm}: {error}") from error
        for name in ("path", "held_out_path"):
            path = getattr(recipe.data, name)
            if path is not None and not Path(path).exists():
                raise DataError(f"arms.{arm}: data.{name}: {path} is not there.")


def _show(plan: Study, out: Path, workers: int) -> None:
    """Every cell with the time that it took, or should take."""
    from sparring.engine.screen import duration
    from sparring.study.run import expected, seconds_of, time_left

    cells, took, to_do = plan.cells(), seconds_of(plan, out), plan.to_do(out)
    rows: list[dict[str, Any]] = []
    for cell in cells:
        seconds = took[cell] if cell in took else expected(cell, took, plan.settings.seconds)
        done = cell not in to_do
        rows.append({"cell": str(cell), "done": done, "seconds": seconds})
        said = "time unknown" if seconds is None else f"{'' if done else 'some '}{duration(seconds)}"
        out_console.print(f"{cell}: {'done in' if done else 'to do,'} {said}")
    left = time_left(took, dict.fromkeys(to_do, 0.0), workers, plan.settings.seconds)
    games, edits, probes = (sum(cell.kind == kind for cell in cells) for kind in ("game", "edits", "probe"))
    out_console.print(
        f"{plural(games, 'game')}, shared edits of {plural(edits, 'seed')}, {plural(probes, 'probe')}; "
        f"{len(cells) - len(to_do)} done. Left, {workers} at a time: {left}."
    )
    result({"cells": rows, "left": left})
