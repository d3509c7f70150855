"""`sparring forge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import clean_errors, error_console, out_console, stoppable, warn
from sparring.data.errors import RecipeError, RunError

if TYPE_CHECKING:
    from sparring.config import ForgeSettings


def forge(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Questions in any layout: JSONL, TSV, Parquet, a V* folder, V* spatial-relation JSON, COCO "
            "detection JSON, ...",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="Stages, players and checks: a bundled recipe or a YAML file; see its section forge.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the results; made if it is not there.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--format", help="Kind of the source, where it cannot be told.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that the source's pictures are named from (COCO, GQA). Left out: the source's own.",
            show_default=False,
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the source, for the data set's card.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Records at most, the source's first. Left out: all.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Processes, each with its own players. What comes out is the same."
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=VALUE",
            help="Any other setting, e.g. stages.attempts=4. May be given often. See `sparring fields`.",
        ),
    ] = None,
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
            ("data", str(data)),
            ("format", kind),
            ("images", str(images) if images is not None else None),
            ("licence", licence),
            ("limit", limit),
            ("seed", seed),
        ]
        settings = forge_settings(given, recipe=recipe, changes=changes or [], note=error_console.print)
        if dry_run:
            _plan(settings)
            return
        if out is None:
            raise RecipeError("--out is missing: name the folder that the results are to be kept in.")
        _run(settings, out, workers)


def _plan(settings: ForgeSettings) -> None:
    from sparring.forge.sources import estimate
    from sparring.plan import find_model

    found = estimate(settings)
    out_console.print(f"Source: {settings.data}: {found.records} records, as {found.format}")
    for part, name, dtype in found.models:
        model = find_model(part, name, dtype)
        size = "size unknown" if model.parameters is None else f"{model.parameters / 1e9:.3f} B parameters"
        out_console.print(f"{part}: {name}, {model.where}, {size}")
    out_console.print(
        "At most (less where a check stops a record, or where the first candidate is effective):"
    )
    for what, count in found.calls.items():
        out_console.print(f"  {count:>9,} {what}")


def _run(settings: ForgeSettings, out: Path, workers: int) -> None:
    from sparring.engine.files import make_folder
    from sparring.forge.sources import open_source

    # What is wrong with source or folder is said before models' libraries are loaded, which takes seconds.
    open_source(settings.data, settings.format, settings.images)
    make_folder(out)
    from sparring.forge.run import run_forge

    with stoppable():
        funnel = run_forge(settings, out, workers=workers)
    for stage in funnel["stages"]:
        out_console.print(f"{stage['stage']:<14}{stage['out']:>8} of {stage['in']:<8}{stage['words']}")
    out_console.print(f"{'kept':<14}{funnel['records']['kept']:>8}    {funnel['kept_share']['words']}")
    if (records := funnel["records"])["read"] == records["refused"] + records["broken"]:
        raise RunError(
            f"every record broke or was refused: see broken.jsonl and refused.jsonl in "
            f"{out / 'dataset' / 'apart'}."
        )
    if funnel["records"]["broken"]:
        warn([f"{funnel['records']['broken']} records broke: see dataset/apart/broken.jsonl"])
    out_console.print(f"Funnel:   {out / 'funnel.json'}\nData set: {out / 'dataset'}")
