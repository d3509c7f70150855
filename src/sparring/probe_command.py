"""`sparring probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import clean_errors, error_console, out_console, stoppable, warn
from sparring.options import AuditOption, ConcurrencyOption, LimitOption, OutOption, SkipOption

if TYPE_CHECKING:
    from sparring.config import ProbeSettings


def probe(
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Questions in any layout: JSONL, TSV, Parquet, ...; with --suite that benchmark's file or "
            "folder. Or a function that "
            "writes it, such as sparring_arena.benchmarks:pope:number=100.",
            show_default=False,
        ),
    ],
    out: OutOption,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Benchmark whose layout the data has, as of `sparring eval`: vstar, pope, ..., custom.",
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
    defender: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="A vision-language model: a transformers folder, a hub id, or an OpenAI-compatible "
            "endpoint, http://127.0.0.1:8000/v1#model-name. "
            "May be given often; the others are compared with the first.",
            show_default=False,
        ),
    ] = None,
    attacker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]SPEC",
            help="What `sparring attack --attacker` takes: EDITOR, EDITOR+LORA, pgd:eps=8, paste:add, "
            "corruption:fog:3, jpeg:30, ... May be given often.",
            show_default=False,
        ),
    ] = None,
    editor: Annotated[
        str | None,
        typer.Option(
            help="The image editor of the controls (round trip, benign edit) and of adaptive Attackers. Left "
            "out: the recipe's.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A model that counts the queried objects before and after an edit.", show_default=False
        ),
    ] = None,
    reasoning_judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A model that says which option a reasoning argues for, where no rule can read it. Two may "
            "be given: their agreement is told.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Take prompt, editor, sampler, checks and the words of the text conditions from this "
            "recipe, a bundled one or a YAML file.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Edits of every question by every attacker; gives ASR@1 to ASR@SAMPLES."
        ),
    ] = 1,
    limit: LimitOption = None,
    seed: Annotated[int, typer.Option(help="Seed of draws, hints and of the edits' noise.")] = 0,
    text: Annotated[bool, typer.Option(help="Ask under the six text conditions and two controls.")] = True,
    letters: Annotated[
        bool,
        typer.Option(
            help="Score the option letters: entropy, P(correct), calibration. Needs log-probabilities."
        ),
    ] = True,
    controls: Annotated[
        bool,
        typer.Option(
            help="Ask unchanged pictures again; round trip and benign edit where there is an editor."
        ),
    ] = True,
    integrity_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=-1,
            max=1,
            help="An edit is valid when every target keeps this mean local SSIM. Left out: the recipe's, "
            "or 0.8.",
            show_default=False,
        ),
    ] = None,
    audit: AuditOption = None,
    adapt: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Updates of a fresh Attacker, trained against each Defender; 0: none."
        ),
    ] = 0,
    adapt_queries: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Edited pictures at most that it may show its Defender.",
            show_default=False,
        ),
    ] = None,
    adapt_data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Questions that it trains on, about other pictures. Left out: a half of --data, which is "
            "then not probed.",
            show_default=False,
        ),
    ] = None,
    concurrency: ConcurrencyOption = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Requests to each Defender at most, failed ones included.",
            show_default=False,
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=VALUE",
            help="Any other setting, e.g. conditions.thought='{option}'. May be given often.",
        ),
    ] = None,
    skip_bad_records: SkipOption = False,
) -> None:
    """Probe vision-language models side by side: clean, under attack, under misleading words; do they answer
    what they reason, do they know when they are right?

    Nobody is trained, but for the fresh Attackers of --adapt. Every attacker's edits are made once and put
    to every Defender. DIR then holds results.json (every figure with n and interval), table.md (the same as
    one table), probe.yaml (the settings), answers.sqlite (every answer as it was given), and ledger.sqlite
    with pictures/ (every edit and what the checks said). The same command again goes on where a stopped or
    killed one was, and asks nothing twice.

    \b
    sparring probe --data my.jsonl --recipe arena --defender base=arena/defender \\
        --defender trained=runs/a/round3/defender/model --attacker pgd:eps=4 --attacker paste:add \\
        --attacker round3=arena/editor+runs/a/round3/attacker/editor --out probes/a
    sparring probe --data my.jsonl --defender http://127.0.0.1:8000/v1#qwen --attacker corruption:fog:3 \\
        --no-letters --out probes/b
    sparring probe --suite vstar --data vstar_bench --defender Qwen/Qwen2.5-VL-7B-Instruct \\
        --attacker pgd:eps=4 --out probes/vstar
    """
    with clean_errors():
        from sparring.probe.settings import probe_settings

        given: list[tuple[str, Any]] = [
            ("data", data),
            ("suite", suite),
            ("images", str(images) if images is not None else None),
            ("attacker.model", editor),
            ("judge.model", judge),
            ("reasoning_judges", list(reasoning_judge) if reasoning_judge else None),
            ("samples", samples),
            ("limit", limit),
            ("seed", seed),
            ("text", text),
            ("letters", letters),
            ("controls", controls),
            ("judge.integrity_threshold", integrity_threshold),
            ("audit", {"call": audit} if audit is not None else None),
            ("adapt", adapt),
            ("adapt_queries", adapt_queries),
            ("adapt_data", adapt_data),
            ("defender.endpoint.concurrency", concurrency),
            ("judge.endpoint.concurrency", concurrency),
            ("defender.endpoint.budget", budget),
            ("skip_bad_records", skip_bad_records),
        ]
        _run(
            probe_settings(
                given,
                defender or [],
                attacker or [],
                recipe=recipe,
                changes=changes or [],
                note=error_console.print,
            ),
            out,
        )


def _run(settings: ProbeSettings, out: Path) -> None:
    from sparring.engine.screen import Screen
    from sparring.probe.questions import read_asked

    # What is wrong with data or folder is said before models' libraries are loaded, which takes seconds.
    screen = Screen()
    asked = read_asked(settings, out, screen)
    from sparring.probe.run import run_probe

    with stoppable():
        results = run_probe(settings, out, screen, asked=asked)
    warn(results["warnings"])
    out_console.print((out / "table.md").read_text(encoding="utf-8"))
    out_console.print(f"Figures: {out / 'results.json'}\nTable:   {out / 'table.md'}")
