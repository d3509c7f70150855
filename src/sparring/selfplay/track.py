"""What of a game its trackers are told, and under which names (docs/track.md).

Of every update what the ledger holds of it; of held-out play and of the summary what is read off most, with
the payoff matrix and some edits as tables. Nothing is told that the run's folder does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.data.images import load_image
from sparring.engine.trackers import Cell, Table
from sparring.measures.payoff import CLEAN, Payoff, attack_report
from sparring.measures.statistics import rate
from sparring.selfplay.game import Game
from sparring.selfplay.turns import attacker_after, defender_after

EDITS = 8
"""Held-out edits that are shown of every Attacker: the same questions each time."""
LONGEST = 512
"""Pixels of a shown picture's longer side at most."""


def track_updates(game: Game) -> None:
    """Every update that is in the ledger and was not told before."""
    if not game.recipe.track:
        return
    for update in game.ledger.updates_after(game.told):
        game.told = update["row"]
        first, _, phase = update["stage"].partition("/")
        number, metrics = int(first.removeprefix("round")), update["metrics"]
        values = {**metrics, "round": number, "update": update["step"], **_pace(game, phase, update)}
        game.trackers.tell(
            f"{update['stage']}:{update['step']}",
            {f"{phase}/{name}": value for name, value in values.items()},
        )


def _pace(game: Game, phase: str, update: Mapping[str, Any]) -> dict[str, float | None]:
    """How fast an update was; nothing where its time is not known."""
    seconds, metrics, used = update["seconds"], update["metrics"], game.utilisation
    if not seconds or seconds < 0:
        return {}
    pace = {"seconds": seconds}
    if phase == "attacker":
        pace["edits_per_second"] = update["edits"] / seconds
        if used is not None:
            pace["model_flops_utilisation"] = used.of_attacker(update["edits"], metrics, seconds)
    if phase == "defender" and used is not None:
        pace["model_flops_utilisation"] = used.of_defender(metrics, seconds)
    if "rollouts" in metrics:
        pace["replies_per_second"] = metrics["rollouts"] / seconds
        pace["tokens_per_second"] = metrics["rollouts"] * metrics["length_mean"] / seconds
    return pace


def track_held_out(game: Game, number: int, payoff: Payoff) -> None:
    """Held-out play after a round: its Attacker against the Defender that it was trained against and against
    the base one, its Defender, the measures that no reward pays for, and some edits.
    """
    key = f"held_out:{number}"
    if not game.trackers.lacks(key):
        return
    attacker, defender = attacker_after(number), defender_after(number)
    report = attack_report(payoff, attacker=attacker, defender=defender_after(max(0, number - 1)))
    names = ("integrity_rate", "accepted_rate", "label_valid_rate", "asr", "valid_asr")
    values = {name: getattr(report, name).value for name in names} | {
        "round": number,
        "valid_asr_base": attack_report(payoff, attacker=attacker, defender="base").valid_asr.value,
        "clean_accuracy": rate(payoff.right(defender, CLEAN)).value,
        "attacked_accuracy": rate(payoff.right(defender, attacker)).value,
        "worst_case_accuracy": payoff.worst_case(defender).value,
    }
    told = {f"held_out/{name}": value for name, value in values.items()}
    if number:
        watched = game.stage(f"round{number}/watch").result
        told["held_out/sharpness"] = watched["sharpness"]["after"]
        told["held_out/reencoded"] = watched["reencoded"]
        made = game.stage(f"round{number}/curriculum").result
        told |= {f"curriculum/{name}": made[name] for name in ("edits", "accepted", "effective")}
    game.trackers.tell(key, told, [_edits(game, number)])


def _edits(game: Game, number: int) -> Table:
    """The first held-out edits of a round's Attacker, and what the Defender that it was trained against said
    to those that passed the checks.
    """
    stage, opponent = f"evaluation/{attacker_after(number)}", defender_after(max(0, number - 1))
    pictures = dict(game.ledger.pictures(stage))
    verdicts = {verdict.question_id: verdict for verdict in game.ledger.verdicts(stage)}
    answers = {answer.question_id: answer for answer in game.ledger.answers(stage, opponent)}

    def rows() -> Iterator[list[Cell]]:
        for question in game.held_out[:EDITS]:
            answer = answers.get(question.id)
            outcome = "rejected"
            if verdicts[question.id].accepted:
                outcome = "refused" if answer is None else "held" if answer.right else "fooled"
            before, after = _small(question.image), _small(pictures[question.id])
            words = [question.id, question.question, question.answer]
            yield [before, after, *words, None if answer is None else answer.text, outcome]

    columns = ("before", "after", "id", "question", "right answer", "reply", "outcome")
    return Table("held_out/edits", columns, list(rows()))


def _small(path: Path) -> Image:
    image = load_image(path)
    image.thumbnail((LONGEST, LONGEST))
    return image


def track_summary(game: Game, summary: Mapping[str, Any]) -> None:
    """The payoff matrix, what the game gained, and what it took."""
    payoff = summary["payoff"]
    names = list(zip(payoff["defenders"], payoff["accuracy"], strict=True))
    values = {
        f"payoff/{defender}/{opponent}": cell["value"]
        for defender, row in names
        for opponent, cell in zip(payoff["opponents"], row, strict=True)
    }
    values |= {f"gains/{name}": gain["value"] for name, gain in summary["gains"].items()}
    values |= {f"run/{name}": summary[name] for name in ("wall_seconds", "peak_rss_mb")}
    rows = [[defender, *(cell["value"] for cell in row)] for defender, row in names]
    table = Table("payoff/accuracy", ["Defender", *payoff["opponents"]], rows)
    game.trackers.tell("summary", values, [table])
