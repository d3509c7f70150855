"""`sparring eval`, `sparring rescore`, `sparring compare`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.console import (
    BudgetOption,
    ConcurrencyOption,
    DataOrWriterOption,
    DefenderOption,
    EngineKind,
    EngineOption,
    ImagesOption,
    LimitOption,
    OutOption,
    RecipeOption,
    SeedOption,
    SetOption,
    SkipOption,
    WorkersOption,
    clean_errors,
    engine_settings,
    error_console,
    note,
    out_console,
    result,
    stoppable,
    warn,
)
from sparring.data.errors import RecipeError, RunError
from sparring.data.records import LONGEST_REPLY
from sparring.data.words import plural
from sparring.engine.files import make_folder

if TYPE_CHECKING:
    import torch

    from sparring.config import EngineSettings, EvalSettings
    from sparring.recipes.borrow import Note

BORROWED = ("defender", "device", "threads")
ProfileOption = Annotated[
    str,
    typer.Option(
        help="Scoring profile that is quoted: sparring, official, vlmevalkit, lmms-eval or aot. The "
        "results hold all that apply."
    ),
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="A model (folder, hub id or endpoint) that says which option a reply chooses where rules read "
        "none, in the profiles of harnesses that ask one. It sees no pictures. Left out: such replies stay "
        "unparsed.",
        show_default=False,
    ),
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a finished evaluation.", show_default=False)
]


def evaluate(
    suite: Annotated[
        str,
        typer.Option(
            help="vstar, hrbench-4k, hrbench-8k, pope, hallusionbench, mmmu, mmstar, realworldqa, blink, "
            "ai2d, vqav2, amber, chair, or custom.",
            show_default=False,
        ),
    ],
    data: DataOrWriterOption,
    out: OutOption,
    defender: DefenderOption = None,
    recipe: RecipeOption = None,
    images: ImagesOption = None,
    profile: ProfileOption = "sparring",
    judge: JudgeOption = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="An earlier evaluation of the suite: the report marks what is harmed and rescued.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    skip_bad_records: SkipOption = False,
    seed: SeedOption = 0,
    prompt: Annotated[
        str,
        typer.Option(
            help="boxed, options (yes and no as options A and B), direct (a bare letter or word) or "
            "vlmevalkit."
        ),
    ] = "boxed",
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Times that a question is asked, until the first miss; 3 with aot, else 1.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, help="Questions in one batch of a model on this machine.")
    ] = 8,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"Longest reply. Left out: the recipe's, or {LONGEST_REPLY}.",
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Largest area of a picture. Left out: as the checkpoint has it; the results say what it is.",
            show_default=False,
        ),
    ] = None,
    concurrency: ConcurrencyOption = None,
    budget: BudgetOption = None,
    workers: WorkersOption = 1,
    engine: EngineOption = EngineKind.local,
    changes: SetOption = None,
) -> None:
    """Ask a model a benchmark's questions and score its answers under every profile.

    DIR then holds results.json and results.md (the figures), items.parquet (every item with its raw
    replies), report.html (every item, to be filtered) and answers.sqlite. The same command again goes on
    where a stopped or killed one was, and asks nothing twice.

    \b
    sparring eval --suite pope --data POPE/output/coco --images val2014 \\
        --defender Qwen/Qwen2.5-VL-7B-Instruct --out evals/pope
    sparring eval --suite hrbench-4k --data hr_bench_4k.tsv --defender http://127.0.0.1:8000/v1#qwen \\
        --out evals/hr4k
    sparring eval --suite custom --data my.jsonl --defender arena/defender --recipe arena --out evals/mine
    sparring eval --suite vstar --data sparring_arena.benchmarks:vstar --defender arena/defender \\
        --recipe arena --out evals/search
    sparring eval --suite pope --data sparring_arena.benchmarks:pope --prompt options \\
        --defender arena/defender --recipe arena --out evals/presence
    """
    with clean_errors():
        from sparring.engine.calls import absolute_data

        given: list[tuple[str, Any]] = [
            ("suite", suite),
            ("data", absolute_data(data)),
            ("images", str(images.expanduser().absolute()) if images else None),
            ("profile", profile),
            ("prompt", prompt),
            ("trials", trials if trials is not None else 3 if profile == "aot" else 1),
            ("limit", limit),
            ("skip_bad_records", skip_bad_records),
            ("seed", seed),
            ("batch", batch),
            ("defender.model", defender),
            ("defender.max_new_tokens", max_new_tokens),
            ("defender.max_pixels", max_pixels),
            ("defender.endpoint.concurrency", concurrency),
            ("defender.endpoint.budget", budget),
            ("judge.model", judge),
            ("judge.endpoint.concurrency", concurrency if judge else None),
        ]
        settings = eval_settings(given, recipe=recipe, changes=changes or [], note=note)
        _run(settings, out, against, engine_settings(engine, workers))


def eval_settings(
    given: list[tuple[str, Any]],
    *,
    recipe: str | None = None,
    changes: list[str] | None = None,
    note: Note | None = None,
) -> EvalSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's Defender,
    under changes as `a.b=value`.

    note: is told what of the recipe does not go with what else was given, and is left out.
    """
    from sparring.config import EvalSettings
    from sparring.recipes.borrow import Said, is_named, settled
    from sparring.recipes.check import problems_of_eval
    from sparring.recipes.load import load_recipe
    from sparring.recipes.paths import resolve_model

    data: dict[str, Any] = {"defender": {"max_new_tokens": LONGEST_REPLY}}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in BORROWED}
    said = Said(given, changes or [])
    if not is_named("defender", data, said):
        raise RecipeError(
            "--defender is missing: name a folder, a hub id or an endpoint, or a --recipe that names one."
        )
    settings = settled(data, said, EvalSettings, problems_of_eval, verb="eval", recipe=recipe, note=note)
    own, judge = settings.defender, settings.judge
    own = own.model_copy(update={"model": resolve_model(own.model)})
    if judge is not None:
        judge = judge.model_copy(update={"model": resolve_model(judge.model)})
        _another_model(judge.model, own.model)
    return settings.model_copy(update={"defender": own, "judge": judge})


