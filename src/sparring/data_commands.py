"""`sparring forge` and `sparring convert`: the verbs that write questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import (
    OUT,
    RECIPE,
    DataOption,
    EngineKind,
    EngineOption,
    FormatOption,
    ImagesOption,
    SeedOption,
    SetOption,
    WorkersOption,
    clean_errors,
    engine_settings,
    note,
    out_console,
    result,
    stoppable,
    warn,
)
from sparring.data.errors import DataError, RecipeError, RunError
from sparring.data.words import plural

if TYPE_CHECKING:
    from sparring.config import EngineSettings, ForgeSettings

from sparring.console import OutOption, SkipOption, SuiteOption


def forge(
    data: DataOption,
    recipe: Annotated[str, RECIPE],
    out: Annotated[Path | None, OUT] = None,
    kind: FormatOption = None,
    images: ImagesOption = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the source, for the data set's card.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Records at most, the source's first. Left out: all.", show_default=False
        ),
    ] = None,
    workers: WorkersOption = 1,
    engine: EngineOption = EngineKind.local,
    seed: SeedOption = 0,
    changes: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count records, models and calls, and do nothing.")
    ] = False,
) -> None:
    """Make adversarial pairs from picture questions: the bootstrap data set of AOT (AOT-SFT).

    A picture is extended to a larger scene (where the recipe says so), distractors are proposed, checked and
    put in, and the checks of an edit follow: every target intact, no queried object more or less. Then the
    Defender is asked: still right, the distractor is useless; wrong, the pair is kept.

    DIR then holds dataset/ (open it with datasets.load_dataset; a card, and exports for VLMEvalKit,
    LLaMA-Factory and TRL) and funnel.json (how many records every stage let through, and why the others fell
    out). Records that cannot be read or that break are set aside with the reason. The same command again
    goes on where a stopped or killed one was.

    \b
    sparring forge --data questions/train.jsonl --recipe arena --out forged/arena
    sparring forge --data spatial_relation_data.json --images pictures \\
        --recipe qwen2.5-vl-7b_qwen-image-edit --out forged/vstar --dry-run
    """
    with clean_errors():
        from sparring.recipes.borrow import forge_settings

        given: list[tuple[str, Any]] = [
            ("data", data),
            ("format", kind),
            ("images", str(images) if images is not None else None),
            ("licence", licence),
            ("limit", limit),
            ("seed", seed),
        ]
        settings = forge_settings(given, recipe=recipe, changes=changes or [], note=note)
        if dry_run:
            _plan(settings)
            return
        if out is None:
            raise RecipeError("--out is missing: name the folder that the results are to be kept in.")
        _run(settings, out, engine_settings(engine, workers))


def _plan(settings: ForgeSettings) -> None:
    from sparring.forge.sources import estimate
    from sparring.plan import find_model

    found = estimate(settings)
    out_console.print(f"Source: {settings.data}: {plural(found.records, 'record')}, as {found.format}")
    for part, name, dtype in found.models:
        model = find_model(part, name, dtype)
        size = "size unknown" if model.parameters is None else f"{model.parameters / 1e9:.3f} B parameters"
        out_console.print(f"{part}: {name}, {model.where}, {size}")
    out_console.print(
        "At most (less where a check stops a record, or where the first candidate is effective):"
    )
    for what, count in found.calls.items():
        out_console.print(f"  {count:>9,} {what}")
    models = [{"part": part, "model": name, "dtype": dtype} for part, name, dtype in found.models]
    result({"records": found.records, "format": found.format, "models": models, "calls": found.calls})


def _run(settings: ForgeSettings, out: Path, engine: EngineSettings) -> None:
    from sparring.engine.files import make_folder
    from sparring.forge.sources import open_source

    # What is wrong with source or folder is said before models' libraries are loaded, which takes seconds.
    open_source(settings.data, settings.format, settings.images)
    make_folder(out)
    from sparring.forge.run import run_forge

    with stoppable():
        funnel = run_forge(settings, out, engine=engine)
    for stage in funnel["stages"]:
        out_console.print(f"{stage['stage']:<14}{stage['out']:>8} of {stage['in']:<8}{stage['words']}")
    out_console.print(f"{'kept':<14}{funnel['records']['kept']:>8}    {funnel['kept_share']['words']}")
    if (records := funnel["records"])["read"] == records["refused"] + records["broken"]:
        raise RunError(
            f"every record broke or was refused: see broken.jsonl and refused.jsonl in "
            f"{out / 'dataset' / 'apart'}."
        )
    if funnel["records"]["broken"]:
        warn([f"{plural(funnel['records']['broken'], 'record')} broke: see dataset/apart/broken.jsonl"])
    out_console.print(f"Funnel:   {out / 'funnel.json'}\nData set: {out / 'dataset'}")
    result(funnel)


def convert(
    source: DataOption,
    out: OutOption,
    suite: SuiteOption = None,
    kind: FormatOption = None,
    images: ImagesOption = None,
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

        data = Path(source)
        if suite is not None and kind is not None:
            raise DataError("--format: a suite has its own layouts. Leave it, or --suite, out.")
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
        warn(f"{plural(count, 'record')} left out: {why}" for why, count in left_out.items())
        out_console.print(f"{plural(done.written, 'question')}: {done.path}")
        result({"questions": done.written, "path": done.path, "left_out": left_out})
