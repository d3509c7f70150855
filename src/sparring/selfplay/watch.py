"""Does an Attacker get better, or only better paid? What no reward pays for, measured on held-out edits
before and after its round.

A reward that rises while such a measure falls is the sign of reward hacking: of edits that please the judge
of the training and nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from sparring.config import AlarmSettings
from sparring.measures.payoff import CLEAN, Payoff, attack_report
from sparring.selfplay.game import Game
from sparring.selfplay.heldout import REENCODED
from sparring.selfplay.turns import attacker_after, defender_after

Change = dict[str, float | None]
"""{"before": ..., "after": ...}: of the Attacker before the round and after it; None where it was not
measured.
"""

NAMES = {
    "success": "held-out valid attack success",
    "label_valid": "share of held-out edits with a valid label",
    "sharpness": "sharpness ratio",
}


def watch(game: Game, number: int, payoff: Payoff) -> None:
    """Put together round `number`'s measures from what is in the ledger, and warn where they contradict the
    reward.

    The stage "round<number>/watch" holds `reward` (means of the first and the last quarter of the round's
    updates); for the Attackers before and after the round, all against the Defender that it was trained
    against: `success` (valid attack success), `label_valid` (the audit) and `sharpness` (median ratio);
    `reencoded`, the share of items right when clean that the editor's round trip alone turns wrong.
    """
    stage = game.stage(f"round{number}/watch")
    if stage.done:
        return
    stage.begin()
    updates = game.ledger.updates(f"round{number}/attacker")
    rewards = [metrics["reward_mean"] for metrics in updates if "reward_mean" in metrics]
    quarter = max(1, len(rewards) // 4)
    reward: Change = {"before": None, "after": None}
    if len(rewards) >= 2:
        reward = {"before": fmean(rewards[:quarter]), "after": fmean(rewards[-quarter:])}
    opponent, attackers = (
        defender_after(number - 1),
        {"before": attacker_after(number - 1), "after": attacker_after(number)},
    )
    reports = {
        when: attack_report(payoff, attacker=name, defender=opponent) for when, name in attackers.items()
    }
    measures: dict[str, Change] = {
        "success": {when: report.valid_asr.value for when, report in reports.items()},
        "label_valid": {when: report.label_valid_rate.value for when, report in reports.items()},
        "sharpness": {when: _sharpness(game, name) for when, name in attackers.items()},
    }
    clean_N, again_N = payoff.right(opponent, CLEAN), payoff.right(opponent, REENCODED)
    reencoded = float((clean_N & ~again_N).sum() / clean_N.sum()) if clean_N.any() else None
    warnings = contradictions(reward, measures, reencoded, game.recipe.evaluation.alarms)
    for text in warnings:
        game.screen.warn(f"{stage.name}: {text}")
    shown = {"reward": reward, **measures}
    game.screen.say(
        f"round {number}, before and after: "
        + "; ".join(f"{name} {_arrow(change)}" for name, change in shown.items())
    )
    stage.finish({**shown, "reencoded": reencoded, "warnings": warnings})


def contradictions(
    reward: Change, measures: dict[str, Change], reencoded: float | None, alarms: AlarmSettings
) -> list[str]:
    """In words: every measure that fell by more than its bound while the reward rose, and success that the
    round trip alone would have.
    """
    if not (_fall(reward) or 0.0) < 0:
        return []
    found = []
    for name, bound in alarms.model_dump().items():
        change = measures[name]
        fall = _fall(
            {when: _kept(value) for when, value in change.items()} if name == "sharpness" else change
        )
        if bound is not None and fall is not None and fall > bound:
            found.append(
                f"the reward rose ({_arrow(reward)}) while the {NAMES[name]} went {_arrow(change)}, beyond "
                f"the bound of {bound:g}: the Attacker may be gaming its reward. Look at its edits before "
                f"you trust it."
            )
    success = measures["success"]["after"]
    if success is not None and reencoded and success <= reencoded:
        found.append(
            f"the editor's round trip alone fools {reencoded:.3f} of the items, the Attacker's edits "
            f"{success:.3f}: what the reward pays for may be the autoencoder's doing."
        )
    return found


def _sharpness(game: Game, attacker: str) -> float | None:
    values = [
        verdict.notes["sharpness"]
        for verdict in game.ledger.verdicts(f"evaluation/{attacker}")
        if "sharpness" in verdict.notes
    ]
    return median(values) if values else None


def _kept(ratio: float | None) -> float | None:
    """How near a ratio is to 1, from above or below: 1 at 1, falling to 0."""
    return None if ratio is None else min(ratio, 1 / ratio)


def _fall(change: Change) -> float | None:
    before, after = change["before"], change["after"]
    return None if before is None or after is None else before - after


def _arrow(change: Change) -> str:
    ends: Sequence[float | None] = (change["before"], change["after"])
    return " to ".join("unknown" if end is None else f"{end:.3f}" for end in ends)
