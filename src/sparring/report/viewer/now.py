"""What goes on in a work: the phase, how fast it goes, how long it will take, and the curves so far."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from markupsafe import Markup

from sparring.engine.ledger import BEGUN
from sparring.report import numbers
from sparring.report.heldout import HeldOut, StageRow, read_stages
from sparring.report.page import progress
from sparring.report.run import Run, read_run
from sparring.report.training import LABELS, Panel, Player, panels_of, players
from sparring.report.viewer.exhibits import Fact
from sparring.report.viewer.works import Work
from sparring.study.plan import DONE, PLACES

POINTS = 240
"""Points of a curve: of more updates than that, each point is the mean of a few."""
RECENT = 20
"""Updates of which the usual duration is taken."""
SHOWN_FIRST = ("grad_norm", "clip_fraction", "dead_groups", "approx_kl", "kl", "right_mean")
"""Metrics that are shown beside the rewards; all others are folded away."""
COLUMNS = {
    "clean": "Clean answers",
    "forge": "Forge",
    "bootstrap": "Bootstrap",
    "attacker": "Attacker",
    "curriculum": "Curriculum",
    "defender": "Defender",
    "evaluation": "Held-out play",
    "watch": "Watch",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """How far something is: so many of so many; words: what they are. total None: not known."""

    title: str
    words: str
    done: int
    total: int | None

    @property
    def share(self) -> float | None:
        return None if not self.total else min(1.0, self.done / self.total)


@dataclass(frozen=True, slots=True)
class Step:
    """One phase of a round in the table of all: "done", "running", "todo" or "none" (there is none)."""

    state: str
    words: str


@dataclass(frozen=True, slots=True)
class Now:
    """What the page shows. board: round -> its phases; players: their curves."""

    title: str
    bars: tuple[Bar, ...]
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    board: tuple[tuple[str, tuple[Step, ...]], ...] = ()
    players: tuple[Player, ...] = ()
    held_out: Markup | None = None


def now(work: Work, db: sqlite3.Connection | None) -> Now:
    """What goes on, by the folder and its ledger (None: there is none yet)."""
    if work.kind == "game":
        return _game(work, db)
    if work.kind == "forge":
        return _forge(work)
    return _study(work) if work.kind == "study" else _other(work, db)


def _game(work: Work, db: sqlite3.Connection | None) -> Now:
    run = read_run(work.folder, played=False, exhibits=False)
    if db is None:
        over = "The game is over; its ledger is not here any more"
        return Now(over if run.summary else "Not begun: no ledger yet", (), ())
    name = run.running if run.summary is None else None
    payoff = dict(run.payoff)
    if run.summary is None:
        so_far = HeldOut(db, run.stages, run.rounds, list(run.rivals))
        payoff = {"defenders": so_far.defenders, "opponents": so_far.opponents, "accuracy": so_far.accuracy()}
    played = any(cell for row in payoff.get("accuracy") or [] for cell in row)
    bars, facts = _pace(run, db, name) if name else ((), ())
    return Now(
        "The game is over" if run.summary else in_words(name) if name else "Between two phases",
        bars,
        (*facts, *_spent(run.meta)),
        tuple((run.summary or {}).get("warnings") or _warnings(run.stages)),
        tuple(COLUMNS.values()),
        tuple((f"Round {i}" if i else "Before", _phases(run, i)) for i in range(run.rounds + 1)),
        tuple(_arranged(player) for player in players(thinned(run))),
        progress(payoff, run.rivals) if played else None,
    )


def phase_of(work: Work) -> str:
    """The phase that a work is in, or was stopped in; empty where its state says all."""
    if work.finished or work.kind == "forge":
        return ""
    with work.database() as db:
        if db is None:
            return ""
        row = db.execute("SELECT name FROM stages WHERE status != 'done' ORDER BY rowid LIMIT 1").fetchone()
    return in_words(row["name"]) if row is not None and work.kind == "game" else ""


def in_words(stage: str) -> str:
    """The name of a stage for a heading: "round1/attacker" becomes "Round 1: Attacker"."""
    first, _, rest = stage.partition("/")
    if first == "evaluation":
        opponent, _, defender = rest.partition("/")
        against = f"{numbers.player(defender)} Defender against " if defender else "making the pictures of "
        return f"Held-out play: {against}{numbers.player(opponent)}"
    name = COLUMNS.get(rest, rest or first)
    return f"{numbers.player(first)}: {name}" if rest else name


def _pace(run: Run, db: sqlite3.Connection, stage: str) -> tuple[tuple[Bar, ...], tuple[Fact, ...]]:
    """How far the phase is, how long an update takes, and how long the rest will, if it goes on like that."""
    part = stage.rpartition("/")[2]
    player = {"attacker": "attacker", "defender": "defender", "bootstrap": "bootstrap"}.get(part)
    history = run.histories.get(stage, [])
    if player is None or not stage.startswith("round"):
        return _play_bar(run, stage), ()
    total = int((run.recipe.get(player) or {}).get("steps") or 0) or None
    facts = []
    seconds = update_seconds(db, stage)
    if seconds is not None:
        facts.append(Fact("An update takes", numbers.duration(seconds)))
        if total is not None:
            left = seconds * max(0, total - len(history))
            facts.append(Fact("This phase, left", f"about {numbers.duration(left)}"))
            if (rest := _rounds_left(run, stage)) is not None:
                facts.append(Fact("The game, left", f"about {numbers.duration(left + rest)}"))
        facts += _throughput(run, part, history, seconds)
    elif history:
        facts.append(Fact("An update takes", "not noted by the version that runs it"))
    return (Bar("This phase", "updates", len(history), total),), tuple(facts)


def _play_bar(run: Run, stage: str) -> tuple[Bar, ...]:
    if stage.startswith("evaluation/"):
        opponent = stage.split("/")[1]
        held_out = run.questions.get("held_out")
        return (Bar("This phase", "pictures", run.edits.get(f"evaluation/{opponent}", 0), held_out),)
    return ()


def _throughput(
    run: Run, part: str, history: Sequence[tuple[int, Mapping[str, Any]]], seconds: float
) -> list[Fact]:
    own = run.recipe.get("attacker") or {}
    if part == "attacker":
        edits = int(own.get("questions_per_step") or 0) * int(own.get("group_size") or 0)
        return [Fact("Throughput", f"{edits / seconds:.3g} edits a second")] if edits else []
    recent = [metrics for _, metrics in history[-RECENT:]]
    replies = [metrics["rollouts"] for metrics in recent if "rollouts" in metrics]
    if not replies or part != "defender":
        return []
    found = [Fact("Throughput", f"{fmean(replies) / seconds:.3g} replies a second")]
    lengths = [metrics["rollouts"] * metrics["length_mean"] for metrics in recent if "length_mean" in metrics]
    if lengths:
        found.append(Fact("Tokens", f"{fmean(lengths) / seconds:,.0f} a second".replace(",", "\u202f")))
    return found


def update_seconds(db: sqlite3.Connection, stage: str) -> float | None:
    """The usual time of an update, of the last ones; None before the first, and in ledgers without times."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'times'").fetchone() is None:
        return None
    rows = db.execute(
        "SELECT step, at FROM times WHERE stage = ? ORDER BY step DESC LIMIT ?", (stage, RECENT + 1)
    ).fetchall()
    at = {row["step"]: row["at"] for row in rows}
    begun = db.execute("SELECT at FROM times WHERE stage = ? AND step = ?", (stage, BEGUN)).fetchone()
    gaps = [at[step] - at[step - 1] for step in at if step > 0 and step - 1 in at]
    # A stage that was resumed was begun after its first updates.
    if begun and at.keys() == {BEGUN, 0}:
        gaps.append(at[0] - begun["at"])
    return median(gaps) if gaps and min(gaps) >= 0 else None


