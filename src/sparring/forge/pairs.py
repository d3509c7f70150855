"""The kept pairs as an editor is fine-tuned on them."""

from __future__ import annotations

from sparring.attackers.crops import crops_of
from sparring.attackers.sft import Pair
from sparring.config import CropSettings
from sparring.data.images import load_image
from sparring.forge.ledger import Ledger


def kept_pairs(ledger: Ledger, crop: CropSettings, multiple: int) -> list[Pair]:
    """(clean picture, instruction, adversarial picture) of all kept pairs, in the order of their ids, cut as an editor will see them in play.

    multiple: what the editor's sides are multiples of.
    """
    pairs = []
    for row in sorted(ledger.rows("kept"), key=lambda row: row.id):
        assert row.picture is not None  # a pair was painted, else it had not been kept
        clean, adversarial = load_image(ledger.path(row.clean)), load_image(ledger.path(row.picture))
        (cut,) = crops_of([ledger.question(row)], [clean], crop, multiple)
        pairs.append((cut.cut(clean), row.content["instruction"], cut.cut(adversarial)))
    return pairs
