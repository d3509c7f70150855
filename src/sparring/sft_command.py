"""`sparring sft`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.console import (
    DataOption,
    ImagesOption,
    OutOption,
    RecipeOption,
    SeedOption,
    SetOption,
    SkipOption,
    clean_errors,
    note,
    out_console,
    result,
    stoppable,
)
from sparring.data.words import plural

if TYPE_CHECKING:
    from sparring.config import SftSettings


def sft(
    data: DataOption,
    out: OutOption,
    images: ImagesOption = None,
    defender: Annotated[
        str | None,
        typer.Option(help="A vision-language model: a transformers folder or a hub id.", show_default=False),
    ] = None,
    recipe: RecipeOption = None,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Times that every question comes.")] = 1,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Questions in one update; 32 if left out.", show_default=False),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--lr", help="Learning rate; 1e-5 if neither this nor a recipe says one.", show_default=False
        ),
    ] = None,
    seed: SeedOption = 0,
    changes: SetOption = None,
    skip_bad_records: SkipOption = False,
) -> None:
    """Fine-tune a vision-language model on right answers, with their reasoning where the data has it.

    The model learns to reply with `defender.algorithm.reply`: the reasoning, then the boxed letter.
    DIR/sft/model is then a checkpoint as transformers reads it, with a LoRA merged in (and by itself in
    DIR/sft/model/adapter). The same command again goes on where a stopped or killed one was.

    \b
    sparring sft --defender arena/defender --data my.jsonl --recipe arena --epochs 2 --out tuned
    sparring sft --defender Qwen/Qwen2.5-VL-3B-Instruct --data my.jsonl --set defender.lora.rank=32 \\
        --set defender.dtype=bfloat16 --out tuned
    """
    with clean_errors():
        from sparring.recipes.borrow import sft_settings

        own_rate = learning_rate if learning_rate is not None or recipe is not None else 1e-5
        given = [
            ("data", data),
            ("defender.model", defender),
            ("images", str(images) if images is not None else None),
            ("epochs", epochs),
            ("defender.prompts_per_step", batch),
            ("defender.learning_rate", own_rate),
            ("seed", seed),
            ("skip_bad_records", skip_bad_records),
        ]
        _run(sft_settings(given, recipe=recipe, changes=changes or [], note=note), out)


def _run(settings: SftSettings, out: Path) -> None:
    from sparring.engine.questions import read_taught

    # What is wrong with file or folder is said before what trains is loaded, which takes seconds.
    questions = read_taught(settings, out)
    from sparring.defenders.sft import run_sft

    with stoppable():
        summary = run_sft(settings, out, questions=questions)
    if summary["loss_first"] is not None:
        out_console.print(
            f"loss    {summary['loss_first']:.4f} -> {summary['loss_last']:.4f}, first and last tenth of "
            f"{plural(summary['updates'], 'update')}"
        )
    out_console.print(f"Model:  {summary['model']}\nFigures: {out / 'summary.json'}")
    result(summary)
