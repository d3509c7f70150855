"""From raw answers to figures, and again whenever another profile or a judge is wanted: what is on disk is
enough.

`results.json`, `results.md` and the columns of `items.parquet` are written here; the raw replies in it are
never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from sparring.benchmarks.items import Answered, Item, Mark
from sparring.benchmarks.judge import BATCH, TOKENS, ask_judge, judge_figures, read_marks
from sparring.benchmarks.profiles import rule_of
from sparring.benchmarks.results import mark_all, markdown, profile_figures
from sparring.config import EngineSettings, ReaderSettings
from sparring.data.errors import RunError
from sparring.data.files import storable
from sparring.data.records import RULES_VERSION, Target
from sparring.engine.files import write_whole
from sparring.engine.screen import Screen

if TYPE_CHECKING:
    import torch

    from sparring.engine.crew import Engine
    from sparring.models.vlms.base import VLM

FILE = "items.parquet"


def write_items(folder: Path, answered: Sequence[Answered], marks: dict[str, list[Mark]]) -> Path:
    """Write the items, with what every profile makes of them in columns `PROFILE_said`, `PROFILE_score`,
    `PROFILE_rule`, `PROFILE_status`.
    """
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(answered):
        item = one.item
        row: dict[str, Any] = {
            name: getattr(item, name) for name in ("id", "kind", "question", "answer", "category", "hint")
        }
        row |= {
            "options": list(item.options),
            "meta": json.dumps(dict(item.meta)),
            "targets": json.dumps([asdict(t) for t in item.targets]),
        }
        row |= {
            name: getattr(one, name)
            for name in (
                "trouble",
                "error",
                "cluster",
                "prompt",
                "tokens",
                "finished",
                "judge_asked",
                "judge_reply",
                "later_trouble",
            )
        }
        row |= {"replies": list(one.replies), "sizes": [list(size) for size in one.sizes]}
        for profile, own in marks.items():
            row |= {
                f"{profile}_{name}": getattr(own[place], name) for name in ("said", "score", "rule", "status")
            }
        rows.append(row)
    texts = (
        "id",
        "kind",
        "question",
        "answer",
        "category",
        "hint",
        "meta",
        "targets",
        "trouble",
        "error",
        "cluster",
        "prompt",
        "judge_reply",
        "later_trouble",
    )
    schema = [(name, arrow.string()) for name in texts]
    schema += [("options", arrow.list_(arrow.string())), ("replies", arrow.list_(arrow.string()))]
    schema += [
        ("tokens", arrow.int64()),
        ("finished", arrow.bool_()),
        ("judge_asked", arrow.bool_()),
        ("sizes", arrow.list_(arrow.list_(arrow.int64()))),
    ]
    for profile in marks:
        schema += [
            (f"{profile}_{name}", arrow.float64() if name == "score" else arrow.string())
            for name in ("said", "score", "rule", "status")
        ]
    rows = [{name: _storable(value) for name, value in row.items()} for row in rows]
    path, partial = folder / FILE, folder / f"{FILE}.partial"
    parquet.write_table(
        arrow.Table.from_pylist(rows, schema=arrow.schema(schema)), partial, compression="zstd"
    )
    partial.replace(path)
    return path


def _storable(value: Any) -> Any:
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return storable(value) if isinstance(value, str) else value


def read_items(folder: Path) -> list[Answered]:
    """The items of a finished evaluation, without their pictures. Raises RunError where the folder holds
    none.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunError(
            f"{folder} holds no finished evaluation: {FILE} is not there. Begin or go on with `sparring "
            f"eval ... --out {folder}`."
        )
    return [_answered(row) for row in parquet.read_table(path).to_pylist()]


def _answered(row: dict[str, Any]) -> Answered:
    item = Item(
        id=row["id"],
        kind=row["kind"],
        question=row["question"],
        answer=row["answer"],
        options=tuple(row["options"]),
        category=row["category"],
        hint=row["hint"],
        targets=tuple(Target(target["name"], tuple(target["box"])) for target in json.loads(row["targets"])),
        meta=json.loads(row["meta"]),
    )
    return Answered(
        item,
        tuple(row["replies"]),
        row["trouble"],
        row["error"] or "",
        row["cluster"] or "",
        row["prompt"] or "",
        row["tokens"],
        row["finished"],
        tuple((width, height) for width, height in row["sizes"]),
        bool(row.get("judge_asked")),
        row.get("judge_reply"),
        row.get("later_trouble"),
    )


ANSWERS, RESULTS, TABLE, RESOURCES, THUMBNAILS = (
    "answers.sqlite",
    "results.json",
    "results.md",
    "resources.json",
    "pictures",
)

FIRST_ERRORS = 3
"""Errors that the results repeat; all of them are in `items.parquet`."""


