"""What speaks against a study's figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from sparring.data.words import plural
from sparring.study.plan import Study

if TYPE_CHECKING:
    from sparring.study.figures import Probed

UNPARSED, MANY_UNPARSED = "unparsed", 0.05


def doubts(study: Study, probed: Mapping[tuple[str, int], Probed]) -> Iterator[str]:
    """In words: seeds and measures that are missing, answers that nobody could read, adaptive Attackers that
    learned nothing, questions that are paired and were asked about other pictures.
    """
    seeds = study.settings.seeds
    for arm in study.settings.arms:
        own = {seed: probed[arm, seed] for seed in seeds if (arm, seed) in probed}
        if len(own) < len(seeds):
            done = f"{len(own)} of {plural(len(seeds), 'seed')}"
            yield f"{arm}: {done} done; its figures are of these." if own else f"{arm}: no seed is done."
        unparsed = fmean(one.whole.get(UNPARSED, 0.0) for one in own.values()) if own else 0.0
        if unparsed >= MANY_UNPARSED:
            yield (
                f"{arm}: {unparsed:.0%} of its answers could not be read, which count as wrong: its training "
                "may have broken it."
            )
        if idle := [seed for seed, one in own.items() if one.learned is False]:
            yield (
                f"{arm}: {_of(idle)} the adaptive Attacker learned nothing: what it was measured against is "
                "the editor as it came."
            )
        yield from _missing(arm, own)
        yield from _other_pictures(study, arm, probed)


def _missing(arm: str, own: Mapping[int, Probed]) -> Iterator[str]:
    """Measures that some seed of an arm has not, or cannot count any question of: they are in no figure."""
    lacking = dict[tuple[int, ...], list[str]]()
    for name in dict.fromkeys(name for one in own.values() for name in (*one.items, *one.whole)):
        without = tuple(seed for seed, one in own.items() if not one.has(name))
        if without:
            lacking.setdefault(without, []).append(name)
    for without, names in lacking.items():
        yield f"{arm}: {_of(without)} there are no figures of these, which are left out: {', '.join(names)}."


def _other_pictures(study: Study, arm: str, probed: Mapping[tuple[str, int], Probed]) -> Iterator[str]:
    """Questions are paired with the baseline's by their ids."""
    baseline = study.settings.baseline
    for seed in study.settings.seeds:
        if (arm, seed) in probed and (baseline, seed) in probed:
            own, base = (
                dict(zip(one.ids, one.pictures, strict=True))
                for one in (probed[arm, seed], probed[baseline, seed])
            )
            both = own.keys() & base.keys()
            if other := sum(own[name] != base[name] for name in both):
                yield (
                    f"{arm}: {_of([seed])} {other} of {plural(len(both), 'question')} that {baseline} was "
                    "asked too were about other pictures there: their differences are not of the same "
                    "questions. Delete the probe whose pictures are wrong, and it is done anew."
                )


def _of(seeds: Sequence[int]) -> str:
    return f"with {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
