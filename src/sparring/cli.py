"""The command line: one verb a function, thin. Heavy imports happen inside the commands, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
import yaml
from rich.markup import escape

from sparring import __version__
from sparring.attack_command import attack
from sparring.console import clean_errors, error_console, out_console, stoppable
from sparring.convert_command import convert
from sparring.data.errors import RecipeError
from sparring.eval_command import compare, evaluate, rescore
from sparring.forge_command import forge
from sparring.options import SkipOption
from sparring.probe_command import probe
from sparring.sft_command import sft

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sparring.config import Recipe
    from sparring.plan import ModelPlan, Plan

app = typer.Typer(
    name="sparring",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
    help=(
        "Two policies, one game: an image editor (the Attacker) learns to change pictures so that a vision-language model (the Defender) answers "
        "wrongly, without touching what the question is about; the Defender learns from what survives. They take turns.\n\n"
        "Start with [bold]sparring plan arena[/bold], then [bold]sparring run arena --out runs/arena[/bold]."
    ),
)
RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help="A bundled recipe (see `sparring recipes`) or a YAML file of your own.", show_default=False),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of everything random; the recipe's own if left out.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Change one setting, e.g. defender.learning_rate=1e-4. May be given often. See `sparring fields`.",
    ),
]


def _load(recipe: str | None, seed: int | None, changes: list[str] | None, skip_bad_records: bool) -> Recipe:
    from sparring.recipes import bundled_recipes, load_recipe

    if recipe is None:
        raise RecipeError(f"no recipe given. Bundled are {', '.join(bundled_recipes())}; your own is named by its file.")
    overrides = list(changes or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    if skip_bad_records:
        overrides.append("data.skip_bad_records=true")
    return load_recipe(recipe, overrides)


@app.command()
def run(
    recipe: RecipeArgument = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; made if it is not there.", show_default=False)] = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    skip_bad_records: SkipOption = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", metavar="DIR", help="Go on with the run in this folder after it was stopped or killed.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, as `sparring plan` does, and do nothing.")] = False,
) -> None:
    """Play a whole game: bootstrap, rounds, evaluation, report.

    Everything is checked first: the recipe, the data, the models. A run that was killed goes on with --resume and ends with the same figures as one
    that was not. At the end DIR holds summary.json (the figures), report.html (one self-contained page), ledger.sqlite with pictures/ (every edit,
    answer and verdict) and the trained players, in the formats of diffusers, peft and transformers.

    \b
    sparring run arena --out runs/arena --seed 0
    sparring run arena --out runs/mine --set data.path=my.jsonl
    sparring run --resume runs/arena
    """
    with clean_errors():
        if resume is not None:
            if recipe is not None or out is not None or seed is not None or changes or skip_bad_records:
                raise RecipeError(
                    f"--resume goes on with the recipe that {resume} holds; leave RECIPE, --out, --seed, --set and --skip-bad-records out."
                )
            from sparring.recipes import load_stored_recipe

            settings, folder = load_stored_recipe(resume), resume
        else:
            settings = _load(recipe, seed, changes, skip_bad_records)
            if out is None and not dry_run:
                raise RecipeError(
                    "--out is missing: name the folder that the run is to be kept in, for example --out runs/" + settings.name
                )
            folder = out or Path()
        if dry_run:
            _show_plan(settings)
            return
        _play(settings, folder)


def _play(settings: Recipe, folder: Path) -> None:
    from sparring.plan import require_models

    require_models(settings)
    from sparring.report.page import write_report
    from sparring.selfplay.loop import run_game

    with stoppable(f"Go on with: sparring run --resume {escape(str(folder))}"):
        run_game(settings, folder)
    report = write_report(folder)
    out_console.print(f"Figures: {escape(str(folder / 'summary.json'))}\nReport:  {escape(str(report))}")


app.command()(attack)
app.command("eval")(evaluate)
app.command()(rescore)
app.command()(compare)
app.command()(probe)
app.command()(sft)
app.command()(forge)
app.command()(convert)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, or of a finished attack or evaluation.", show_default=False)
    ],
) -> None:
    """Write report.html anew from what a run's folder holds, also while the run still goes on."""
    with clean_errors():
        if (folder / "attack.yaml").is_file():
            from sparring.report.attack import write_attack_report

            written = write_attack_report(folder)
        elif (folder / "eval.yaml").is_file():
            from sparring.report.evaluation import write_eval_report

            written = write_eval_report(folder)
        else:
            from sparring.report.page import write_report

            written = write_report(folder)
        out_console.print(f"Report: {escape(str(written))}")


@app.command()
def plan(recipe: RecipeArgument = None, seed: SeedOption = None, changes: SetOption = None, skip_bad_records: SkipOption = False) -> None:
    """Show what a recipe would do, without training: resolved settings, data found, models found, estimated memory.

    Nothing is downloaded and no weight is loaded. The data file, where there is one, is checked as a run would check it. The settings are printed as YAML:
    saved to a file, they are a recipe.
    """
    with clean_errors():
        _show_plan(_load(recipe, seed, changes, skip_bad_records))


