"""What a forge would cost: how many records there are, and how often which model would be called at most. Nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from sparring.config import ForgeSettings
from sparring.forge.painters.loading import is_plain
from sparring.forge.sources import open_source


@dataclass(frozen=True, slots=True)
class Estimate:
    """Records of the source, (part, model, dtype) of every model that would be loaded, and calls at most by what is called."""

    records: int
    format: str
    models: list[tuple[str, str, str]]
    calls: dict[str, int]


def estimate(settings: ForgeSettings) -> Estimate:
    """Upper bounds: every record is taken to be readable, to pass every check, and never to be fooled. DataError where the source cannot be opened."""
    source = open_source(settings.data, settings.format, settings.images)
    records = sum(1 for _ in islice(source.units(), settings.limit))
    stages, judge = settings.stages, settings.judge
    extend = stages.extend.painter
    candidates, votes = records * stages.attempts, 1 if stages.panel.temperature == 0 else stages.panel.votes
    models: list[tuple[str, str, str]] = [("defender", settings.defender.model, settings.defender.dtype)]
    calls = {"questions to the Defender, about clean pictures": records}
    if stages.propose.locate:
        calls["requests for the boxes of targets"] = records
    if extend is not None:
        calls["pictures extended"] = records
        if extend.model != "edges":
            models.append(("outpainting", extend.model, extend.dtype))
        if stages.extend.checks:
            calls["verdicts on extended pictures"] = records * len(stages.extend.checks) * votes
    if stages.propose.model is not None:
        models.append(("proposals", stages.propose.model, stages.propose.dtype))
        calls["requests for proposals"] = candidates
    if stages.panel.prompts:
        calls["verdicts on proposals"] = candidates * stages.propose.number * votes
    if stages.implant != "painter":
        models.append(("implanting", settings.attacker.model, settings.attacker.dtype))
        calls["pictures edited"] = candidates
    else:
        calls["boxes painted"] = candidates * stages.propose.number
        if not is_plain(stages.painter.model):
            models.append(("implanting", stages.painter.model, stages.painter.dtype))
    if judge.model is not None:
        models.append(("judge", judge.model, judge.dtype))
        calls["counts of queried objects (one a kind of object)"] = records + candidates
    calls["questions to the Defender, about candidates"] = candidates * (1 if judge.trial_temperature == 0 else judge.trials)
    return Estimate(records, source.format, models, calls)
