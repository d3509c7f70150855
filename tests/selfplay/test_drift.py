"""An Attacker that drifts while it trains is stopped, and what it has learned so far is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sparring.config import AttackerSettings, CropSettings, DriftSettings
from sparring.data.errors import TrainingError
from sparring.data.images import pictures_of
from sparring.data.records import VisualQuestion
from sparring.engine.ledger import Ledger
from sparring.engine.stages import Schedule, Stage, train
from sparring.models.editors import FlowEditor, load_editor
from sparring.recipes.paths import resolve_model
from sparring.selfplay import drift as module
from sparring.selfplay.drift import (
    Drift,
    DriftWatch,
    beyond,
    drift_on,
    drift_questions,
    measure_drift,
)
from sparring_arena.world import render, sample_scene
from two_pixels import pictures

BOUNDS = DriftSettings()


@pytest.mark.parametrize(
    ("drift", "said"),
    [
        (Drift(1.0, 1.0), []),
        (Drift(0.13, 3.9), []),
        (Drift(7.9, 0.2), []),
        (Drift(0.12, 1.0), ["0.120 times as sharp"]),
        (Drift(8.1, 1.0), ["8.100 times as sharp"]),
        (Drift(1.0, 4.1), ["4.10 times as much"]),
        (Drift(0.01, 9.0), ["0.010 times as sharp", "9.00 times as much"]),
    ],
)
def test_what_is_beyond_its_bound_is_said(drift: Drift, said: list[str]) -> None:
    for start in (Drift(1.0, 1.0), Drift(0.5, 3.0)):
        now = Drift(drift.sharpness * start.sharpness, drift.round_trip * start.round_trip)
        reason = beyond(now, start, BOUNDS)
        assert (reason is None) is (not said)
        assert all(text in (reason or "") for text in said)
        assert beyond(now, start, DriftSettings(sharpness=None, round_trip=None)) is None


@pytest.fixture(scope="module")
def editor() -> FlowEditor:
    return load_editor(Path(resolve_model("arena/editor")))


def drift_with(editor: FlowEditor, settings: AttackerSettings, blur: float = 0.0, off: float = 0.0) -> Drift:
    """Of scenes, with every latent moved: towards the mean of its picture, or off where pictures are."""
    cleans = [Image.fromarray(render(sample_scene(np.random.default_rng(i)))) for i in range(3)]
    original = module.roll_out

    def moved(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        mean = made.final_BTC.mean(1, keepdim=True)
        noise = torch.randn(made.final_BTC.shape, generator=torch.Generator().manual_seed(0))
        made.final_BTC = torch.lerp(made.final_BTC, mean, blur) + off * noise
        made.edits = module.to_pictures(editor.decode(made.final_BTC, made.conditions))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "roll_out", moved)
        return measure_drift(editor, cleans, ["add a red cup"] * 3, [1, 2, 3], settings)


def test_washed_out_edits_and_latents_that_no_picture_has_are_measured(editor: FlowEditor) -> None:
    settings = AttackerSettings(model="arena/editor", evaluation_steps=1, micro_batch=2)
    plain = drift_with(editor, settings)
    assert plain.sharpness == pytest.approx(1.0, abs=0.5)
    assert plain.round_trip < 0.3
    assert drift_with(editor, settings, blur=0.95).sharpness < plain.sharpness / 2
    off = [drift_with(editor, settings, off=level).round_trip for level in (4.0, 60.0)]
    assert plain.round_trip < off[0] < off[1]
    assert off[1] > BOUNDS.round_trip * plain.round_trip  # type: ignore[operator]
    again = drift_with(editor, settings.model_copy(update={"micro_batch": 3}))
    assert again.sharpness == pytest.approx(plain.sharpness, rel=0.05)


class Counter:
    """A trainer whose state is a number."""

    def __init__(self) -> None:
        self.updates = 0

    def save(self, folder: Path) -> None:
        (folder / "number").write_text(str(self.updates))

    def load(self, folder: Path) -> None:
        self.updates = int((folder / "number").read_text())


def game_of(tmp_path: Path, said: list[str], bounds: DriftSettings) -> Any:
    picture = tmp_path / "p.png"
    pictures(1)[0].save(picture)
    asked = [VisualQuestion(f"q{i}", picture, "Where?", ("left", "right"), "A") for i in range(20)]
    return SimpleNamespace(
        out=tmp_path,
        recipe=SimpleNamespace(
            evaluation=SimpleNamespace(drift=bounds),
            attacker=AttackerSettings(model="m", crop=CropSettings()),
        ),
        held_out=asked,
        seed=lambda *_: 0,
        instruction=lambda question: question.question,
        screen=SimpleNamespace(say=said.append),
    )


def test_a_training_that_drifts_stops_with_its_state_kept_and_stops_again_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharpness, measured, said = {0: 1.0, 2: 0.9, 4: 0.5, 6: 0.1}, list[int](), list[str]()
    trainer, ledger = Counter(), Ledger(tmp_path)
    stage = Stage(tmp_path, "round1/attacker", ledger)
    stage.begin()
    game = game_of(tmp_path, said, DriftSettings(items=5))

    def measure(editor: Any, cuts: Any, *_: Any) -> Drift:
        measured.append(len(cuts))
        return Drift(sharpness[trainer.updates], 1.0)

    def update(step: int) -> dict[str, Any]:
        trainer.updates = step + 1
        return {"reward_mean": 1.0}

    def go(on: Counter) -> list[dict[str, Any]]:
        return train(
            stage,
            on,
            update,
            Schedule(9, 2),
            on_update=lambda metrics: None,
            on_state=DriftWatch(
                game, stage, lambda: drift_on(game, editor, asked, pictures_of(asked), seeds)
            ).look,
        )

    editor: Any = SimpleNamespace(multiple=8)
    asked, seeds = drift_questions(game)
    monkeypatch.setattr(module, "measure_drift", measure)
    with pytest.raises(
        TrainingError, match=r"round1/attacker is stopped after 6 updates: .*0\.100 times as sharp"
    ) as stopped:
        go(trainer)
    assert str(stage.folder) in str(stopped.value)
    assert measured == [5, 5, 5, 5]  # the start, and three states
    assert len(said) == 3
    assert [folder.name for folder in (stage.folder / "state").iterdir()] == ["000006"]
    trainer = Counter()
    with pytest.raises(TrainingError, match="after 6 updates"):
        go(trainer)
    assert trainer.updates == 6
    game.recipe.evaluation.drift = DriftSettings(sharpness=None, round_trip=None)
    assert len(go(trainer)) == 9
    assert len(measured) == 5  # the start was not measured again
