"""`sparring probe`, and its preset `sparring attack`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import (
    MODEL,
    AuditOption,
    BudgetOption,
    ConcurrencyOption,
    DataOrWriterOption,
    EngineKind,
    EngineOption,
    ImagesOption,
    LimitOption,
    OutOption,
    RecipeOption,
    SeedOption,
    SetOption,
    SkipOption,
    SuiteOption,
    WorkersOption,
    clean_errors,
    engine_settings,
    note,
    out_console,
    preset,
    result,
    stoppable,
    warn,
)

if TYPE_CHECKING:
    from sparring.config import EngineSettings, ProbeSettings


class Shown(StrEnum):
    """Edits that Defenders are asked about."""

    all = "all"
    accepted = "accepted"


def probe(
    context: typer.Context,
    data: DataOrWriterOption,
    out: OutOption,
    suite: SuiteOption = None,
    images: ImagesOption = None,
    defender: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help=f"A vision-language model: {MODEL}. May be given often; the others are compared with the "
            f"first.",
            show_default=False,
        ),
    ] = None,
    attacker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]SPEC",
            help="An image editor: a diffusers folder or hub id; or one with a LoRA that a run has trained, "
            "EDITOR+RUN/round3/attacker/editor; or an opponent that nobody trains: pgd:eps=8, paste:add, "
            "corruption:fog:3, jpeg:30, light:0.75, roundtrip@EDITOR, benign@EDITOR, MODULE:FUNCTION. May be "
            "given often.",
            show_default=False,
        ),
    ] = None,
    editor: Annotated[
        str | None,
        typer.Option(
            help="The image editor of the controls (round trip, benign edit) and of adaptive Attackers. Left "
            "out: the recipe's, or the first attacker that is one.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Another vision-language model (folder, hub id or endpoint), which counts the queried "
            "objects before and after an edit. Left out: nobody counts.",
            show_default=False,
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
    recipe: RecipeOption = None,
    samples: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Edits of every question by every attacker; gives ASR@1 to ASR@SAMPLES."
        ),
    ] = 1,
    limit: LimitOption = None,
    seed: SeedOption = 0,
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
    shown: Annotated[
        Shown,
        typer.Option(
            help="Edits that Defenders are asked about; accepted: those alone that pass the checks, and no "
            "other is an attack."
        ),
    ] = Shown.all,
    dataset: Annotated[
        bool, typer.Option(help="Also write DIR/dataset: a row for every edit and Defender.")
    ] = False,
    integrity_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=-1,
            max=1,
            help="An edit passes when every target keeps this mean local SSIM. Left out: the recipe's, or "
            "0.8.",
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
    budget: BudgetOption = None,
    workers: WorkersOption = 1,
    engine: EngineOption = EngineKind.local,
    changes: SetOption = None,
    skip_bad_records: SkipOption = False,
) -> None:
    """Probe vision-language models side by side: clean, under attack, under misleading words; do they answer
    what they reason, do they know when they are right?

    Nobody is trained, but for the fresh Attackers of --adapt. Every attacker's edits are made once and put
    to every Defender. DIR then holds results.json (every figure with n and interval), table.md (the same as
    one table), report.html (figures and a gallery of edits), probe.yaml (the settings), answers.sqlite (every
    answer as it was given), and ledger.sqlite with pictures/ (every edit and what the checks said). The same
    command again goes on where a stopped or killed one was, and asks nothing twice.

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
            ("shown", shown.value),
            ("dataset", dataset),
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
        settings = probe_settings(
            given,
            defender or [],
            attacker or [],
            verb=context.info_name or "probe",
            recipe=recipe,
            changes=changes or [],
            note=note,
        )
        _run(settings, out, engine_settings(engine, workers))


attack = preset(
    probe,
    """Red-team a vision-language model, without training anything: `sparring probe` with nothing but attacks.

    The Defender answers every question about its clean picture. The Attacker edits the pictures; an edit
    counts when every target of the question is intact (and, with --judge, when no queried object was added
    or lost). Then the Defender answers about the edits that count. What comes out: how often it was right
    and is no longer (ASR), with intervals. Several Attackers and Defenders may be named.

    DIR then holds results.json and table.md (the figures), report.html (figures and a gallery), dataset/
    (every edit with pictures, answers and verdict; open it with datasets.load_dataset), ledger.sqlite and
    answers.sqlite. The same command again goes on where a stopped or killed one was, and asks nothing twice.

    \b
    sparring attack --data my.jsonl --attacker arena/editor --defender arena/defender --recipe arena \\
        --out attacks/untuned
    sparring attack --data my.jsonl --attacker arena/editor+runs/a/round3/attacker/editor \\
        --defender arena/defender --recipe arena --samples 4 --out attacks/a
    sparring attack --data my.jsonl --attacker corruption:fog:3 --defender arena/defender --recipe arena \\
        --out attacks/fog
    sparring attack --data my.jsonl --attacker black-forest-labs/FLUX.2-klein-4B \\
        --defender http://127.0.0.1:8000/v1#qwen --budget 5000 --out attacks/b
    """,
    text=False,
    letters=False,
    controls=False,
    shown=Shown.accepted,
    dataset=True,
)


def _run(settings: ProbeSettings, out: Path, engine: EngineSettings) -> None:
    from sparring.engine.screen import Screen
    from sparring.probe.questions import read_asked

    # What is wrong with data or folder is said before models' libraries are loaded, which takes seconds.
    screen = Screen()
    asked = read_asked(settings, out, screen)
    from sparring.probe.run import run_probe
    from sparring.report.probe import write_probe_report

    with stoppable():
        results = run_probe(settings, out, screen, asked=asked, engine=engine)
    report = write_probe_report(out)
    warn(results["warnings"])
    out_console.print((out / "table.md").read_text(encoding="utf-8"))
    spent = {name: own["spending"] for name, own in results["defenders"].items()}
    for player, amounts in (spent | {"judge": results["spending_of_judge"]}).items():
        if amounts:
            words = (f"{amount:,.6g} {name.replace('_', ' ')}" for name, amount in amounts.items())
            out_console.print(f"{player}: {', '.join(words)}")
    out_console.print(
        f"Figures: {out / 'results.json'}\nTable:   {out / 'table.md'}\nReport:  {out / report.name}"
    )
    if settings.dataset:
        out_console.print(f"Data set: {out / 'dataset'}")
    result(results)
