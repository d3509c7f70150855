"""What filters and orders of edits mean, in the ledger's own language."""

from __future__ import annotations

from typing import Any

from sparring.data.records import UNCHANGED
from sparring.report.viewer.exhibits import Filters

CLEAN, PROBED_CLEAN = "evaluation/clean", "clean"
"""The stages of answers about clean pictures: of held-out play, and of a probe."""
SORTS = {
    "newest": ("newest first", "e.place DESC"),
    "oldest": ("oldest first", "e.place"),
    "reward": ("highest reward", "v.reward DESC, e.place"),
    "low": ("lowest reward", "v.reward, e.place"),
    "fall": ("largest fall of P(right)", "v.probability_drop DESC, e.place"),
    "integrity": ("least intact", "v.integrity, e.place"),
    "question": ("by question", "e.question_id, e.stage, e.step, e.sample"),
}
VERDICTS = {
    "accepted": ("accepted", "v.accepted"),
    "rejected": ("rejected", "NOT v.accepted"),
    "damaged": ("targets damaged", "NOT v.intact AND ifnull(v.notes ->> '$.relit', 0) = 0"),
    "relit": ("light changed", "v.notes ->> '$.relit' > 0"),
    "duplicate": ("object count changed", "v.duplicate"),
    "unchanged": ("came back unchanged", f"json_type(v.notes, '$.{UNCHANGED}') IS NOT NULL"),
    "invalid": ("label no longer valid", "v.label_valid = 0"),
    "none": ("not judged", "v.stage IS NULL"),
}
PHASES = {
    "attacker": ("Attacker’s training", "e.stage LIKE 'round%/attacker'"),
    "curriculum": ("curriculum", "e.stage LIKE 'round%/curriculum'"),
    "evaluation": ("held-out play", "e.stage LIKE 'evaluation/%'"),
    "attack": ("attacks", "e.stage LIKE 'attack/%'"),
}
KINDS = """INSERT OR IGNORE INTO temp.kinds SELECT s.name, k.key, k.value
    FROM stages s, json_each(s.result, '$.kinds') k WHERE s.name LIKE 'evaluation/%'"""
"""Fills a table of this connection alone: what the results of stages tell of kinds, with an index."""
EDITS = "SELECT rowid AS place, * FROM edits"
CLEAN_PICTURES = (
    "SELECT min(rowid) AS place, stage, step, question_id, sample, '' AS attacker, '' AS instruction,"
    f" NULL AS seed, NULL AS picture FROM answers WHERE stage = '{CLEAN}' AND step = 0 GROUP BY question_id"
)
SAME = (
    "{0}.stage = e.stage AND {0}.step = e.step AND {0}.question_id = e.question_id AND {0}.sample = e.sample"
)
TABLES = f"""FROM source e LEFT JOIN verdicts v ON {SAME.format("v")}
    LEFT JOIN questions q ON q.id = e.question_id
    LEFT JOIN temp.kinds k ON k.stage = e.stage AND k.question_id = e.question_id"""


KNEW = (
    "NOT EXISTS (SELECT 1 FROM answers c WHERE c.stage IN (SELECT value FROM clean) AND c.step = 0"
    " AND c.question_id = e.question_id AND c.sample = 0 AND c.trial = 0"
    " AND c.defender = a.defender AND NOT c.right)"
)
"""The condition that the Defender of answer `a` was not wrong on the clean picture already; `clean` holds the
stages of clean answers."""


def where(filters: Filters) -> tuple[str, list[Any]]:
    """The condition of the filters; what a filter does not know lets nothing pass."""
    parts: list[str] = []
    values: list[Any] = []

    def add(condition: str, *own: Any) -> None:
        parts.append(f"({condition})")
        values.extend(own)

    for name, value in filters.items():
        match name:
            case "round":
                stages = [f"round{value}/attacker", f"round{value}/curriculum", f"evaluation/round{value}"]
                if value == "0":
                    stages.append("evaluation/bootstrap")
                add(f"e.stage IN ({', '.join('?' * len(stages))})", *stages)
            case "phase":
                add(PHASES[value][1] if value in PHASES else "0")
            case "update":
                add("e.step = ? AND e.stage LIKE '%/attacker'", value)
            case "by":
                add("e.attacker = ?", value)
            case "opponent":
                add("e.stage = ?", f"evaluation/{value}")
            case "verdict":
                add(VERDICTS[value][1] if value in VERDICTS else "0")
            case "kind":
                add("k.kind = ?", value)
            case "category":
                add("q.category = ?", value)
            case "fooled":
                add(*_fooled(value))
            case "held":
                add(*_answered(value, right=True))
            case "asked":
                add(f"EXISTS (SELECT 1 FROM answers a WHERE {SAME.format('a')} AND a.defender = ?)", value)
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def _answered(defender: str, *, right: bool) -> tuple[str, ...]:
    query = f"SELECT 1 FROM answers a WHERE {SAME.format('a')} AND a.right = {int(right)}"
    if defender == "*":
        return (f"EXISTS ({query})",)
    return f"EXISTS ({query} AND a.defender = ?)", defender


def _fooled(defender: str) -> tuple[str, ...]:
    """Accepted, answered wrong at least once, and not wrong already on the clean picture."""
    query = f"SELECT 1 FROM answers a WHERE {SAME.format('a')} AND NOT a.right AND {KNEW}"
    if defender == "*":
        return (f"v.accepted AND EXISTS ({query})",)
    return f"v.accepted AND EXISTS ({query} AND a.defender = ?)", defender
