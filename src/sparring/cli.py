"""The command line: one verb a function, thin. Heavy imports happen inside the commands, so that --help is
quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from sparring import __version__
from sparring.attack_command import attack
from sparring.console import as_argument, clean_errors, error_console, out_console, stoppable, warn
from sparring.convert_command import convert
from sparring.data.errors import DataError, RecipeError, RunError
from sparring.eval_command import compare, evaluate, rescore
from sparring.fields_command import fields
from sparring.forge_command import forge
from sparring.options import SkipOption
from sparring.probe_command import probe
from sparring.sft_command import sft

if TYPE_CHECKING:
    from sparring.config import Recipe
    from sparring.plan import ModelPlan, Plan

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
RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="A bundled recipe (see `sparring recipes`) or a YAML file of your own.",
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", help="Seed of everything random; the recipe's own if left out.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Change one setting, e.g. defender.learning_rate=1e-4. May be given often. See `sparring "
        "fields`.",
    ),
]


def _load(recipe: str | None, seed: int | None, changes: list[str] | None, skip_bad_records: bool) -> Recipe:
    from sparring.recipes import bundled_recipes, load_recipe

    if recipe is None:
        raise RecipeError(
            f"no recipe given. Bundled are {', '.join(bundled_recipes())}; your own is named by its file."
        )
    overrides = list(changes or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    if skip_bad_records:
        overrides.append("data.skip_bad_records=true")
    return load_recipe(recipe, overrides)


@app.command()
def run(
    recipe: RecipeArgument = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the run; made if it is not there.", show_default=False),
    ] = None,
    seed: SeedOption = None,
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
            if recipe is not None or out is not None or seed is not None or changes or skip_bad_records:
                raise RecipeError(
                    f"--resume goes on with the recipe that {resume} holds; leave RECIPE, --out, --seed, "
                    f"--set and --skip-bad-records out."
                )
            from sparring.recipes import load_stored_recipe

            settings, folder = load_stored_recipe(resume), resume
        else:
            settings = _load(recipe, seed, changes, skip_bad_records)
            if out is None and not dry_run:
                raise RecipeError(
                    "--out is missing: name the folder that the run is to be kept in, for example --out runs/"
                    + settings.name
                )
            folder = out or Path()
        if dry_run:
            _show_plan(settings)
            return
        _play(settings, folder)


def _play(settings: Recipe, folder: Path) -> None:
    from sparring.plan import require_models

    require_models(settings)
    from sparring.engine.files import make_folder
    from sparring.engine.questions import named_sides

    # What is wrong with folder or file is said before what trains is loaded, which takes seconds.
    sides = named_sides(settings, folder) if settings.data.path is not None else None
    make_folder(folder)
    from sparring.report.page import write_report
    from sparring.selfplay.loop import run_game

    with stoppable(f"Go on with: sparring run --resume {as_argument(folder)}"):
        run_game(settings, folder, sides=sides)
    report = write_report(folder)
    out_console.print(f"Figures: {folder / 'summary.json'}\nReport:  {folder / report.name}")


app.command()(attack)
app.command("eval", short_help="Ask a benchmark's questions and score the answers.")(evaluate)
app.command(short_help="Score a finished evaluation's answers anew.")(rescore)
app.command(short_help="Test the paired difference of two evaluations.")(compare)
app.command(short_help="Put vision-language models side by side, under attack.")(probe)
app.command(short_help="Fine-tune a vision-language model on right answers.")(sft)
app.command(short_help="Make adversarial pairs from picture questions.")(forge)
app.command(short_help="Write questions of any layout as JSON lines.")(convert)


@app.command()
def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of a run, or of a finished attack or evaluation.", show_default=False
        ),
    ],
) -> None:
    """Write report.html anew from what a folder holds.

    A run's also while the run still goes on. A probe's figures are in its table.md, a forge's in its
    funnel.json, a fine-tuning's in its summary.json: these have no page.
    """
    with clean_errors():
        from sparring.engine.folder import kind_of

        kind = kind_of(folder)
        if kind == "attack":
            from sparring.report.attack import write_attack_report as write
        elif kind == "evaluation":
            from sparring.report.evaluation import write_eval_report as write
        elif kind in WITHOUT_PAGE:
            raise RunError(
                f"{folder} holds a {kind}, which has no page. Its figures are in "
                f"{folder / WITHOUT_PAGE[kind]}."
            )
        else:
            from sparring.report.page import write_report as write
        out_console.print(f"Report: {write(folder)}")


WITHOUT_PAGE = {"probe": "table.md", "forge": "funnel.json", "fine-tuning": "summary.json"}
"""Kinds of folder that have no page, and the file that a person reads instead."""


@app.command()
def plan(
    recipe: RecipeArgument = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    skip_bad_records: SkipOption = False,
) -> None:
    """Show what a recipe would do, without training.

    Standard output gets the resolved settings as YAML: saved to a file, they are a recipe. Standard error
    gets the data found, the models found and the estimated memory. Nothing is downloaded and no weight is
    loaded. The data file, where there is one, is checked as a run would check it; where a run would stop,
    the exit code is 2.

    \b
    sparring plan arena --set data.path=my.jsonl > mine.yaml
    """
    with clean_errors():
        _show_plan(_load(recipe, seed, changes, skip_bad_records))


def _show_plan(settings: Recipe) -> None:
    from sparring.plan import make_plan, require_models

    found = make_plan(settings)
    sys.stdout.write(
        yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=140)
    )
    sys.stdout.flush()
    say = error_console.print
    say("Data", style="bold")
    _show_data(found)
    say("\nModels", style="bold")
    for model in found.models:
        lora = f", LoRA {_amount(model.lora)}" if model.lora is not None else ""
        size = "" if model.where == "behind an endpoint" else f"; {model.dtype}; {_size(model)}{lora}"
        say(f"{model.player}: {model.name}\n  {model.where}{size}")
    say("\nMemory", style="bold")
    say("(weights and optimiser; activations come on top and grow with micro_batch)")
    for turn, amount in found.memory.items():
        say(f"{turn}: {amount / 1e9:.1f} GB")
    if not found.memory:
        say("unknown: a model is not on this disk, and its size is not known")
    warn(found.warnings)
    if found.missing is not None:
        raise DataError(found.missing)
    require_models(settings)


def _show_data(found: Plan) -> None:
    say = error_console.print
    say(found.data_note)
    for questions in found.data:
        images = len({record.image for record in questions})
        say(f"{len(questions)} questions about {images} image files")
        for category, count in questions.by_category().items():
            say(f"  {category}: {count}")
        if questions.dropped:
            say(f"{questions.dropped} bad records dropped:")
            for reason, count in questions.dropped_by_reason().items():
                say(f"  {reason}: {count}")
    if found.data:
        train, held_out = found.sides
        say(f"{train} to train on, {held_out} held out")


def _size(model: ModelPlan) -> str:
    if model.parameters is None:
        return "parameters unknown"
    detail = ", ".join(f"{part} {_amount(size)}" for part, size in model.parts.items() if part)
    return (
        f"{_amount(model.parameters)} parameters"
        + (f" ({detail})" if detail else "")
        + (", as published" if model.published else "")
    )


def _amount(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.2f} M"


@app.command()
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
            return
        for name in bundled_recipes():
            out_console.print(name, style="bold")
            out_console.print(f"  {describe(name)}")


app.command(short_help="Explain every setting of recipes and of each verb.")(fields)


@app.command(short_help="Print the versions that decide what a run computes.")
def version() -> None:
    """Print the version of Sparring and of the libraries that decide what a run computes."""
    from importlib.metadata import version as version_of

    out_console.print(f"sparring {__version__}")
    for package in ("torch", "transformers", "diffusers", "peft"):
        out_console.print(f"{package} {version_of(package)}")
