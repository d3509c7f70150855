"""One evaluation, from a benchmark's file to its figures.

In the folder: `answers.sqlite` (every answer, under a key of all that decides it), `items.parquet` (every
item with its raw replies and what every profile makes of them), `results.json`, `results.md`, `pictures/`
(small copies for the report). The same command goes on where a killed one was.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image, Resampling

from sparring.asking.desk import Desk, Query, RawAnswer
from sparring.asking.questions import sampling_of
from sparring.benchmarks.items import Answered, Item
from sparring.benchmarks.layouts import find_benchmark
from sparring.benchmarks.profiles import asked_again_by, rule_of
from sparring.benchmarks.questions import chosen_items, data_sha256, render_item, shuffles
from sparring.benchmarks.scoring import ANSWERS, RESOURCES, THUMBNAILS, judge_answers, score
from sparring.config import EvalSettings
from sparring.data.errors import ModelError
from sparring.data.words import plural
from sparring.engine.crew import Engine, Make, OnCall
from sparring.engine.device import begin_computing
from sparring.engine.files import write_whole
from sparring.engine.screen import Screen
from sparring.measures.statistics import wilson
from sparring.models.players import load_asked_defender, spending_of, traits_of_defender
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import VLM

SCHEMA = 1


@dataclass
class Tally:
    """Answers that are right so far, by a profile's reading of each by itself."""

    right: float = 0.0
    asked: int = 0

    def figures(self) -> dict[str, float]:
        """The running accuracy in per cent and its 95 % interval."""
        low, high = wilson(round(self.right), self.asked)
        return {"accuracy": 100 * self.right / max(1, self.asked), "from": 100 * low, "to": 100 * high}


