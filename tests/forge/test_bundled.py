"""The forge on the bundled players: kept pairs are judged by the arena's oracle, by recomputed overlaps, and
by asking the Defender again.
"""

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from small_forge import forge_quietly
from sparring.asking.questions import ask
from sparring.config import JudgeSettings
from sparring.data.questions import read_questions
from sparring.forge.painters import box_mask
from sparring.models.vlms.local import LocalVLM
from sparring.recipes.borrow import forge_settings
from sparring_arena.audit import label_valid
from sparring_arena.dataset import write_questions
from sparring_arena.sprites import ASSETS
from sparring_arena.world import SIZE

pytestmark = pytest.mark.slow


def test_pairs_of_the_bundled_players_hold(tmp_path: Path) -> None:
    path, _ = write_questions(tmp_path / "questions", seed=5, train=96, held_out=1)
    given = [("data", str(path)), ("stages.painter.model", f"paste:{ASSETS / 'sprites'}")]
    settings = forge_settings(given, recipe="arena")
    funnel = forge_quietly(settings, tmp_path / "out")
    asked = {question.id: question for question in read_questions(path)}
    loaded = datasets.load_dataset(str(tmp_path / "out" / "dataset"), cache_dir=str(tmp_path / "cache"))
    kept = [row for split in loaded for row in loaded[split]]
    assert 10 <= len(kept) == funnel["records"]["kept"]
    words = [label_valid(asked[row["id"]], row["adversarial_image"]) for row in kept]
    assert np.mean([word is True for word in words]) >= 0.95
    for row in kept:
        masks = [
            box_mask((SIZE, SIZE), [tuple(item["box"])]) for item in (*row["targets"], *row["distractors"])
        ]
        targets = len(row["targets"])
        assert all(
            not (mask & other).any() for i, mask in enumerate(masks[targets:], targets) for other in masks[:i]
        )
        changed = (np.asarray(row["image"]) != np.asarray(row["adversarial_image"])).any(-1)
        assert not changed[~np.any(masks[targets:], axis=0)].any()
        assert row["image"].tobytes() == Image.open(asked[row["id"]].image).convert("RGB").tobytes()
    defender = LocalVLM.load(settings.defender.model)
    questions = [asked[row["id"]] for row in kept]
    again = ask(defender, questions, [row["adversarial_image"] for row in kept], settings.defender, batch=7)
    assert np.mean([not answer.right for answer in again]) >= 0.9
    assert settings.judge.trials == JudgeSettings().trials == 1
