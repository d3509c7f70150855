"""The perfectly drawn look-alike: one more thing, of the right group, beside what was there, and the answer
stays right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.data.errors import DataError
from sparring_arena.audit import label_valid
from sparring_arena.dataset import draw, to_record
from sparring_arena.oracle import find
from sparring_arena.rivals import lookalike
from sparring_arena.sprites import lookalikes
from sparring_arena.world import render


def test_a_look_alike_of_what_is_asked_about_is_added(tmp_path: Path) -> None:
    for i in range(16):
        scene, asked = draw(9, "held_out", i)
        path = tmp_path / f"{i}.png"
        Image.fromarray(render(scene)).save(path)
        record = to_record(str(i), path, asked)
        made = lookalike(record, Image.open(path), seed=i)
        assert made is not None
        picture, told = made
        before, after = (
            {(s.name, s.color, s.box) for s in find(np.asarray(p))} for p in (Image.open(path), picture)
        )
        ((name, color, _),) = after - before
        assert before < after
        assert told == f"a {color} {name}"
        assert any(name in lookalikes(asked_name) for asked_name in asked.names)
        assert name not in asked.names
        assert label_valid(record, picture) is True
        assert lookalike(record, Image.open(path), seed=i)[0].tobytes() == picture.tobytes()  # type: ignore[index]


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    _scene, asked = draw(9, "held_out", 0)
    record = to_record("0", tmp_path / "0.png", asked)
    with pytest.raises(DataError, match="64 x 64"):
        lookalike(record, Image.new("RGB", (64, 64)), seed=0)
