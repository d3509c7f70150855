"""Trackers are told every row once, over resumptions; what fails there never stops a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sparring.config import Recipe
from sparring.data.errors import RecipeError
from sparring.engine import trackers
from sparring.engine.trackers import Table, Trackers, require_trackers
from tracker_files import READERS

RED, BLUE = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
HOSTILE = "[x](javascript:alert(1)) ![](http://evil.example/p.png) <script>\n| a |"
EDITS = Table("held_out/edits", ["before", "after", "reply", "n"], [[RED, BLUE, HOSTILE, 0.5]])


@pytest.fixture(scope="module", autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


def recipe(*track: str) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "small",
            "data": {"path": "questions.jsonl"},
            "attacker": {"model": "editor"},
            "defender": {"model": "vlm", "prompt": "{question}"},
            "track": list(track),
        }
    )


def told_nothing(text: str) -> None:
    raise AssertionError(text)


def tell(out: Path, track: str, rows: dict[str, float], warn: Callable[[str], None] = told_nothing) -> None:
    """One process of a run."""
    with closing(Trackers(recipe(track), out, warn)) as run:
        for key, value in rows.items():
            run.tell(key, {"attacker/reward_mean": value, "attacker/note": "no number"}, [EDITS])


@pytest.mark.parametrize("name", READERS)
def test_a_resumed_run_goes_on_in_the_same_run_and_tells_no_row_twice(name: str, tmp_path: Path) -> None:
    if name != "tensorboard":
        pytest.importorskip(name)
    out = tmp_path / "own-run"
    tell(out, name, {"round1/attacker:0": 0.25, "round1/attacker:1": 0.5})
    tell(out, name, {"round1/attacker:1": 7.0, "round1/attacker:2": 0.75})
    assert READERS[name](out / "track") == {"attacker/reward_mean": [(1, 0.25), (2, 0.5), (3, 0.75)]}


def test_tensorboard_shows_pictures_side_by_side_and_words_as_words(tmp_path: Path) -> None:
    tell(tmp_path, "tensorboard", {"held_out:1": 0.5})
    events = EventAccumulator(str(tmp_path / "track/tensorboard")).Reload()
    (picture,) = events.Images("held_out/edits/0")
    assert (picture.width, picture.height) == (12, 4)
    (text,) = events.Tensors("held_out/edits/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert table.splitlines()[0] == "| reply | n |"
    assert not set("[]()<!") & set(table.splitlines()[2].replace("<br>", ""))
    assert table.splitlines()[2].endswith("| 0.5 |")
    (stored,) = events.Tensors("recipe/text_summary")
    assert b"    name: small" in stored.tensor_proto.string_val[0]


def test_a_tracker_that_fails_is_named_once_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(trackers._Kind):
        def begin(self, run: Trackers) -> None:
            self.tracker = None

        def tell(self, *row: Any) -> None:
            raise ConnectionError("the server is gone\nwith details")

    monkeypatch.setitem(trackers.KINDS, "wandb", Broken)
    monkeypatch.setitem(trackers.MODULES, "wandb", ())
    warnings: list[str] = []
    with closing(Trackers(recipe("wandb", "tensorboard"), tmp_path, warnings.append)) as run:
        for number in range(3):
            run.tell(f"round1/attacker:{number}", {"attacker/loss": float(number)})
    (warning,) = warnings
    assert warning.startswith("track: wandb failed (ConnectionError: the server is gone). The run goes on")
    assert READERS["tensorboard"](tmp_path / "track") == {"attacker/loss": [(1, 0.0), (2, 1.0), (3, 2.0)]}


def test_what_nobody_could_be_told_is_told_after_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(trackers._TensorBoard, "tell", lambda *row: np.zeros(1)[1])
        tell(tmp_path, "tensorboard", {"round1/attacker:0": 0.25, "round1/attacker:1": 0.5}, warn=print)
    tell(tmp_path, "tensorboard", {"round1/attacker:0": 0.25, "round1/attacker:1": 0.5})
    told = READERS["tensorboard"](tmp_path / "track")
    assert [value for _, value in told["attacker/reward_mean"]] == [0.5]


def test_what_is_missing_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(trackers.MODULES, "trackio", ("no_such_module",))
    with pytest.raises(RecipeError, match=r"^track: trackio is not installed.*sparring\[trackio\]'$"):
        Trackers(recipe("trackio"), tmp_path, told_nothing)
    (tmp_path / "left_by_a_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(trackers.MODULES, "trackio", ("left_by_a_tracker",))
    with pytest.raises(RecipeError, match=r"^track: trackio is not installed"):
        require_trackers(recipe("trackio"))
    monkeypatch.setitem(trackers.MODULES, "wandb", ())
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(RecipeError, match="WANDB_API_KEY is not set"):
        require_trackers(recipe("wandb"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    require_trackers(recipe("wandb"))
    assert not (tmp_path / "track").exists()


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    with closing(Trackers(recipe(), tmp_path, told_nothing)) as run:
        run.tell("round1/attacker:0", {"attacker/loss": 1.0})
    assert not list(tmp_path.iterdir())
