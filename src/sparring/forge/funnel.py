"""The funnel: how many records came in, how many every stage let through, and why the others fell out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.config import ForgeSettings
from sparring.forge.ledger import Ledger
from sparring.forge.painters import is_plain
from sparring.forge.records import STAGES
from sparring.measures.statistics import rate

SCHEMA = 1


def make_funnel(settings: ForgeSettings, ledger: Ledger, content_hash: str) -> dict[str, Any]:
    """The content of `funnel.json`. `records` and `stages` count records, each at the stage that decided;
    `candidates` counts tries.
    """
    counts = ledger.counts()
    read = sum(counts.values())
    drops = ledger.drops()
    tried = [drop for drop in ledger.drops("candidates") if drop[0] not in ("targets", "extend", "clean")]
    left, stages = read, []
    for stage in (*STAGES, "forge"):
        own = {
            f"{reason}" if outcome != "useless" else f"useless: {reason}": n
            for at, outcome, reason, n in drops
            if at == stage
        }
        if stage == "forge" and not own:
            continue
        stages.append(
            {
                "stage": stage,
                "in": left,
                "out": left - sum(own.values()),
                "dropped": own,
                "words": _words(own),
            }
        )
        left -= sum(own.values())
    share = rate([True] * counts["kept"] + [False] * (read - counts["kept"])).as_dict()
    return {
        "schema": SCHEMA,
        "kind": "forge",
        "records": {"read": read, **counts},
        "stages": stages,
        "candidates": {
            "tried": counts["kept"] + sum(n for *_, n in tried),
            "kept": counts["kept"],
            "dropped": [
                {"stage": stage, "outcome": outcome, "reason": reason, "count": n}
                for stage, outcome, reason, n in tried
            ],
        },
        "kept_share": share | {"words": _share(share)},
        "seconds": round(ledger.seconds, 1),
        "seed": settings.seed,
        "models": models_of(settings),
        "settings": settings.model_dump(mode="json"),
        "content_hash": content_hash,
    }


def _words(dropped: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.items())


def _share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "none"
    low, high = share["ci95"]
    return f"{share['value']:.1%} (95 % interval {low:.1%} to {high:.1%})"


def models_of(settings: ForgeSettings) -> list[dict[str, Any]]:
    """Every model that the settings name: its part, its name, and its revision where the hub's cache tells
    it.
    """
    stages = settings.stages
    named: Sequence[tuple[str, str | None]] = (
        ("defender", settings.defender.model),
        ("judge", settings.judge.model),
        ("proposals", stages.propose.model),
        ("outpainting", stages.extend.painter.model if stages.extend.painter else None),
        ("outpainting, transformer", stages.extend.painter.transformer if stages.extend.painter else None),
        ("implanting", stages.painter.model if stages.implant == "painter" else settings.attacker.model),
        ("implanting, transformer", stages.painter.transformer if stages.implant == "painter" else None),
    )
    return [{"part": part, "model": model, "revision": _revision(model)} for part, model in named if model]


def _revision(model: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(model).is_dir() or "://" in model or is_plain(model):
        return None
    for file in ("model_index.json", "config.json"):
        try:
            found = try_to_load_from_cache(model.partition(":")[0], file)
        except HFValidationError:
            return None
        if isinstance(found, str):
            # the hub's cache keeps a snapshot in a folder named after its commit
            return Path(found).parent.name
    return None