def _rounds_left(run: Run, stage: str) -> float | None:
    """Seconds of what comes after this phase, by the round before; None in the first one."""
    number = int(stage.split("/")[0].removeprefix("round"))
    if number < 2:
        return None

    def took(round_number: int, parts: Sequence[str]) -> float:
        rows = [run.stages.get(f"round{round_number}/{part}") for part in parts]
        played = [
            row.seconds
            for name, row in run.stages.items()
            if name.startswith(f"evaluation/round{round_number}") and row.status == "done"
        ]
        return sum(row.seconds for row in rows if row is not None) + sum(played)

    order = ["clean", "attacker", "curriculum", "defender", "watch"]
    after = order[order.index(stage.rpartition("/")[2]) + 1 :]
    whole = took(number - 1, order)
    return took(number - 1, after) + (run.rounds - number) * whole


def _phases(run: Run, number: int) -> tuple[Step, ...]:
    steps = []
    for part in COLUMNS:
        names = [f"round{number}/{part}"]
        if part == "evaluation":
            prefix = f"evaluation/{'bootstrap' if number == 0 else f'round{number}'}"
            names = [name for name in run.stages if name == prefix or name.startswith(prefix + "/")]
            names = names or [prefix]
        exists = number > 0 if part in ("attacker", "curriculum", "defender", "watch") else True
        exists = exists and (number == 0 if part in ("forge", "bootstrap") else True)
        exists = exists and (number < run.rounds if part == "clean" else True)
        rows = [run.stages[name] for name in names if name in run.stages]
        if not exists and not rows:
            steps.append(Step("none", ""))
        elif not rows:
            steps.append(Step("todo", "to come"))
        elif all(row.status == "done" for row in rows):
            seconds = sum(row.seconds for row in rows)
            steps.append(Step("done", numbers.duration(seconds) if seconds >= 0.05 else ""))
        else:
            updates = len(run.histories.get(names[0], []))
            steps.append(Step("running", f"update {updates}" if updates else "begun"))
    return tuple(steps)


