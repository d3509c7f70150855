"""From raw answers to figures, and again whenever another profile or a judge is wanted: what is on disk is
enough.

`results.json`, `results.md` and the columns of `items.parquet` are written here; the raw replies in it are
never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sparring.config import ReaderSettings
from sparring.data.errors import RunError
from sparring.engine.files import write_whole
from sparring.engine.screen import Screen
from sparring.evaluation.harness import Generation, Harness, model_identity
from sparring.evaluation.judge import TOKENS, ask_judge, judge_figures, read_marks
from sparring.evaluation.marks import Answered, Mark
from sparring.evaluation.profiles import RULES_VERSION, rule_of
from sparring.evaluation.results import mark_all, markdown, profile_figures
from sparring.evaluation.store import read_items, write_items
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import load_vlm
from sparring.models.vlms.endpoint import EndpointVLM

ANSWERS, RESULTS, TABLE, RESOURCES = "answers.sqlite", "results.json", "results.md", "resources.json"

FIRST_ERRORS = 3
"""Errors that the results repeat; all of them are in `items.parquet`."""


def judge_answers(
    out: Path,
    answered: Sequence[Answered],
    settings: ReaderSettings,
    rules: str,
    resources: Mapping[str, Any],
    screen: Screen | None,
    device: torch.device,
) -> tuple[list[Answered], dict[str, Any]]:
    """The answers as a judge model reads what rules have not; and what the results tell of it. What it
    has said is kept in `out/answers.sqlite`.
    """
    vlm = load_vlm(settings.model, dtype=settings.dtype, device=device, endpoint=settings.endpoint, cache=out / ANSWERS)
    identity = model_identity(vlm, settings.model, revision=None, pixels={}, dtype=settings.dtype)
    harness = Harness(vlm, AnswerCache(out / ANSWERS), identity, Generation(TOKENS))
    if screen is not None:
        screen.say(f"judge of unread answers: {settings.model}")
    answered = ask_judge(harness, answered, rules, resources)
    spending = vlm.spending() if isinstance(vlm, EndpointVLM) else {}
    return answered, {"judge": {"model": settings.model, **judge_figures(answered), "spending": spending}}


def score(out: Path, facts: Mapping[str, Any], answered: Sequence[Answered], resources: Mapping[str, Any]) -> dict[str, Any]:
    """Mark the answers under every profile; writes items, `results.json` and `results.md`."""
    marks = mark_all(answered, facts["rules"], resources)
    profiles = {
        name: profile_figures(answered, own, rule_of(name, facts["rules"]), seed=facts["seed"], judge=facts.get("judge", {}).get("model"))
        for name, own in marks.items()
    }
    write_items(out, answered, marks)
    results = {
        **facts,
        "rules_version": RULES_VERSION,
        "items": len(answered),
        "pictures": len({(one.cluster, place) for one in answered for place in range(len(one.sizes))}),
        "cut_off": sum(not one.finished for one in answered),
        "tokens": sum(one.tokens for one in answered),
        "api_errors": sum(one.trouble == "request" for one in answered),
        "without_picture": sum(one.trouble is None and not one.sizes for one in answered),
        "unreadable_pictures": sum(one.trouble == "picture" for one in answered),
        "refused": sum(one.trouble == "refused" for one in answered),
        "first_errors": [f"{one.item.id}: {one.error}" for one in answered if one.trouble][:FIRST_ERRORS],
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
    resources = json.loads((out / RESOURCES).read_text(encoding="utf-8")) if (out / RESOURCES).is_file() else {}
    answered = read_items(out)
    if judge is not None:
        answered, told = judge_answers(out, answered, judge, facts["rules"], resources, screen, torch.device(device))
        facts |= told
    return score(out, facts, answered, resources)


def read_results(out: Path) -> dict[str, Any]:
    """`results.json` of a finished evaluation. Raises RunError where there is none."""
    path = out / RESULTS
    if not path.is_file():
        raise RunError(f"{out} holds no finished evaluation: {RESULTS} is not there. Begin or go on with `sparring eval ... --out {out}`.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def marks_of(out: Path, profile: str) -> tuple[dict[str, Any], list[Answered], list[Mark]]:
    """Results, items and one profile's marks of a finished evaluation. Raises RunError where its figures
    are of other rules.
    """
    facts, answered = read_results(out), read_items(out)
    if facts.get("rules_version") != RULES_VERSION:
        raise RunError(f"{out} was scored by rules of another version of this program. Score its answers anew: `sparring rescore {out}`.")
    resources = json.loads((out / RESOURCES).read_text(encoding="utf-8"))
    return facts, answered, read_marks(rule_of(profile, facts["rules"]), answered, resources)
