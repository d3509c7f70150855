"""`report.html` of an evaluation: its figures under every profile, and every item, to be filtered by what
became of it.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparring.benchmarks.compare import Pair, pair_up, paired_difference
from sparring.benchmarks.items import Answered, Mark
from sparring.benchmarks.results import headline, pixels_in_words, table_rows
from sparring.benchmarks.scoring import THUMBNAILS, marks_of, read_results
from sparring.report.render import write_page

FILTERS = ("right", "wrong", "harmed", "rescued", "unparsed", "error", "left-out")
ORDER = ("harmed", "wrong", "unparsed", "error", "rescued", "right", "left-out")
"""Items as they follow one another on the page: what went wrong comes first."""
EMBEDDED = 24_000_000
"""Bytes of small pictures that a page may hold; items beyond them are shown without."""
LONGEST = 2000
"""Characters of a reply that are shown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One item as the page shows it. `kinds`: the filters that it passes."""

    answered: Answered
    mark: Mark
    kinds: tuple[str, ...]
    picture: str | None
    before: Pair | None

    @property
    def reply(self) -> str:
        text = "\n--- next trial ---\n".join(self.answered.replies)
        return text[:LONGEST] + ("…" if len(text) > LONGEST else "")


def write_eval_report(out: Path, *, against: Path | None = None, profile: str | None = None) -> Path:
    """Write `out/report.html` of a finished evaluation. against: an earlier one; items that it had right are
    marked as harmed where they are wrong now.

    Errors: RunError where a folder holds no evaluation, or the two are of different suites.
    """
    out = Path(out).resolve()
    name = profile or str(read_results(out)["profile"])
    results, answered, marks = marks_of(out, name)
    before: dict[str, Pair] = {}
    comparison = gain = None
    if against is not None:
        said, pairs = pair_up(against, out, name)
        before = {pair.after.item.id: pair for pair in pairs}
        comparison, gain = said, paired_difference(pairs, seed=results["seed"])
    pictures, shown = _pictures(out, answered)
    entries = [
        Entry(
            one, mark, _kinds(mark, before.get(one.item.id)), shown.get(one.cluster), before.get(one.item.id)
        )
        for one, mark in zip(answered, marks, strict=True)
    ]
    entries.sort(key=lambda entry: min(ORDER.index(kind) for kind in entry.kinds))
    counts = Counter(kind for entry in entries for kind in entry.kinds)
    contents = {
        "results": results,
        "profile": name,
        "headline": headline(results, name),
        "pixels": pixels_in_words(results),
        "table": table_rows(results["profiles"]),
        "notes": {p: own["note"] for p, own in results["profiles"].items() if own["note"]},
        "figures": results["profiles"][name]["figures"],
        "entries": entries,
        "filters": {kind: counts[kind] for kind in FILTERS if counts[kind]},
        "pictures": pictures,
        "without_picture": sum(bool(entry.answered.sizes) and entry.picture is None for entry in entries),
        "comparison": comparison,
        "gain": gain,
    }
    return write_page(out, "evaluation.html.j2", contents)


def _kinds(mark: Mark, pair: Pair | None) -> tuple[str, ...]:
    if mark.status == "left_out":
        return ("left-out",)
    kinds = ["right" if mark.score == 1 else "wrong"]
    if mark.status in ("unparsed", "error"):
        kinds.append(mark.status)
    if pair is not None and pair.outcome in ("harmed", "rescued"):
        kinds.append(pair.outcome)
    return tuple(kinds)


def _pictures(out: Path, answered: Sequence[Answered]) -> tuple[dict[str, str], dict[str, str]]:
    """(class name -> data URI of each small picture that is embedded, once however many items show it;
    cluster -> class name).
    """
    uris: dict[str, str] = {}
    names: dict[str, str] = {}
    room = EMBEDDED
    for one in answered:
        path = out / THUMBNAILS / f"{one.cluster}.webp"
        if one.cluster in names or not path.is_file() or path.stat().st_size > room:
            continue
        room -= path.stat().st_size
        names[one.cluster] = f"p{len(names)}"
        uris[names[one.cluster]] = f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return uris, names
