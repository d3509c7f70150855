"""Where an editor's parts are when. There is one device here, but it has two names: "cpu:0" stands for the
accelerator, "cpu" for where parts rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from small_checkpoints import picture
from sparring.attackers.rollout import Chance, replay, roll_out
from sparring.models.editors import FlowEditor, load_editor

AWAY, HOME = "cpu", "cpu:0"


class Watch:
    """Records every move of an editor's parts, and fails when one works that is not at home."""

    def __init__(self, editor: FlowEditor, patch: pytest.MonkeyPatch) -> None:
        self.texts = list(editor.text_encoders)
        self.at = {"vae": AWAY, **dict.fromkeys(self.texts, AWAY), "transformer": HOME}
        self.moves: list[tuple[str, str]] = []
        self.worked: list[str] = []
        for name in self.at:
            part = getattr(editor.pipeline, name)
            patch.setattr(part, "to", self._moving(name, part.to))
            for method in ("encode", "decode") if name == "vae" else ("forward",):
                patch.setattr(part, method, self._working(name, getattr(part, method)))

    def _moving(self, name: str, to: Any) -> Any:
        def move(device: torch.device) -> Any:
            self.at[name] = str(device)
            self.moves.append((name, str(device)))
            return to(device)

        return move

    def _working(self, name: str, work: Any) -> Any:
        def guarded(*arguments: Any, **options: Any) -> Any:
            assert self.at[name] == HOME, f"{name} works while it is away"
            self.worked.append(name)
            return work(*arguments, **options)

        return guarded

    def there_and_back(self, *names: str) -> list[tuple[str, str]]:
        return [(name, device) for device in (HOME, AWAY) for name in names]


@pytest.fixture
def watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FlowEditor, Watch]:
    editor = load_editor(folder, device=HOME, offload=True)
    return editor, Watch(editor, monkeypatch)


def test_parts_are_on_the_accelerator_only_while_they_work_and_nothing_else_changes(
    watched: tuple[FlowEditor, Watch], folder: Path
) -> None:
    editor, watch = watched
    plain = load_editor(folder)
    images, texts = [picture(), picture(seed=1)], ["a", "put a cup there"]
    conditions = editor.encode(images, texts, guidance_scale=2.0)
    assert watch.moves == watch.there_and_back("vae") + watch.there_and_back(*watch.texts)
    expected = plain.encode(images, texts, guidance_scale=2.0)
    assert conditions.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(tensor, expected.tensors[name]) for name, tensor in conditions.tensors.items())

    watch.moves.clear()
    rows, seeds = torch.arange(2), [5, 6]
    chance = Chance(range(1), "sde", 0.7)
    rollout = roll_out(editor, conditions, rows, seeds, steps=3, chance=chance)
    assert watch.moves == watch.there_and_back("vae")  # for decoding; the transformer stayed
    assert torch.equal(
        rollout.final_BTC, roll_out(plain, expected, rows, seeds, steps=3, chance=chance).final_BTC
    )

    watch.moves.clear()
    latents = editor.clean_latents(images, conditions)
    assert torch.equal(editor.decode(latents, conditions), editor.reencode(images))
    assert watch.moves == watch.there_and_back("vae") * 4
    assert set(watch.worked) == {"vae", "transformer", *watch.texts}


def test_the_transformer_makes_room_between_roll_out_and_learning(watched: tuple[FlowEditor, Watch]) -> None:
    editor, watch = watched
    editor.add_lora(2, 2, seed=0)
    parameters = editor.trainable_parameters()
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    conditions = editor.encode([picture()], ["a"])
    rollout = roll_out(
        editor,
        conditions,
        torch.zeros(2, dtype=torch.long),
        [5, 6],
        steps=3,
        chance=Chance(range(1), "sde", 0.7),
    )
    watch.moves.clear()
    with editor.resting():
        assert watch.moves == [("transformer", AWAY)]
        with pytest.raises(AssertionError, match="works while it is away"):
            editor.velocity(rollout.final_BTC, 0.5, conditions.repeat(2))
    assert watch.moves == watch.there_and_back("transformer")[::-1]
    assert all(parameters[name] is parameter for name, parameter in editor.trainable_parameters().items())
    assert all(torch.equal(values[name], parameter) for name, parameter in parameters.items())
    log_ratio, _, _ = replay(editor, rollout, 0, torch.arange(2))
    torch.autograd.backward(log_ratio.sum())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parameters.values())


def test_parts_come_back_after_an_error(
    watched: tuple[FlowEditor, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, watch = watched

    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError), editor.resting():
        fail()
    assert watch.at["transformer"] == HOME
    monkeypatch.setattr(editor.pipeline, "encode_prompt", fail)
    with pytest.raises(RuntimeError):
        editor.encode([picture()], ["a"])
    assert [watch.at[name] for name in ("vae", *watch.texts)] == [AWAY] * (1 + len(watch.texts))


def test_without_offload_nothing_moves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = load_editor(folder, device=HOME)
    watch = Watch(editor, monkeypatch)
    watch.at = dict.fromkeys(watch.at, HOME)
    conditions = editor.encode([picture()], ["a"], guidance_scale=2.0)
    roll_out(editor, conditions, torch.arange(1), [5], steps=3)
    with editor.resting():
        editor.velocity(editor.noise(conditions, [5]), 0.5, conditions)
    assert watch.moves == []


def test_loading_leaves_resting_parts_where_they_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[str, str]] = []

    def record(self: FlowEditor, device: torch.device, *names: str) -> None:
        moves.extend((name, str(device)) for name in names)

    monkeypatch.setattr(FlowEditor, "_move", record)
    editor = load_editor(folder, device=HOME, offload=True)
    assert dict(moves) == {"transformer": HOME, "vae": AWAY, **dict.fromkeys(editor.text_encoders, AWAY)}
    assert editor.device == torch.device(HOME)