def run_evaluation(
    settings: EvalSettings,
    out: Path,
    screen: Screen,
    engine: Engine,
    vlm: VLM | None = None,
    items: Sequence[Item] | None = None,
    data: Path | None = None,
    dropped: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Ask and score; writes and returns `out/results.json`. engine: who asks models on this machine; the
    results do not depend on it. vlm, items: a model and items that are loaded already, else those of the
    settings are.

    data: where the data lie that `settings.data` names; None: there. dropped: reason -> bad records that are
    not among the items.

    Errors: RecipeError for a suite or profile that there is none of, DataError for data that do not fit,
    ModelError where the model cannot be had or an endpoint is down, RunError when a budget is used up.
    """
    benchmark = find_benchmark(settings.suite)
    rule_of(settings.profile, benchmark.rules)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    data = data or Path(settings.data)
    if items is None:
        items, dropped = chosen_items(settings, benchmark, data)
    resources = benchmark.resources(data)
    (out / RESOURCES).write_text(json.dumps(resources), encoding="utf-8")
    (out / THUMBNAILS).mkdir(exist_ok=True)
    own = settings.defender
    traits = vlm.traits if vlm is not None else traits_of_defender(own.model, own)
    elsewhere = None if vlm or traits.keeps_answers else Make(ready_model, (settings, out))
    crew = OnCall(engine, elsewhere, lambda: vlm or ready_model(settings, out))
    sampling = sampling_of(own, temperature=settings.temperature, seed=settings.seed, batch=settings.batch)
    thumbnails = Thumbnails(out / THUMBNAILS, settings.thumbnails)
    cache = AnswerCache(out / ANSWERS)
    desk = Desk(traits, crew, sampling, settings.batch, cache, seen=thumbnails.keep)
    screen.say(
        f"{benchmark.title}: {plural(len(items), 'item')}, profile {settings.profile}, {own.model}, in {out}"
    )

    def ask() -> list[Answered]:
        with closing(crew):
            return ask_items(desk, items, settings, screen, resources, benchmark.rules)

    answered = engine.outlive(ask)
    if answered and all(one.trouble == "refused" for one in answered):
        raise ModelError(
            f"{own.model} takes none of the {plural(len(items), 'item')}. The last: {answered[-1].error}"
        )
    told: dict[str, Any] = {}
    if settings.judge is not None:
        answered, told = judge_answers(
            out, answered, settings.judge, benchmark.rules, resources, screen, engine
        )
    facts = {
        "schema": SCHEMA,
        "kind": "evaluation",
        "suite": benchmark.name,
        "rules": benchmark.rules,
        "title": benchmark.title,
        "data": settings.data,
        "data_sha256": data_sha256(items),
        "dropped": dict(dropped or {}),
        "defender": own.model,
        "revision": traits.identity.get("revision", settings.revision),
        "profile": settings.profile,
        "prompt": settings.prompt,
        "shuffled": shuffles(settings, benchmark),
        "trials": settings.trials,
        "temperature": settings.temperature,
        "max_new_tokens": settings.defender.max_new_tokens,
        "seed": settings.seed,
        "pixels": _pixels(answered, traits.pixels),
        "spending": spending_of(own.model, own.endpoint, out / ANSWERS) or {},
        **told,
    }
    return score(out, facts, answered, resources)


def ready_model(settings: EvalSettings, out: Path) -> VLM:
    """The model, loaded by whoever asks it."""
    device, own = begin_computing(settings.device, settings.threads), settings.defender
    return load_asked_defender(own.model, own, device, out / ANSWERS)


def ask_items(
    desk: Desk,
    items: Sequence[Item],
    settings: EvalSettings,
    screen: Screen,
    resources: Mapping[str, Any],
    rules: str,
) -> list[Answered]:
    """Put every item, and put it again up to `trials` times while its answers are right by the profile that
    wants every trial, where one knows the benchmark, else by the quoted one.
    """
    prompts = {item.id: render_item(item, settings.prompt, settings.defender.prompt) for item in items}
    read, again = (rule(settings.profile, rules).read for rule in (rule_of, asked_again_by))
    answered = {item.id: Answered(item, prompt=prompts[item.id]) for item in items}
    waiting, tally = list(items), Tally()
    for trial in range(settings.trials):
        # A greedy model that says the same again is not asked again.
        asked_anew = trial if settings.temperature > 0 or not desk.traits.repeats_itself else 0
        title = "answers" if settings.trials == 1 else f"answers, trial {trial + 1}"
        right: list[Item] = []
        with screen.stage(title, len(waiting)) as bar:
            queries = (Query(item.id, item.pictures, prompts[item.id]) for item in waiting)
            for raws in desk.ask(queries, trial=asked_anew):
                for raw in raws:
                    answered[raw.id] = _with(answered[raw.id], raw)
                own = [answered[raw.id] for raw in raws]
                marks = read(own, resources)
                said = marks if again is read else again(own, resources)
                right += [one.item for one, mark in zip(own, said, strict=True) if mark.score == 1]
                if trial == 0:
                    tally.asked += sum(mark.status != "left_out" for mark in marks)
                    tally.right += sum(mark.score for mark in marks)
                bar.advance(len(raws), tally.figures())
        waiting = right
    return [answered[item.id] for item in items]


def _with(answered: Answered, raw: RawAnswer) -> Answered:
    if raw.trouble is not None and answered.replies:
        # A later trial that came to nothing: no answer, which is a miss where all trials count.
        return replace(answered, replies=(*answered.replies, ""), later_trouble=raw.trouble, error=raw.error)
    if raw.trouble is not None:
        return replace(
            answered,
            trouble=raw.trouble,
            error=raw.error,
            cluster=_cluster(raw) or answered.item.id,
            sizes=raw.sizes,
        )
    return replace(
        answered,
        replies=(*answered.replies, raw.text),
        tokens=answered.tokens + raw.tokens,
        finished=answered.finished and raw.finished,
        cluster=_cluster(raw) or answered.item.id,
        sizes=raw.sizes,
    )


def _cluster(raw: RawAnswer) -> str:
    return (
        raw.hashes[0]
        if len(raw.hashes) == 1
        else hashlib.sha256("".join(raw.hashes).encode()).hexdigest()
        if raw.hashes
        else ""
    )


def _pixels(answered: Sequence[Answered], limits: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {one.cluster: one.sizes for one in answered}
    reduced = [was_reduced(size, limits) for own in sizes.values() for size in own]
    areas = [width * height for own in sizes.values() for width, height in own]
    known = None if any(one is None for one in reduced) else sum(bool(one) for one in reduced)
    return {"limits": dict(limits), "largest_area": max(areas, default=0), "reduced": known}


THUMBNAIL = 320


class Thumbnails:
    """Small copies of the first pictures, by their hashes."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._kept: set[str] = set()

    def keep(self, image: Image, digest: str) -> None:
        """Write a small copy of a picture, unless there are enough."""
        if digest in self._kept or len(self._kept) >= self.most:
            return
        self._kept.add(digest)
        path = self.folder / f"{digest}.webp"
        if not path.exists():
            small = (
                image.copy()
                if max(image.size) <= THUMBNAIL
                else image.reduce(max(1, max(image.size) // (2 * THUMBNAIL)))
            )
            small.thumbnail((THUMBNAIL, THUMBNAIL), Resampling.BILINEAR)
            stream = io.BytesIO()
            small.save(stream, "WEBP", quality=80, method=0)
            write_whole(path, stream.getvalue())  # a torn one would stay when the evaluation goes on


def was_reduced(size: tuple[int, int], limits: Mapping[str, Any]) -> bool | None:
    """Is a picture of this size made smaller before the model sees it? None where that is not known."""
    if "size" in limits:
        fixed = limits["size"]
        height, width = (
            fixed.get("height", fixed.get("shortest_edge")),
            fixed.get("width", fixed.get("shortest_edge")),
        )
        return None if not width or not height else bool(size[0] * size[1] > width * height)
    most = limits.get("max_area", limits.get("max_area_sent"))
    if most is None:
        return False if "max_area_sent" in limits else None
    return bool(size[0] * size[1] > most)
