"""What the Defender learns from: edits by the frozen Attacker that passed the checks, clean items, and edits
by Attackers of earlier rounds.

METHOD: an item enters with an edit only if the Defender got it right when clean and the edit was accepted;
groups without signal are thrown by the Defender's dynamic sampling.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from sparring.config import CurriculumSettings
from sparring.data.images import load_image
from sparring.data.records import VisualQuestion
from sparring.seeds import derive_seed


@dataclass(frozen=True)
class Curriculum:
    """Items for one round's Defender: (question id, picture) of this round's accepted edits (`fresh`) and of
    earlier rounds' (`replay`).
    """

    questions: Mapping[str, VisualQuestion]
    fresh: Sequence[tuple[str, Path]]
    replay: Sequence[tuple[str, Path]]
    clean_share: float
    replay_share: float

    def stream(self, *where: int | str) -> Iterator[tuple[Image, VisualQuestion]]:
        """Items without end for one update, in an order that depends on `where` alone (run seed, stage,
        step).

        Each item is clean with probability `clean_share`, a replay with `replay_share`, else fresh; none
        comes twice before all of its kind have come.
        """
        rng = random.Random(derive_seed(*where))
        pools = {
            "clean": [(name, question.image) for name, question in self.questions.items()],
            "replay": self.replay,
            "fresh": self.fresh,
        }
        weights = (self.clean_share, self.replay_share, max(0.0, 1.0 - self.clean_share - self.replay_share))
        piles: dict[str, list[tuple[str, Path]]] = {kind: [] for kind in pools}
        while True:
            (kind,) = rng.choices(list(pools), weights)
            if not piles[kind]:
                piles[kind] = rng.sample(pools[kind], len(pools[kind]))
            name, picture = piles[kind].pop()
            yield load_image(picture), self.questions[name]


def compose(
    questions: Sequence[VisualQuestion],
    fresh: Sequence[tuple[str, Path]],
    replay: Sequence[tuple[str, Path]],
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
    return Curriculum({q.id: q for q in questions}, fresh, replay, clean_share, replay_share), warnings