def judge_answers(
    out: Path,
    answered: Sequence[Answered],
    settings: ReaderSettings,
    rules: str,
    resources: Mapping[str, Any],
    screen: Screen,
    engine: Engine,
) -> tuple[list[Answered], dict[str, Any]]:
    """The answers as a judge model reads what rules have not; and what the results tell of it. What it
    has said is kept in `out/answers.sqlite`.
    """
    # What loads and asks models; nothing else here should make anybody wait for it.
    import torch

    from sparring.asking.desk import Desk
    from sparring.engine.crew import Make, OnCall
    from sparring.models.players import spending_of
    from sparring.models.vlms.answer_cache import AnswerCache
    from sparring.models.vlms.base import Sampling, traits_of

    endpoint = settings.endpoint
    traits = traits_of(settings.model, dtype=settings.dtype, endpoint=endpoint)
    make = Make(ready_reader, (settings, out, engine.device.type, torch.get_num_threads()))
    crew = OnCall(engine, None if traits.keeps_answers else make, lambda: ready_reader(*make.arguments))
    # It sees no pictures: their limits decide nothing.
    identity = {**traits.identity, "pixels": {}}
    sampling = Sampling(TOKENS, batch=BATCH)
    desk = Desk(traits, crew, sampling, BATCH, AnswerCache(out / ANSWERS), identity)
    screen.say(f"judge of unread answers: {settings.model}")

    def ask() -> list[Answered]:
        with closing(crew):
            return ask_judge(desk, answered, rules, resources)

    read = engine.outlive(ask)
    spent = spending_of(settings.model, endpoint, out / ANSWERS) or {}
    return read, {"judge": {"model": settings.model, **judge_figures(read), "spending": spent}}


def ready_reader(settings: ReaderSettings, out: Path, device: str, threads: int) -> VLM:
    """The judge model, loaded by whoever asks it."""
    from sparring.engine.device import begin_computing
    from sparring.models.vlms.base import load_vlm

    return load_vlm(
        settings.model,
        dtype=settings.dtype,
        device=begin_computing(device, threads),
        endpoint=settings.endpoint,
        cache=out / ANSWERS,
    )


def score(
    out: Path, facts: Mapping[str, Any], answered: Sequence[Answered], resources: Mapping[str, Any]
) -> dict[str, Any]:
    """Mark the answers under every profile; writes items, `results.json` and `results.md`."""
    marks = mark_all(answered, facts["rules"], resources)
    profiles = {
        name: profile_figures(
            answered,
            own,
            rule_of(name, facts["rules"]),
            seed=facts["seed"],
            judge=facts.get("judge", {}).get("model"),
        )
        for name, own in marks.items()
    }
    write_items(out, answered, marks)
    troubles = [one.trouble or one.later_trouble for one in answered]
    results = {
        **facts,
        "rules_version": RULES_VERSION,
        "items": len(answered),
        "pictures": len({(one.cluster, place) for one in answered for place in range(len(one.sizes))}),
        "cut_off": sum(not one.finished for one in answered),
        "tokens": sum(one.tokens for one in answered),
        "api_errors": troubles.count("request"),
        "without_picture": sum(one.trouble is None and not one.sizes for one in answered),
        "unreadable_pictures": troubles.count("picture"),
        "refused": troubles.count("refused"),
        "first_errors": [
            f"{one.item.id}: {one.error}" for one, trouble in zip(answered, troubles, strict=True) if trouble
        ][:FIRST_ERRORS],
        "profiles": profiles,
    }
    write_whole(out / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_whole(out / TABLE, markdown(results))
    return results


def rescore(
    out: Path,
    profile: str | None = None,
    *,
    judge: ReaderSettings | None = None,
    screen: Screen | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Score the raw answers of a finished evaluation anew, without the model and the data. profile: is
    quoted from now on.

    judge: a model that reads what rules have not; None: what an earlier one said is kept. screen, device:
    where it reports and runs.
    """
    facts = read_results(out)
    facts["profile"] = profile or facts["profile"]
    rule_of(facts["profile"], facts["rules"])
    resources = (
        json.loads((out / RESOURCES).read_text(encoding="utf-8")) if (out / RESOURCES).is_file() else {}
    )
    answered = read_items(out)
    if judge is not None:
        import torch

        from sparring.engine.crew import Engine

        screen = screen or Screen()
        engine = Engine(EngineSettings(), torch.device(device), screen.warn)
        answered, told = judge_answers(out, answered, judge, facts["rules"], resources, screen, engine)
        facts |= told
    return score(out, facts, answered, resources)


def read_results(out: Path) -> dict[str, Any]:
    """`results.json` of a finished evaluation. Raises RunError where there is none."""
    path = out / RESULTS
    if not path.is_file():
        raise RunError(
            f"{out} holds no finished evaluation: {RESULTS} is not there. Begin or go on with `sparring "
            f"eval ... --out {out}`."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path} is no JSON ({error}). Remove it, and give the command that began the evaluation again."
        ) from error
    if not isinstance(found, dict) or found.get("kind") != "evaluation":
        raise RunError(f"{path} holds no results of `sparring eval`.")
    return found


def marks_of(out: Path, profile: str) -> tuple[dict[str, Any], list[Answered], list[Mark]]:
    """Results, items and one profile's marks of a finished evaluation. Raises RunError where its figures
    are of other rules.
    """
    facts, answered = read_results(out), read_items(out)
    if facts.get("rules_version") != RULES_VERSION:
        raise RunError(
            f"{out} was scored by rules of another version of this program. Score its answers anew: "
            f"`sparring rescore {out}`."
        )
    resources = json.loads((out / RESOURCES).read_text(encoding="utf-8"))
    return facts, answered, read_marks(rule_of(profile, facts["rules"]), answered, resources)