def _show_plan(settings: Recipe) -> None:
    from sparring.plan import make_plan

    found = make_plan(settings)
    out_console.print("[bold]Settings[/bold]")
    sys.stdout.write(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=140))
    out_console.print("\n[bold]Data[/bold]")
    _show_data(found)
    out_console.print("\n[bold]Models[/bold]")
    for model in found.models:
        lora = f", LoRA {_amount(model.lora)}" if model.lora is not None else ""
        size = "" if model.where == "behind an endpoint" else f"; {model.dtype}; {_size(model)}{lora}"
        out_console.print(f"{model.player}: {escape(model.name)}\n  {model.where}{size}")
    out_console.print("\n[bold]Memory[/bold] (weights and optimiser; activations come on top and grow with micro_batch)")
    for turn, amount in found.memory.items():
        out_console.print(f"{turn}: {amount / 1e9:.1f} GB")
    if not found.memory:
        out_console.print("unknown: a model is not on this disk, and its size is not known")
    for text in found.warnings:
        error_console.print(f"[yellow]warning:[/yellow] {escape(text)}")


def _show_data(found: Plan) -> None:
    out_console.print(escape(found.data_note))
    for questions in found.data:
        images = len({record.image for record in questions})
        out_console.print(f"{len(questions)} questions about {images} image files")
        for category, count in questions.by_category().items():
            out_console.print(f"  {escape(category)}: {count}")
        if questions.dropped:
            out_console.print(f"{questions.dropped} bad records dropped:")
            for reason, count in questions.dropped_by_reason().items():
                out_console.print(f"  {reason}: {count}")
    if found.data:
        train, held_out = found.sides
        out_console.print(f"{train} to train on, {held_out} held out")


def _size(model: ModelPlan) -> str:
    if model.parameters is None:
        return "parameters unknown"
    detail = ", ".join(f"{part} {_amount(size)}" for part, size in model.parts.items() if part)
    return f"{_amount(model.parameters)} parameters" + (f" ({detail})" if detail else "") + (", as published" if model.published else "")


def _amount(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.2f} M"


@app.command()
def recipes() -> None:
    """List the bundled recipes."""
    from sparring.recipes import bundled_recipes, load_recipe

    with clean_errors():
        for name in bundled_recipes():
            out_console.print(f"[bold]{name}[/bold]\n  {escape(load_recipe(name).description.strip())}")


@app.command()
def fields() -> None:
    """Explain every setting that a recipe may hold, with its type and default."""
    from sparring.config import AttackSettings, ForgeSettings, ProbeSettings, Recipe, SftSettings

    _show_fields(Recipe, "")
    out_console.print("\n[bold]Of `sparring attack` alone[/bold]; attacker, defender and judge hold the settings above")
    for name in ("data", "images", "skip_bad_records", "limit", "samples", "seed", "batch", "audit"):
        out_console.print(f"[bold]{name}[/bold]: {escape(AttackSettings.model_fields[name].description or '')}")
    out_console.print("\n[bold]Of `sparring probe` alone[/bold]; attacker, defender, judge and conditions hold the settings above")
    for name in (
        "data",
        "suite",
        "images",
        "resamples",
        "controls",
        "samples",
        "adapt",
        "adapt_queries",
        "adapt_data",
        "letters",
        "text",
        "reasoning_judges",
    ):
        out_console.print(f"[bold]{name}[/bold]: {escape(ProbeSettings.model_fields[name].description or '')}")
    out_console.print("\n[bold]Of `sparring sft` alone[/bold]")
    for name in ("data", "images", "epochs", "checkpoint_every", "defender"):
        out_console.print(f"[bold]{name}[/bold]: {escape(SftSettings.model_fields[name].description or '')}")
    out_console.print(
        "\n[bold]Of `sparring forge` alone[/bold]; stages holds the settings under forge above, attacker, defender and judge theirs"
    )
    for name in ("data", "format", "images", "licence", "limit", "seed", "threads", "batch"):
        out_console.print(f"[bold]{name}[/bold]: {escape(ForgeSettings.model_fields[name].description or '')}")


def _show_fields(model: type[BaseModel], where: str) -> None:
    for name, info in model.model_fields.items():
        kinds = (info.annotation, *get_args(info.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and hasattr(kind, "model_fields")), None)
        default: Any = info.get_default(call_default_factory=True, validated_data={})
        described = "required" if info.is_required() else "" if inner and default is not None else f"default {default!r}"
        kind = (
            ""
            if inner
            else str(getattr(info.annotation, "__name__", info.annotation) if not get_args(info.annotation) else info.annotation)
        )
        kind = kind.replace("typing.", "").replace("NoneType", "null").replace("None", "null")
        notes = "; ".join(part for part in (kind, described.replace("None", "null"), info.description or "") if part)
        out_console.print(f"[bold]{where}{name}[/bold]" + (f": {escape(notes)}" if notes else ""))
        if inner is not None:
            _show_fields(inner, f"{where}{name}.")


@app.command()
def version() -> None:
    """Print the version of Sparring and of the libraries that decide what a run computes."""
    from importlib.metadata import version as version_of

    out_console.print(f"sparring {__version__}")
    for package in ("torch", "transformers", "diffusers", "peft"):
        out_console.print(f"{package} {version_of(package)}")
