"""`sparring attack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import clean_errors, error_console, out_console, stoppable, warn
from sparring.options import AuditOption, ConcurrencyOption, LimitOption, OutOption, SkipOption

if TYPE_CHECKING:
    from sparring.config import AttackSettings


def attack(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Questions in any layout: JSONL, TSV, Parquet, a benchmark's folder, ...",
            show_default=False,
        ),
    ],
    out: OutOption,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of pictures that the data names by path. Left out: the data's own.",
            show_default=False,
        ),
    ] = None,
    attacker: Annotated[
        str | None,
        typer.Option(
            help="An image editor: a diffusers folder or hub id; or one with a LoRA that a run has trained, "
            "EDITOR+RUN/round3/attacker/editor; or an opponent "
            "that nobody trains: pgd:eps=8, paste:add, corruption:fog:3, jpeg:30, light:0.75, "
            "roundtrip@EDITOR, benign@EDITOR, MODULE:FUNCTION.",
            show_default=False,
        ),
    ] = None,
    defender: Annotated[
        str | None,
        typer.Option(
            help="A vision-language model: a transformers folder, a hub id, or an OpenAI-compatible "
            "endpoint, http://127.0.0.1:8000/v1#model-name. "
            "An endpoint's key is read from the environment variable SPARRING_API_KEY.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Another vision-language model (folder, hub id or endpoint), which counts the queried "
            "objects before and after an edit. "
            "Left out: nobody counts.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Take prompt, instruction, sampler, checks and players that are not named here from this "
            "recipe, a bundled one or a YAML file.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Edits of every question; gives ASR@1 to ASR@SAMPLES.")
    ] = 1,
    limit: LimitOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the edits' noise.")] = 0,
    integrity_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=-1,
            max=1,
            help="An edit counts when every target keeps this mean local SSIM. Left out: the recipe's, "
            "or 0.8.",
            show_default=False,
        ),
    ] = None,
    audit: AuditOption = None,
    concurrency: ConcurrencyOption = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Requests to the Defender at most, failed ones included.",
            show_default=False,
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=VALUE",
            help="Any other setting, e.g. attacker.evaluation_steps=8. May be given often. See `sparring "
            "fields`.",
        ),
    ] = None,
    skip_bad_records: SkipOption = False,
) -> None:
    """Red-team a vision-language model, without training anything.

    The Defender answers every question about its clean picture. The Attacker edits the pictures; an edit
    counts when every target of the question is intact (and, with --judge, when no queried object was added
    or lost). Then the Defender answers about the edits that count. What comes out: how often it was right
    and is no longer (ASR), with intervals.

    DIR then holds summary.json (the figures), report.html (figures and a gallery), dataset/ (every edit with
    pictures, answers and verdict; open it with datasets.load_dataset) and ledger.sqlite. The same command
    again goes on where a stopped or killed one was, and asks nothing twice.

    \b
    sparring attack --data my.jsonl --attacker arena/editor --defender arena/defender --recipe arena \\
        --out attacks/untuned
    sparring attack --data my.jsonl --attacker arena/editor+runs/a/round3/attacker/editor \\
        --defender arena/defender --recipe arena --samples 4 --out attacks/a
    sparring attack --data my.jsonl --attacker corruption:fog:3 --defender arena/defender --recipe arena \\
        --out attacks/fog
    sparring attack --data my.jsonl --attacker black-forest-labs/FLUX.2-klein-4B \\
        --defender http://127.0.0.1:8000/v1#qwen --budget 5000 --out attacks/b
    """
    with clean_errors():
        from sparring.redteam.settings import attack_settings

        given: list[tuple[str, Any]] = [
            ("data", str(data)),
            ("images", str(images) if images is not None else None),
            ("attacker.model", attacker),
            ("defender.model", defender),
            ("judge.model", judge),
            ("samples", samples),
            ("limit", limit),
            ("seed", seed),
            ("judge.integrity_threshold", integrity_threshold),
            ("audit", {"call": audit} if audit is not None else None),
            ("defender.endpoint.concurrency", concurrency),
            ("judge.endpoint.concurrency", concurrency),
            ("defender.endpoint.budget", budget),
            ("skip_bad_records", skip_bad_records),
        ]
        _run(attack_settings(given, recipe=recipe, changes=changes or [], note=error_console.print), out)


def _run(settings: AttackSettings, out: Path) -> None:
    from sparring.engine.screen import Screen
    from sparring.redteam.questions import read_attacked

    # What is wrong with file or folder is said before models' libraries are loaded, which takes seconds.
    screen = Screen()
    questions = read_attacked(settings, out, screen)
    from sparring.redteam.attack import run_attack
    from sparring.report.attack import write_attack_report

    with stoppable():
        summary = run_attack(settings, out, screen, questions=questions)
    report = write_attack_report(out)
    for label, rate in (
        ("right when clean", summary["clean_accuracy"]),
        ("edits that count", summary["accepted_rate"]),
        *((f"ASR@{tries['k']}", tries["asr"]) for tries in summary["asr_at_k"]),
        *(
            (f"valid ASR@{tries['k']}", tries["valid_asr"])
            for tries in summary["asr_at_k"]
            if summary["audited"]
        ),
        ("right under attack", summary["robust_accuracy"]),
    ):
        out_console.print(f"{label:<20}{_in_words(rate)}")
    warn(summary["warnings"])
    for player, spent in summary["spending"].items():
        out_console.print(
            f"{player}: "
            + ", ".join(f"{amount:,.6g} {name.replace('_', ' ')}" for name, amount in spent.items())
        )
    out_console.print(
        f"Figures: {out / 'summary.json'}\nReport:  {out / report.name}\nData set: {out / 'dataset'}"
    )


def _in_words(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return "nothing to count"
    low, high = rate["ci95"]
    return (
        f"{100 * rate['value']:5.1f} %  of {rate['n']}  (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )
