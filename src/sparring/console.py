"""What every verb of the command line shares: where it writes, how headings, warnings and errors look, and
the options that several or all verbs have.

Results go to `out_console` or, with --json, as one document to standard output by `result`; then
`out_console` writes to standard error. What is neither a result nor a warning goes to `note`.
"""

from __future__ import annotations

import errno
import functools
import inspect
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from sparring.data.errors import RecipeError, SparringError
from sparring.engine.screen import Screen, labelled, plain_console
from sparring.engine.stopping import Stopped, heeding_signals

if TYPE_CHECKING:
    from sparring.config import EngineSettings, Recipe

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


def note(text: object, **style: Any) -> None:
    """To standard error, unless --quiet: what is good to know beside the results."""
    if not Screen.quiet:
        error_console.print(text, **style)


def result(document: object) -> None:
    """With --json: the one document of standard output. A verb gives it last, when all is done."""
    if out_console.stderr:
        sys.stdout.write(json.dumps(document, indent=1, default=str) + "\n")
        sys.stdout.flush()


def warn(texts: Iterable[str]) -> None:
    """A line to standard error for each: what a reader of the results should know."""
    for text in texts:
        error_console.print(labelled("warning", "yellow", text))


@contextmanager
def clean_errors() -> Iterator[None]:
    """Errors that Sparring raises on purpose are messages, not tracebacks; exit code 2. With --json they are
    the document: {"error": message}.
    """
    try:
        yield
    except SparringError as error:
        _refuse(str(error))
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in MENDED_BY_A_PERSON:
            raise
        _refuse(f"{error.filename or 'a file'}: {error.strerror}.")
        raise typer.Exit(2) from error


def _refuse(message: str) -> None:
    error_console.print(labelled("Error", "bold red", message))
    result({"error": message})


@contextmanager
def stoppable(then: str = "The same command goes on from here.") -> Iterator[None]:
    """SIGTERM and Ctrl-C are wishes, not errors: what `engine.stopping.finished_first` holds is finished, a
    line says how to go on, and the exit status is 143 or 130.
    """
    try:
        with heeding_signals(error_console.print):
            yield
    except KeyboardInterrupt as wish:
        error_console.print(f"Stopped. {then}")
        raise typer.Exit(wish.exit_status if isinstance(wish, Stopped) else 130) from None


USAGE_ERROR: type[Any] = typer.BadParameter.__bases__[0]
"""What a wrong command line raises: of the library click, which typer has made a part of itself."""


class Verb(TyperCommand):
    """A verb that, given an option of all verbs, says where that one stands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            option, above = getattr(error, "option_name", None), ctx.parent
            if above is None or not any(option in own.opts for own in above.command.params):
                raise
            raise USAGE_ERROR(
                f"{option} is an option of all verbs and stands before them: {above.info_name} {option} "
                f"{ctx.info_name} ...",
                ctx,
            ) from None


def preset(verb: Callable[..., None], words: str, **defaults: Any) -> Callable[..., None]:
    """The same verb under other defaults, with help of its own; every option is still there to be given."""
    parameters = [
        own.replace(default=defaults.get(name, own.default))
        for name, own in inspect.signature(verb).parameters.items()
    ]

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        verb(**given)

    command.__doc__ = words
    return _taking(command, verb, parameters)


def machine_readable(verb: Callable[..., None]) -> Callable[..., None]:
    """The same verb with the option --json; it gives its document by `result`."""

    @functools.wraps(verb)
    def command(*, as_json: bool, **given: Any) -> None:
        out_console.stderr = as_json
        verb(**given)

    asked = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)
    return _taking(command, verb, [*inspect.signature(verb).parameters.values(), asked])


def _taking(
    command: Callable[..., None], verb: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """The command, said to have these parameters, whose annotations may be the verb's own texts."""
    hints = get_type_hints(verb, include_extras=True) | {"as_json": JsonOption}
    resolved = [own.replace(annotation=hints[own.name]) for own in parameters]
    command.__annotations__ = {own.name: own.annotation for own in resolved}
    command.__signature__ = inspect.Signature(resolved)  # type: ignore[attr-defined]
    return command