def _another_model(judge: str, defender: str) -> None:
    if judge == defender:
        raise RecipeError(
            f"--judge {judge}: is the model whose replies it would read. A judge must be another model."
        )


def _run(settings: EvalSettings, out: Path, against: Path | None, engine: EngineSettings) -> None:
    from sparring.benchmarks.layouts import find_benchmark
    from sparring.benchmarks.profiles import rule_of
    from sparring.benchmarks.questions import chosen_items
    from sparring.engine.calls import written_data
    from sparring.engine.folder import run_folder
    from sparring.engine.screen import Screen

    # Before the folder is claimed, and before models' libraries are loaded, which takes seconds: what is
    # mistyped is to leave nothing behind.
    benchmark = find_benchmark(settings.suite)
    rule_of(settings.profile, benchmark.rules)
    data = written_data(settings.data, out)
    items, dropped = chosen_items(settings, benchmark, data)
    from sparring.models.vlms.base import require_vlm

    require_vlm(settings.judge.model if settings.judge else None)
    make_folder(out)
    screen = Screen()
    from sparring.engine.questions import say_dropped

    say_dropped(data, dropped, screen)
    from sparring.benchmarks.run import run_evaluation
    from sparring.engine.crew import Engine
    from sparring.engine.device import begin_computing
    from sparring.report.evaluation import write_eval_report

    device = begin_computing(settings.device, settings.threads)
    with (
        stoppable(),
        run_folder(settings, out, file="eval.yaml", resume="the command that began it") as folder,
        closing(Engine(engine, device, screen.warn)) as crews,
    ):
        run_evaluation(settings, folder, screen, crews, items=items, data=data, dropped=dropped)
    results = _show(out)
    report = write_eval_report(out, against=against)
    out_console.print(f"Figures: {out / 'results.json'}\nReport:  {out / report.name}")
    result(results)


