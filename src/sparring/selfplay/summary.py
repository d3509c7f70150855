"""`summary.json`: what a run came to, put together from its ledger and the results of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from sparring.asking.refusals import left_out_text
from sparring.engine.files import write_json
from sparring.judging.kinds import KINDS
from sparring.measures.payoff import (
    CLEAN,
    LEAST_VALID,
    AttackReport,
    Payoff,
    against_rival,
    attack_report,
    gains,
)
from sparring.measures.statistics import rate
from sparring.seeds import derive_seed
from sparring.selfplay.game import Game
from sparring.selfplay.heldout import UNGATED, counted, defenders_until, payoff_until

SCHEMA = 1


def summarise(game: Game) -> dict[str, Any]:
    """Write `summary.json` and give it back.

    A rate is {"value", "n", "ci95"} with Wilson's interval, a gain the same for a paired difference with the
    interval of a bootstrap that resamples pictures. In "rounds", `valid_asr` is the round's Attacker against
    the frozen Defender that it was trained against, and `valid_asr_base` the same edits against the base
    Defender; `edits` counts those of its training and of its curriculum; `watch` holds what no reward pays
    for (see `watch`). "rivals", where the recipe names some: what each did to the base Defender, the last
    Attacker's valid success less its, and what the last Defender gained under it. "strategies": of every
    opponent's successes on the base Defender (accepted, label-valid, right when clean), how many were of each
    kind. "warnings" names every round whose Attacker found nothing, whose Defender had nothing to learn from,
    or whose reward rose while such a measure fell; and what of the figures themselves is to be doubted
    (`doubts_of`). "restarts", where there were some: how often a stage has lost its workers.
    """
    recipe, ledger = game.recipe, game.ledger
    rounds = recipe.selfplay.rounds
    payoff = payoff_until(game, rounds)
    seed = derive_seed(recipe.seed, "gains")
    gained = gains(
        payoff,
        base="base",
        last=f"round{rounds}",
        first_attacker="bootstrap",
        last_attacker=f"round{rounds}",
        resamples=recipe.evaluation.resamples,
        seed=seed,
    )
    ledger.tick()
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "wall_seconds": round(ledger.meta("wall_seconds"), 1),
        "peak_rss_mb": round(ledger.meta("peak_rss_mb"), 1),
        "questions": {"train": len(game.train), "held_out": len(game.held_out)},
        "bootstrap": game.stage("round0/bootstrap").result | _attacker_figures(payoff, "bootstrap", "base"),
        "rounds": [_round(game, payoff, number) for number in range(1, rounds + 1)],
        "payoff": payoff.as_dict() | {"valid_asr": _valid_asr(payoff), "worst_case": _worst_cases(payoff)},
        "gains": {name: difference.as_dict() for name, difference in gained.items()},
        "rivals": {name: _rival(game, payoff, name, seed) for name in recipe.evaluation.rivals},
        "strategies": {
            o.name: strategies(game, payoff, o.name) for o in payoff.opponents if o.verdicts is not None
        },
        "warnings": warnings_of(game),
    }
    if restarts := ledger.restarts():
        summary["restarts"] = restarts
    summary["warnings"] += doubts_of(summary)
    write_json(game.out / "summary.json", summary)
    return summary


def _round(game: Game, payoff: Payoff, number: int) -> dict[str, Any]:
    attacker, defender = (
        game.stage(f"round{number}/attacker").result,
        game.stage(f"round{number}/defender").result,
    )
    opponent = defenders_until(number)[number - 1]
    edits = sum(game.ledger.count("edits", f"round{number}/{part}") for part in ("attacker", "curriculum"))
    figures = _attacker_figures(payoff, f"round{number}", opponent)
    base = _attacker_figures(payoff, f"round{number}", "base")["valid_asr"]
    return {
        "round": number,
        "attacker": {"algorithm": game.recipe.attacker.algorithm.type, "edits": edits}
        | figures
        | {"valid_asr_base": base}
        | attacker,
        "defender": {"algorithm": game.recipe.defender.algorithm.type} | defender,
        "curriculum": game.stage(f"round{number}/curriculum").result,
        "watch": game.stage(f"round{number}/watch").result,
    }


def _attacker_figures(payoff: Payoff, attacker: str, defender: str) -> dict[str, Any]:
    report: AttackReport = attack_report(payoff, attacker=attacker, defender=defender)
    names = ("integrity_rate", "accepted_rate", "valid_asr", "label_valid_rate")
    return {"against": defender} | {name: getattr(report, name).as_dict() for name in names}


def _rival(game: Game, payoff: Payoff, name: str, seed: int) -> dict[str, Any]:
    verdicts, rounds = payoff.opponent(name).verdicts or (), game.recipe.selfplay.rounds
    differences = against_rival(
        payoff,
        rival=name,
        base="base",
        last=f"round{rounds}",
        last_attacker=f"round{rounds}",
        resamples=game.recipe.evaluation.resamples,
        seed=seed,
    )
    return (
        {"rival": game.recipe.evaluation.rivals[name]}
        | _attacker_figures(payoff, name, "base")
        | {
            "rejected_rate": rate([not v.accepted for v in verdicts]).as_dict(),
            "relit_rate": rate([v.relit for v in verdicts]).as_dict(),
        }
        | {key: difference.as_dict() for key, difference in differences.items()}
    )


def strategies(game: Game, payoff: Payoff, attacker: str) -> dict[str, Any]:
    """Of an opponent's valid successes on the base Defender, the share of each kind of attack."""
    kinds: dict[str, str] = game.stage(f"evaluation/{attacker}").result.get("kinds", {})
    hits = payoff.fooled("base", attacker) & payoff.right("base", CLEAN)
    # A stage that an earlier version has finished tells no kinds.
    questions = counted(game, game.recipe.selfplay.rounds)
    told = [
        kinds[question.id]
        for question, hit in zip(questions, hits, strict=True)
        if hit and question.id in kinds
    ]
    return {kind: rate([each == kind for each in told]).as_dict() for kind in KINDS}