class LogLevel(StrEnum):
    """How much the libraries below say."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


LIBRARIES = ("TRANSFORMERS", "DIFFUSERS", "DATASETS", "HF_HUB")
"""Each reads how much it should say from the variable {name}_VERBOSITY when it is imported."""


def settle_output(log_level: LogLevel | None, quiet: bool) -> None:
    """What all verbs are told before their own options."""
    Screen.quiet = quiet
    if quiet:
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if log_level is not None:
        logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
        os.environ |= {f"{name}_VERBOSITY": log_level.value for name in LIBRARIES}


# ---- data and folders

DATA = "Questions in any layout: JSONL, TSV, Parquet, a benchmark's file or folder, COCO detection JSON, ..."
DataOption = Annotated[str, typer.Option("--data", metavar="PATH", help=DATA, show_default=False)]
DataOrWriterOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PATH",
        help=f"{DATA} Or a function that writes them, such as sparring_arena.benchmarks:pope:number=100.",
        show_default=False,
    ),
]
OUT = typer.Option(
    "--out", metavar="DIR", help="Folder of the results; made if it is not there.", show_default=False
)
OutOption = Annotated[Path, OUT]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of pictures that the data names by path. Left out: the data's own.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="Layout of the data, where what lies there does not tell.", show_default=False
    ),
]
SuiteOption = Annotated[
    str | None,
    typer.Option(
        help="Benchmark whose layout the data has: vstar, hrbench-4k, pope, ..., custom. Left out: told by "
        "what lies there.",
        show_default=False,
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

# ---- models

MODEL = (
    "a transformers folder, a hub id, or an OpenAI-compatible endpoint, http://127.0.0.1:8000/v1#model-name, "
    "whose key is read from the environment variable SPARRING_API_KEY"
)
DefenderOption = Annotated[
    str | None, typer.Option(help=f"A vision-language model: {MODEL}.", show_default=False)
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Requests under way at a time; 8 if left out.", show_default=False),
]
BudgetOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Requests to each Defender at most, failed ones included, over all starts.",
        show_default=False,
    ),
]

# ---- where it is computed


class EngineKind(StrEnum):
    """Where worker processes are."""

    local = "local"
    ray = "ray"


WorkersOption = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="Processes, each with its own players. What comes out is the same."
    ),
]
EngineOption = Annotated[
    EngineKind, typer.Option(help="Where they are: on this machine, or on a Ray cluster (RAY_ADDRESS).")
]


def engine_settings(kind: EngineKind, workers: int) -> EngineSettings:
    """The engine that a command was told to use."""
    from sparring.config import EngineSettings

    return EngineSettings.model_validate({"kind": kind.value, "play": {"workers": workers}})


# ---- everything else

JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Write the results to standard output as one JSON document, and nothing else."
    ),
]
LogLevelOption = Annotated[
    LogLevel | None,
    typer.Option(
        help="How much the libraries below say on standard error; left out: as they are set.",
        show_default=False,
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes: results, warnings and errors alone.")
]

RECIPE = typer.Option(
    "--recipe",
    help="A bundled recipe (see `sparring recipes`) or a YAML file: it lends what is not said here, of "
    "players, prompt, sampler and checks, as far as this verb has use for it.",
    show_default=False,
)
RecipeOption = Annotated[str | None, RECIPE]
RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="A bundled recipe (see `sparring recipes`) or a YAML file of your own.",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
RunSeedOption = Annotated[
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
        help="Any other setting, e.g. defender.dtype=bfloat16. May be given often. See `sparring fields`.",
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


def load(recipe: str | None, seed: int | None, changes: list[str] | None, skip_bad_records: bool) -> Recipe:
    """The recipe that a command names, with its changes. Raises RecipeError."""
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
