"""The payoff matrix of held-out play, what each attack achieved, and what the game gained: pure sums over
answers that are already there.

Rows are Defenders, columns are opponents: the clean picture, the editor's re-encoded one, and the edits of
each Attacker. An edit that the gate rejects is no attack: there the Defender plays the clean picture, so its
answer to that one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.data.errors import DataError
from sparring.data.records import Verdict
from sparring.measures.statistics import Difference, Rate, mcnemar_exact, paired_bootstrap, rate

LEAST_VALID = 0.95
"""Share of accepted edits whose right answer should still be right: below it an attack is about something
else than was asked."""
CLEAN = "clean"
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Opponent:
    """A column: its name, and one verdict an item in the items' order; None for pictures that nobody attacks
    (clean, re-encoded).
    """

    name: str
    verdicts: tuple[Verdict, ...] | None = None

    def accepted(self, n: int) -> Bools:
        """[n]: the item is played on this opponent's picture, not on the clean one."""
        return (
            np.ones(n, dtype=bool)
            if self.verdicts is None
            else np.array([v.accepted for v in self.verdicts], dtype=bool)
        )

    def attacked(self, n: int) -> Bools:
        """[n]: the picture was changed. Items whose picture came back as it was are in no rate of this
        opponent's.
        """
        return (
            np.ones(n, dtype=bool)
            if self.verdicts is None
            else np.array([not v.unchanged for v in self.verdicts], dtype=bool)
        )

    def label_valid(self, n: int) -> Bools:
        """[n]: the auditor says that the right answer is still right.

        Where nobody audited a single edit of this opponent, the gate's word is all there is and every edit
        passes; once there is an auditor, an edit that it cannot read does not.
        """
        if self.verdicts is None or all(v.label_valid is None for v in self.verdicts):
            return np.ones(n, dtype=bool)
        return np.array([v.label_valid is True for v in self.verdicts], dtype=bool)


@dataclass(frozen=True, slots=True)
class AttackReport:
    """What one Attacker's edits did to one Defender; every rate carries its own denominator.

    integrity_rate: edits whose protected boxes are intact, of all. accepted_rate: edits that pass the whole
    gate, of all. label_valid_rate: edits whose right answer is still right, of the accepted and audited
    ones. asr: items answered wrong on an accepted edit, of those right when clean. asr_unconditional: the
    same, of all items. valid_asr: as `asr`, counting only edits that are label-valid too. harmed, rescued:
    items that the attack turned wrong, or right. mcnemar: exact p-value of the two.
    """

    integrity_rate: Rate
    accepted_rate: Rate
    label_valid_rate: Rate
    asr: Rate
    asr_unconditional: Rate
    valid_asr: Rate
    harmed: int
    rescued: int
    mcnemar: float

    @property
    def net_flips(self) -> int:
        return self.harmed - self.rescued

    def as_dict(self) -> dict[str, Any]:
        names = (
            "integrity_rate",
            "accepted_rate",
            "label_valid_rate",
            "asr",
            "asr_unconditional",
            "valid_asr",
        )
        rates = {name: getattr(self, name).as_dict() for name in names}
        return rates | {
            "harmed": self.harmed,
            "rescued": self.rescued,
            "net_flips": self.net_flips,
            "mcnemar": self.mcnemar,
        }


@dataclass(frozen=True, slots=True)
class Payoff:
    """Held-out play of every Defender against every opponent: `right_DON` as played, and `clusters`, the
    picture that each item is about.
    """

    defenders: tuple[str, ...]
    opponents: tuple[Opponent, ...]
    clusters: tuple[str, ...]
    right_DON: Bools

    def right(self, defender: str, opponent: str) -> Bools:
        """[N]: was each item answered right, as played."""
        names = [o.name for o in self.opponents]
        if defender not in self.defenders or opponent not in names:
            raise DataError(
                f"nobody played {defender!r} against {opponent!r}: there are Defenders "
                f"{list(self.defenders)} and opponents {names}"
            )
        played: Bools = self.right_DON[self.defenders.index(defender), names.index(opponent)]
        return played

    def opponent(self, name: str) -> Opponent:
        found = [o for o in self.opponents if o.name == name]
        if not found:
            raise DataError(f"there is no opponent {name!r}, only {[o.name for o in self.opponents]}")
        return found[0]

    def accuracy(self) -> list[list[Rate]]:
        """Rows are Defenders, columns opponents."""
        return [[rate(right_N) for right_N in right_ON] for right_ON in self.right_DON]

    def worst_case(self, defender: str) -> Rate:
        """Robust accuracy: items right on every opponent's picture, the clean one included."""
        return rate(self.right_DON[self.defenders.index(defender)].all(0))

    def fooled(self, defender: str, opponent: str) -> Bools:
        """[N]: answered wrong on an accepted and label-valid edit."""
        edits = self.opponent(opponent)
        n = len(self.clusters)
        return ~self.right(defender, opponent) & edits.accepted(n) & edits.label_valid(n)

    def as_dict(self) -> dict[str, Any]:
        return {
            "defenders": list(self.defenders),
            "opponents": [o.name for o in self.opponents],
            "accuracy": [[cell.as_dict() for cell in row] for row in self.accuracy()],
        }