def _valid_asr(payoff: Payoff) -> list[list[dict[str, Any] | None]]:
    """As `accuracy`: rows are Defenders, columns opponents; null where nobody attacks."""
    return [
        [
            None
            if o.name in UNGATED
            else attack_report(payoff, attacker=o.name, defender=d).valid_asr.as_dict()
            for o in payoff.opponents
        ]
        for d in payoff.defenders
    ]


def _worst_cases(payoff: Payoff) -> list[dict[str, Any]]:
    """Accuracy of every Defender where only items count that it answers right against all opponents."""
    return [payoff.worst_case(defender).as_dict() for defender in payoff.defenders]


def doubts_of(summary: Mapping[str, Any]) -> list[str]:
    """In words: Attackers whose edits too often change what is right, and Attackers that fool the base
    Defender less than the one before.

    summary: as `summarise` writes it, of which "bootstrap" and "rounds" are read.
    """
    bootstrap, texts = summary["bootstrap"], list[str]()
    attackers = [("round0", bootstrap.get("label_valid_rate"), bootstrap.get("valid_asr"))]
    for own in summary["rounds"]:
        figures = own["attacker"]
        attackers.append(
            (f"round{own['round']}", figures.get("label_valid_rate"), figures.get("valid_asr_base"))
        )
    for name, valid, _ in attackers:
        if valid and valid["value"] is not None and valid["value"] < LEAST_VALID:
            texts.append(
                f"{name}: the right answer is still right in only {_share(valid)} of the Attacker's "
                f"accepted edits that could be audited: the gate lets pass what it should stop"
            )
    for (_, _, before), (name, _, after) in pairwise(attackers):
        if (
            before
            and after
            and None not in (before["value"], after["value"])
            and after["value"] < before["value"]
        ):
            texts.append(
                f"{name}: the Attacker fools the base Defender less often than the one before it, "
                f"{_share(after)} against {_share(before)}"
            )
    return texts


def _share(rate: Mapping[str, Any]) -> str:
    low, high = rate["ci95"]
    return f"{rate['value']:.3f} ({low:.3f} to {high:.3f})"


def warnings_of(game: Game) -> list[str]:
    """What the stages had to say, in the order of play, and which questions the Defender refused."""
    names, rounds = ["round0/bootstrap"], game.recipe.selfplay.rounds
    for number in range(1, rounds + 1):
        names += [f"round{number}/{part}" for part in ("attacker", "curriculum", "defender", "watch")]
    texts = [f"{name}: {text}" for name in names for text in game.stage(name).result.get("warnings", [])]
    places = [game.stage(name) for name in (*(f"round{number}/clean" for number in range(rounds)), *names)]
    lost = {stage.name: stage.result.get("left_out", []) for stage in places if stage.done}
    kept = {question.id for question in counted(game, rounds)}
    lost["evaluation"] = [question.id for question in game.held_out if question.id not in kept]
    return texts + [f"{name}: {left_out_text(ids)}" for name, ids in lost.items() if ids]
