"""What the Defender learns from: edits by the frozen Attacker that passed the checks, clean items, and edits
by Attackers of earlier rounds.

METHOD: an item enters with an edit only if the Defender got it right when clean and the edit was accepted;
groups without signal are thrown by the Defender's dynamic sampling.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from sparring.config import CurriculumSettings
from sparring.data.pictures import PictureBytes, carried
from sparring.data.records import VisualQuestion
from sparring.engine.ledger import Ledger
from sparring.seeds import derive_seed

Place = tuple[str, Path]
"""An item: a question's id, and the picture that it is asked about."""
NEVER: Mapping[Place, int] = MappingProxyType({})
LEAST = 0.05
"""How often an item is sampled at least, when it is due: the Defender may come to get it wrong again."""


@dataclass(frozen=True)
class Curriculum:
    """Items for one round's Defender: this round's accepted edits (`fresh`) and earlier rounds' (`replay`).
    revisit: see `CurriculumSettings.revisit`.
    """

    questions: Mapping[str, VisualQuestion]
    fresh: Sequence[Place]
    replay: Sequence[Place]
    clean_share: float
    replay_share: float
    revisit: float = 1.0

    def stream(
        self, *where: int | str, silent: Mapping[Place, int] = NEVER
    ) -> Iterator[tuple[PictureBytes, VisualQuestion]]:
        """The items of `order`; their pictures are not decoded yet."""
        for name, picture in self.order(*where, silent=silent):
            yield carried(picture), self.questions[name]

    def order(self, *where: int | str, silent: Mapping[Place, int] = NEVER) -> Iterator[Place]:
        """Items without end for one update, in an order that depends on `where` (run seed, stage, step) and
        on `silent` alone: how many times in a row items have given no signal.

        Each item is clean with probability `clean_share`, a replay with `replay_share`, else fresh; none
        is due twice before all of its kind have been.
        """
        rng = random.Random(derive_seed(*where))
        pools = {
            "clean": [(name, question.image) for name, question in self.questions.items()],
            "replay": self.replay,
            "fresh": self.fresh,
        }
        weights = (self.clean_share, self.replay_share, max(0.0, 1.0 - self.clean_share - self.replay_share))
        piles: dict[str, list[Place]] = {kind: [] for kind in pools}

        def due(kind: str) -> Place:
            if not piles[kind]:
                piles[kind] = rng.sample(pools[kind], len(pools[kind]))
            return piles[kind].pop()

        while True:
            (kind,) = rng.choices(list(pools), weights)
            place = due(kind)
            while place in silent and rng.random() >= max(LEAST, self.revisit ** silent[place]):
                place = due(kind)
            yield place


class Silence:
    """How many times in a row each item has given no signal, read off the ledger: what a phase that is gone
    on with samples is what an undisturbed one would have sampled.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        ledger: Ledger,
        stage: str,
        seed: int,
        times: Mapping[Place, int] = NEVER,
    ) -> None:
        """stage, seed: of the phase; times: after the phases before it."""
        self.curriculum, self.ledger, self.stage, self.seed = curriculum, ledger, stage, seed
        self.times, self._steps = dict(times), 0

    def before(self, step: int) -> Mapping[Place, int]:
        """After all updates before this one; nothing where items are sampled always."""
        if self.curriculum.revisit < 1:
            for earlier in range(self._steps, step):
                alike = self.ledger.alike(self.stage, earlier)
                order = self.curriculum.order(self.seed, earlier, silent=self.times)
                for place, same in zip(list(islice(order, len(alike))), alike, strict=True):
                    self.times[place] = self.times.get(place, 0) + 1 if same else 0
            self._steps = max(step, self._steps)
        return self.times


def compose(
    questions: Sequence[VisualQuestion],
    fresh: Sequence[Place],
    replay: Sequence[Place],
    settings: CurriculumSettings,
) -> tuple[Curriculum, list[str]]:
    """The shares of the kinds of items, and what a person should know about them. Clean items are drawn from
    all the `questions`.

    The replay share goes to fresh edits where there is nothing to replay. Without fresh edits the Defender
    trains on clean items and replays alone, which is said. With `clean_share` 1 no edit is used at all.
    """
    warnings = []
    clean_share = settings.clean_share
    replay_share = min(settings.replay_share, 1.0 - clean_share) if replay else 0.0
    if clean_share < 1.0 and not fresh:
        warnings.append(
            "no edit was accepted for the curriculum: the Defender trains on clean items"
            + (" and replays" if replay else " alone")
        )
        clean_share = 1.0 - replay_share
    by_id = {question.id: question for question in questions}
    return Curriculum(by_id, fresh, replay, clean_share, replay_share, settings.revisit), warnings