def _arranged(player: Player) -> Player:
    """The metrics that tell whether training is sound come first among the others."""
    first = [LABELS[name] for name in SHOWN_FIRST]
    rank = {title: place for place, title in enumerate(first)}
    return replace(player, others=tuple(sorted(player.others, key=lambda p: rank.get(p.title, len(rank)))))


def shown_first(panels: Sequence[Panel]) -> int:
    """How many of a player's other panels are not folded away."""
    return sum(panel.title in {LABELS[name] for name in SHOWN_FIRST} for panel in panels)


def thinned(run: Run, most: int = POINTS) -> Run:
    """The run with at most so many updates a phase, each the mean of a few in a row."""
    return replace(run, histories={name: thin(history, most) for name, history in run.histories.items()})


def thin(
    history: Sequence[tuple[int, Mapping[str, Any]]], most: int = POINTS
) -> list[tuple[int, dict[str, Any]]]:
    """Means of every metric over updates in a row, so few of them that at most `most` are left."""
    every = math.ceil(len(history) / most)
    if every <= 1:
        return [(step, dict(metrics)) for step, metrics in history]
    found = []
    for start in range(0, len(history), every):
        part = history[start : start + every]
        names = dict.fromkeys(name for _, metrics in part for name in metrics)
        means = {}
        for name in names:
            values = [own[name] for _, own in part if isinstance(own.get(name), int | float)]
            if values:
                means[name] = fmean(values)
        found.append((part[len(part) // 2][0], means))
    return found


def _spent(meta: Mapping[str, float]) -> tuple[Fact, ...]:
    facts = []
    if "wall_seconds" in meta:
        facts.append(Fact("Time spent", numbers.duration(meta["wall_seconds"])))
    if "peak_rss_mb" in meta:
        facts.append(Fact("Memory, at most", f"{meta['peak_rss_mb'] / 1000:.2f} GB"))
    return tuple(facts)


def _warnings(stages: Mapping[str, StageRow]) -> list[str]:
    return [
        f"{in_words(name)}: {text}" for name, row in stages.items() for text in row.result.get("warnings", ())
    ]


def _forge(work: Work) -> Now:
    with work.database("forge.sqlite") as db:
        if db is None:
            return Now("Not begun: no ledger yet", (), ())
        counts = dict(db.execute("SELECT outcome, count(*) FROM records GROUP BY outcome").fetchall())
        candidates, pairs = db.execute(
            "SELECT count(*), count(*) FILTER (WHERE outcome = 'kept') FROM candidates"
        ).fetchone()
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    done, seconds = sum(counts.values()), float(meta.get("seconds") or 0)
    facts = [
        Fact("Candidates", numbers.count(candidates)),
        Fact("Pairs that fool the Defender", numbers.count(pairs)),
        *(Fact(f"Records {name}", numbers.count(count)) for name, count in counts.items()),
    ]
    if seconds and done:
        facts.append(Fact("Throughput", f"{done / seconds:.3g} records a second"))
        facts.append(Fact("Time spent", numbers.duration(seconds)))
    title = "The forge is done" if work.finished else "Forging"
    total = work.settings.get("limit") if not work.finished else done
    return Now(title, (Bar("Records", "records", done, total),), tuple(facts))


def _study(work: Work) -> Now:
    """How many cells are done. How many games that will be, its file alone does not say: arms share some."""
    seeds, arms = (work.settings.get(name) or () for name in ("seeds", "arms"))
    own = {f"{arm}-{seed}" for arm in arms for seed in seeds}
    wanted = {"game": None, "edits": len(seeds), "probe": len(own)}
    done = {
        kind: sum(file.parent.name in own for file in (work.folder / PLACES[kind]).glob(f"*/{last}"))
        for kind, last in DONE.items()
    }
    bars = tuple(Bar(PLACES[kind].capitalize(), "done", done[kind], wanted[kind]) for kind in DONE)
    results = work.results() or {}
    failed = tuple(f"{cell} has failed: {why}" for cell, why in results.get("failed", {}).items())
    warnings = (*failed, *results.get("warnings", ()))
    done_but = "done, but for what failed" if failed else "done"
    state = done_but if work.state == "finished" else work.state
    return Now(f"The study is {state}", bars, (), warnings)


def _other(work: Work, db: sqlite3.Connection | None) -> Now:
    """An attack, a probe, an evaluation, a fine-tuning."""
    results = work.results() or {}
    title = f"The {work.kind} is {'done' if results else 'under way'}"
    with work.database("answers.sqlite") as kept:
        answers = 0 if kept is None else kept.execute("SELECT count(*) FROM answers").fetchone()[0]
    warnings = tuple(str(text) for text in results.get("warnings", ()))
    if db is None:
        return Now(title, (Bar("Answers", "answers", answers, results.get("items")),), (), warnings)
    stages = read_stages(db)
    (questions,) = db.execute("SELECT count(*) FROM questions").fetchone()
    samples = int(work.settings.get("samples") or 1)
    bars: list[Bar] = []
    curves: list[Player] = []
    for stage, edits in db.execute("SELECT stage, count(*) FROM edits GROUP BY stage"):
        bars.append(Bar(f"Edits: {stage.partition('/')[2]}", "edits", edits, questions * samples))
    for stage, updates in db.execute("SELECT stage, count(*) FROM updates GROUP BY stage"):
        bars.append(Bar(f"Training: {stage}", "updates", updates, None))
        rows = db.execute("SELECT step, metrics FROM updates WHERE stage = ? ORDER BY step", (stage,))
        history = thin([(row["step"], json.loads(row["metrics"])) for row in rows])
        curves.append(Player(stage, (), panels_of([history])))
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    facts = (Fact("Questions", numbers.count(questions)), Fact("Answers kept", numbers.count(answers)))
    told = (*warnings, *_warnings(stages))
    return Now(title, tuple(bars), (*facts, *_spent(meta)), told, players=tuple(curves))
