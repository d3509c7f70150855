"""The command line: one verb a function, thin. Heavy imports happen inside the commands, so that --help is
quick.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import (
    LogLevelOption,
    QuietOption,
    RecipeArgument,
    RunSeedOption,
    SetOption,
    SkipOption,
    Verb,
    as_argument,
    clean_errors,
    load,
    machine_readable,
    out_console,
    result,
    settle_output,
    stoppable,
)
from sparring.data.errors import RecipeError, RunError
from sparring.data_commands import convert, forge
from sparring.eval_command import compare, evaluate, rescore
from sparring.fields_command import fields
from sparring.plan_command import plan, show_plan
from sparring.probe_command import attack, probe
from sparring.publish_command import publish
from sparring.sft_command import sft
from sparring.study_command import study
from sparring.view_command import view

if TYPE_CHECKING:
    from sparring.config import Recipe

app = typer.Typer(
    name="sparring",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,  # help is plain text: what stands in it is what a person types
    help=(
        "Two policies, one game: an image editor (the Attacker) learns to change pictures so that a "
        "vision-language "
        "model (the Defender) answers wrongly, without touching what the question is about; the "
        "Defender learns from "
        "what survives. They take turns.\n\n"
        "Start with `sparring plan arena`, then `sparring run arena --out runs/arena`."
    ),
)


@app.callback()
def everywhere(log_level: LogLevelOption = None, quiet: QuietOption = False) -> None:
    settle_output(log_level, quiet)


def command(name: str | None = None, **words: Any) -> Callable[[Callable[..., None]], None]:
    """Make a verb of a function."""

    def add(verb: Callable[..., None]) -> None:
        app.command(name, cls=Verb, **words)(machine_readable(verb))

    return add


@command()
def run(
    recipe: RecipeArgument = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the run; made if it is not there.", show_default=False),
    ] = None,
    seed: RunSeedOption = None,
    changes: SetOption = None,
    skip_bad_records: SkipOption = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with the run in this folder after it was stopped or killed.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be done, as `sparring plan` does, and do nothing."),
    ] = False,
) -> None:
    """Play a whole game: bootstrap, rounds, evaluation, report.

    Everything is checked first: the recipe, the data, the models. A run that was killed goes on with
    --resume and ends with the same figures as one that was not. At the end DIR holds summary.json (the
    figures), report.html (one self-contained page), ledger.sqlite with pictures/ (every edit, answer and
    verdict) and the trained players, in the formats of diffusers, peft and transformers.

    \b
    sparring run arena --out runs/arena --seed 0
    sparring run arena --out runs/mine --set data.path=my.jsonl
    sparring run --resume runs/arena
    """
    with clean_errors():
        if resume is not None:
            if recipe is not None or out is not None or seed is not None or skip_bad_records:
                raise RecipeError(
                    f"--resume goes on with the recipe that {resume} holds; leave RECIPE, --out, --seed and "
                    f"--skip-bad-records out. Of --set only engine.*, track and the pace of endpoints may be "
                    f"given."
                )
            from sparring.recipes import load_stored_recipe

            settings, folder = load_stored_recipe(resume, changes or []), resume
        else:
            settings = load(recipe, seed, changes, skip_bad_records)
            if out is None and not dry_run:
                raise RecipeError(
                    "--out is missing: name the folder that the run is to be kept in, for example --out runs/"
                    + settings.name
                )
            folder = out or Path()
        if dry_run:
            show_plan(settings)
            return
        _play(settings, folder, () if resume is None else changes or ())


def _play(settings: Recipe, folder: Path, changes: Sequence[str] = ()) -> None:
    """Play, and say what the figures are. changes: those that hold for this process alone."""
    from sparring.plan import require_models

    require_models(settings)
    from sparring.engine.files import make_folder
    from sparring.engine.questions import named_sides
    from sparring.engine.trackers import require_trackers

    require_trackers(settings)
    # What is wrong with folder or file is said before what trains is loaded, which takes seconds.
    sides = named_sides(settings, folder) if settings.data.path is not None else None
    make_folder(folder)
    from sparring.report.page import write_report
    from sparring.selfplay.loop import run_game

    again = [word for change in changes for word in ("--set", change)]
    with stoppable(f"Go on with: {shlex.join(['sparring', 'run', '--resume', str(folder), *again])}"):
        summary = run_game(settings, folder, sides=sides)
    report = write_report(folder)
    out_console.print(f"Figures: {folder / 'summary.json'}\nReport:  {folder / report.name}")
    result(summary)


command("attack", short_help="Red-team a vision-language model, without training anything.")(attack)
command("eval", short_help="Ask a benchmark's questions and score the answers.")(evaluate)
command(short_help="Score a finished evaluation's answers anew.")(rescore)
command(short_help="Test the paired difference of two evaluations.")(compare)
command(short_help="Put vision-language models side by side, under attack.")(probe)
command(short_help="Compare recipes over seeds: games, probes, one table.")(study)
command(short_help="Fine-tune a vision-language model on right answers.")(sft)
command(short_help="Make adversarial pairs from picture questions.")(forge)
command(short_help="Write questions of any layout as JSON lines.")(convert)
command(short_help="Show what a recipe would do, need and cost.")(plan)


@command()
def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of a run, or of a finished probe, evaluation or study.",
            show_default=False,
        ),
    ],
) -> None:
    """Write report.html anew from what a folder holds.

    A run's also while the run still goes on. A forge's figures are in its funnel.json, a fine-tuning's in its
    summary.json: these have no page.
    """
    with clean_errors():
        from sparring.engine.folder import kind_of

        kind = kind_of(folder)
        if kind == "probe":
            from sparring.report.probe import write_probe_report as write
        elif kind == "evaluation":
            from sparring.report.evaluation import write_eval_report as write
        elif kind == "study":
            from sparring.report.study import write_study_report as write
        elif kind in WITHOUT_PAGE:
            raise RunError(
                f"{folder} holds a {kind}, of which no page is made. Its figures are in "
                f"{folder / WITHOUT_PAGE[kind]}."
            )
        else:
            from sparring.report.page import write_report as write
        page = write(folder)
        out_console.print(f"Report: {page}")
        result({"report": page})


WITHOUT_PAGE = {"attack": "summary.json", "forge": "funnel.json", "fine-tuning": "summary.json"}
"""Kinds of folder that have no page (an "attack" is one of an earlier version), and the file that a person
reads instead.
"""


@command()
def recipes(
    copy: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--copy",
            metavar="RECIPE FILE",
            help="Copy a bundled recipe to a file of your own, to be changed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the bundled recipes, or copy one."""
    with clean_errors():
        from sparring.recipes.load import bundled_recipes, copy_recipe, describe

        if copy is not None:
            name, file = copy
            copy_recipe(name, file)
            out_console.print(
                f"Recipe: {file}\nPlay it with: sparring run {as_argument(file)} --out runs/{file.stem}"
            )
            result({"recipe": file})
            return
        described = {name: describe(name) for name in bundled_recipes()}
        for name, words in described.items():
            out_console.print(name, style="bold")
            out_console.print(f"  {words}")
        result(described)


command(short_help="Watch runs in a browser, while they go on and after.")(view)
command(short_help="Share players, data sets and figures.")(publish)
command(short_help="Explain every setting of recipes and of each verb.")(fields)


@command(short_help="Print the versions that decide what a run computes.")
def version() -> None:
    """Print the version of Sparring and of the libraries that decide what a run computes."""
    from sparring.engine.environment import versions

    found = versions()
    for package, own in found.items():
        out_console.print(f"{package} {own}")
    result(found)