def play_off(
    defenders: Sequence[str],
    opponents: Sequence[Opponent],
    right: Mapping[tuple[str, str], Sequence[bool | None]],
    clusters: Sequence[str],
) -> Payoff:
    """Put answers together into a payoff matrix.

    right[defender, opponent]: per item whether that Defender's answer to that opponent's picture is right;
    it may be None where the gate rejected the edit, since nobody need be asked there. An opponent named
    "clean" is needed. clusters: per item the hash of its picture. DataError for a game that is missing or of
    another length, or for an accepted edit without an answer.
    """
    n = len(clusters)
    if CLEAN not in [o.name for o in opponents]:
        raise DataError(
            f"no opponent is named {CLEAN!r}, only {[o.name for o in opponents]}: rejected edits are "
            f"played on the clean picture"
        )
    for opponent in opponents:
        if opponent.verdicts is not None and len(opponent.verdicts) != n:
            raise DataError(f"opponent {opponent.name!r} has {len(opponent.verdicts)} verdicts for {n} items")
    everywhere = np.ones(n, dtype=bool)
    right_DON = np.zeros((len(defenders), len(opponents), n), dtype=bool)
    for d, defender in enumerate(defenders):
        clean_N = _asked(right, defender, CLEAN, everywhere)
        for o, opponent in enumerate(opponents):
            accepted_N = opponent.accepted(n)
            right_DON[d, o] = np.where(
                accepted_N, _asked(right, defender, opponent.name, accepted_N), clean_N
            )
    return Payoff(tuple(defenders), tuple(opponents), tuple(clusters), right_DON)


def _asked(
    right: Mapping[tuple[str, str], Sequence[bool | None]], defender: str, opponent: str, needed_N: Bools
) -> Bools:
    if (defender, opponent) not in right:
        raise DataError(f"the answers of {defender!r} against {opponent!r} are missing")
    answers = right[defender, opponent]
    if len(answers) != len(needed_N):
        raise DataError(
            f"{defender!r} against {opponent!r}: {len(answers)} answers for {len(needed_N)} items"
        )
    unanswered = [
        item
        for item, (answer, needed) in enumerate(zip(answers, needed_N, strict=True))
        if needed and answer is None
    ]
    if unanswered:
        raise DataError(
            f"{defender!r} against {opponent!r}: item {unanswered[0]} is in play but has no answer "
            f"({len(unanswered)} such items)"
        )
    return np.array([bool(answer) for answer in answers], dtype=bool)


def attack_report(payoff: Payoff, *, attacker: str, defender: str) -> AttackReport:
    """What the edits of one Attacker did to one Defender. DataError where that opponent edits nothing."""
    opponent = payoff.opponent(attacker)
    if opponent.verdicts is None:
        raise DataError(f"opponent {attacker!r} has no verdicts: it attacks nobody")
    n = len(payoff.clusters)
    clean_N, played_N = payoff.right(defender, CLEAN), payoff.right(defender, attacker)
    accepted_N, attacked_N = opponent.accepted(n), opponent.attacked(n)
    wrong_N = accepted_N & ~played_N
    audited = [v.label_valid for v in opponent.verdicts if v.accepted and v.label_valid is not None]
    return AttackReport(
        integrity_rate=rate([v.intact for v in opponent.verdicts if not v.unchanged]),
        accepted_rate=rate(accepted_N[attacked_N]),
        label_valid_rate=rate(audited),
        asr=rate(wrong_N[clean_N & attacked_N]),
        asr_unconditional=rate(wrong_N[attacked_N]),
        valid_asr=rate(payoff.fooled(defender, attacker)[clean_N & attacked_N]),
        harmed=int((clean_N & ~played_N).sum()),
        rescued=int((~clean_N & played_N).sum()),
        mcnemar=mcnemar_exact(clean_N, played_N),
    )


def against_rival(
    payoff: Payoff, *, rival: str, base: str, last: str, last_attacker: str, resamples: int, seed: int
) -> dict[str, Difference]:
    """What training brought beside a rival that nobody trained, as paired differences like those of `gains`.

    attacker: valid ASR of the last Attacker less that of the rival, both against the base Defender, over the
    items that it gets right when clean. transfer: accuracy of the last Defender less that of the base one,
    both under the rival, whose edits no Attacker made.
    """
    kept_N = payoff.right(base, CLEAN)
    kept_clusters = [cluster for cluster, kept in zip(payoff.clusters, kept_N, strict=True) if kept]
    pairs = {
        "attacker": (
            payoff.fooled(base, last_attacker)[kept_N],
            payoff.fooled(base, rival)[kept_N],
            kept_clusters,
        ),
        "transfer": (payoff.right(last, rival), payoff.right(base, rival), payoff.clusters),
    }
    return {
        name: paired_bootstrap(a, b, own, resamples=resamples, seed=seed)
        for name, (a, b, own) in pairs.items()
    }


def gains(
    payoff: Payoff,
    *,
    base: str,
    last: str,
    first_attacker: str,
    last_attacker: str,
    resamples: int,
    seed: int,
) -> dict[str, Difference]:
    """What the game gained, as paired differences with intervals from the bootstrap clustered by picture.

    robust: accuracy of the last Defender less that of the base one, both under the last Attacker. clean: the
    same on clean pictures. attacker: valid ASR of the last Attacker less that of the first, both against the
    base Defender, over the items that it gets right when clean.
    """
    clusters = payoff.clusters
    kept_N = payoff.right(base, CLEAN)
    pairs = {
        "robust": (payoff.right(last, last_attacker), payoff.right(base, last_attacker), clusters),
        "clean": (payoff.right(last, CLEAN), payoff.right(base, CLEAN), clusters),
        "attacker": (
            payoff.fooled(base, last_attacker)[kept_N],
            payoff.fooled(base, first_attacker)[kept_N],
            [cluster for cluster, kept in zip(clusters, kept_N, strict=True) if kept],
        ),
    }
    return {
        name: paired_bootstrap(a, b, own, resamples=resamples, seed=seed)
        for name, (a, b, own) in pairs.items()
    }