def _show(out: Path) -> dict[str, Any]:
    """Print the figures of a finished evaluation; gives its results."""
    from sparring.benchmarks.results import headline, pixels_in_words, table_rows
    from sparring.benchmarks.scoring import read_results

    results = read_results(out)
    rows = table_rows(results["profiles"])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    out_console.print(f"{results['title']}, {plural(results['items'], 'item')}, per cent")
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out_console.print("  ".join(cells).rstrip())
    if judge := results.get("judge"):
        out_console.print(
            f"Judge {judge['model']}: asked about {judge['asked']} replies, read {judge['read']}"
        )
    out_console.print(
        f"{results['profile']}: {headline(results, results['profile'])}\n{pixels_in_words(results)}"
    )
    troubles = {
        "requests were given up or refused; the same command asks them again": results["api_errors"],
        "items have a picture that cannot be read": results["unreadable_pictures"],
        "items are none that this model takes": results.get("refused", 0),
    }
    warn(f"{count} {words} (column error of items.parquet)" for words, count in troubles.items() if count)
    for text in results.get("first_errors", ()):
        error_console.print(f"  {text}")
    if results["cut_off"]:
        warn([f"{results['cut_off']} replies were cut off at {results['max_new_tokens']} tokens."])
    return results


def rescore(
    folder: FolderArgument,
    profile: Annotated[
        str | None, typer.Option(help="Profile that is quoted from now on.", show_default=False)
    ] = None,
    judge: JudgeOption = None,
) -> None:
    """Score the answers of a finished evaluation anew, without the model and the data: results.json,
    results.md, items.parquet and the report.

    With --judge a model reads the replies that rules have not. What it says is kept; later commands need not
    name it again.
    """
    with clean_errors():
        from sparring.benchmarks.scoring import read_results
        from sparring.benchmarks.scoring import rescore as score_again
        from sparring.config import ReaderSettings
        from sparring.engine.screen import Screen
        from sparring.recipes.paths import resolve_model
        from sparring.report.evaluation import write_eval_report

        reader = ReaderSettings(model=resolve_model(judge)) if judge is not None else None
        if reader is not None:
            _another_model(reader.model, read_results(folder)["defender"])
        device: str | torch.device = "cpu"
        if reader is not None:
            from sparring.engine.device import begin_computing

            device = begin_computing("auto", None)
        with stoppable():
            score_again(folder, profile, judge=reader, screen=Screen(), device=device)
        results = _show(folder)
        out_console.print(f"Report: {write_eval_report(folder)}")
        result(results)


def compare(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="Folder of a finished evaluation.", show_default=False)
    ],
    after: Annotated[
        Path, typer.Argument(metavar="B", help="Folder of another one of the same suite.", show_default=False)
    ],
    profile: ProfileOption = "sparring",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the comparison as JSON to this file.", show_default=False),
    ] = None,
) -> None:
    """Test the paired difference of two evaluations of the same questions: B minus A.

    The interval is from a bootstrap of whole pictures, p-values are exact McNemar's, those of categories
    adjusted by Holm. The report of B then marks what is harmed and rescued.
    """
    with clean_errors():
        from sparring.benchmarks.compare import compare as compare_runs
        from sparring.report.evaluation import write_eval_report

        found = compare_runs(before, after, profile)
        warn(_comparison_warnings(found))
        for name, own in (("all items", found["all"]), *found["categories"].items()):
            difference, p = own["difference"], own.get("mcnemar_holm", own["mcnemar"])
            low, high = difference["ci95"]
            out_console.print(
                f"{name:<24}{100 * own['before']:5.1f} -> {100 * own['after']:5.1f}  "
                f"{100 * difference['value']:+5.1f} points of {difference['n']}  "
                f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f})  harmed {own['harmed']}, rescued "
                f"{own['rescued']}, p = {p:.3g}"
            )
        if out is not None:
            if out.is_dir():
                raise RunError(f"{out} is a folder. --out of compare names a file.")
            make_folder(out.absolute().parent)
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        out_console.print(f"Report: {write_eval_report(after, against=before, profile=profile)}")
        result(found)


def _comparison_warnings(found: dict[str, Any]) -> list[str]:
    texts = []
    if found["only_before"] or found["only_after"]:
        texts.append(
            f"{plural(found['only_before'], 'item')} only in A, {found['only_after']} only in B; "
            "compared are those in both."
        )
    if found["differences_in_asking"]:
        texts.append(f"the two were asked differently: {', '.join(found['differences_in_asking'])}.")
    if found["other_pictures"]:
        texts.append(f"{plural(found['other_pictures'], 'item')} with other pictures in B than in A.")
    return texts
