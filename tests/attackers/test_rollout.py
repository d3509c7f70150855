"""Roll-outs: order, independence of rows, rounding, and what a stochastic one records."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from small_checkpoints import tiny_flux2_klein
from sparring.attackers.rollout import (
    Chance,
    by_size,
    deterministic_edits,
    replay,
    roll_out,
    sample_seed,
    to_pictures,
    velocities,
)
from sparring.models.editors import FlowEditor, load_editor
from sparring.rl import flow


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> FlowEditor:
    torch.set_num_threads(1)
    return load_editor(tiny_flux2_klein(tmp_path_factory.mktemp("flux"), text_tokens=24))


def picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def furthest(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


def test_edits_come_in_order_and_depend_on_their_own_row_alone(editor: FlowEditor) -> None:
    images = [picture(64, 64, 0), picture(72, 56, 1), picture(64, 64, 2), picture(64, 64, 3)]
    texts, seeds = ["a", "b", "c", "d"], [5, 6, 7, 8]
    together = deterministic_edits(editor, images, texts, seeds, steps=2, batch=2)
    assert [edit.size for edit in together] == [image.size for image in images]
    for place in range(4):
        (alone,) = deterministic_edits(editor, [images[place]], [texts[place]], [seeds[place]], steps=2)
        assert furthest(alone, together[place]) <= 1
    assert furthest(together[0], together[2]) > 1


def test_edits_are_those_of_the_official_pipeline(editor: FlowEditor) -> None:
    image = picture(64, 64, 0)
    (ours,) = deterministic_edits(editor, [image], ["add a cup"], [3], steps=3)
    theirs = editor.pipeline(
        image=image,
        prompt="add a cup",
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        text_encoder_out_layers=editor.text_layers,  # type: ignore[attr-defined]
        max_sequence_length=editor.text_length,  # type: ignore[attr-defined]
    ).images[0]
    assert furthest(ours, theirs) <= 1


@pytest.mark.parametrize(
    "chance", [Chance(), Chance(range(1, 3), "sde", 0.7), Chance(range(1, 3), "sde", 0.7, shared_start=True)]
)
def test_how_often_the_editor_is_asked_is_known_beforehand(
    editor: FlowEditor, chance: Chance, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = editor.encode([picture(64, 64, 0), picture(64, 64, 1), picture(64, 64, 2)], ["a", "b", "c"])
    asked: list[int] = []
    velocity = editor.velocity

    def counted(x: torch.Tensor, *arguments: object) -> torch.Tensor:
        asked.append(len(x))
        return velocity(x, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(editor, "velocity", counted)
    rows = torch.arange(3).repeat_interleave(3)
    roll_out(editor, conditions, rows, list(range(9)), steps=5, chance=chance, batch=2)
    assert len(asked) == velocities(9, 3, 5, chance, 2)


@pytest.mark.parametrize("sampler", ["sde", "constant", "cps"])
def test_a_stochastic_roll_out_records_what_replay_needs(editor: FlowEditor, sampler: str) -> None:
    conditions = editor.encode([picture(64, 64, 0), picture(64, 64, 1)], ["a", "b"])
    rows, seeds = torch.tensor([0, 0, 1, 1]), [1, 2, 3, 4]
    chance = Chance(range(1, 3), sampler, 0.7)  # type: ignore[arg-type]
    made = roll_out(editor, conditions, rows, seeds, steps=5, chance=chance, batch=3)
    assert len(made.states) == 3
    assert made.old_logp_WB.shape == (2, 4)
    assert len(made.edits) == 4
    assert all(state.dtype == torch.float32 for state in [*made.states, made.old_logp_WB])
    for place in range(2):
        log_ratio, mean, std = replay(editor, made, place, torch.tensor([3, 0]))
        fresh = (made.states[place + 1][[3, 0]] - mean) / std
        assert fresh.std().item() == pytest.approx(1, abs=0.08)
        start = editor.noise(conditions, [seeds[3], seeds[0]])
        # every row draws its own noise, and not its starting noise again
        assert (fresh[0] - fresh[1]).abs().max() > 0.5
        assert (fresh.flatten(1).sort().values - start.flatten(1).sort().values).abs().max() > 0.1
        assert log_ratio.requires_grad
        torch.testing.assert_close(torch.exp(log_ratio), torch.ones(2), atol=1e-4, rtol=0)
    again = roll_out(editor, conditions, rows[1:2], seeds[1:2], steps=5, chance=chance)
    torch.testing.assert_close(again.final_BTC[0], made.final_BTC[1], atol=1e-4, rtol=1e-4)
    ode = roll_out(editor, conditions, rows, seeds, steps=5)
    torch.testing.assert_close(
        made.states[0][0],
        roll_out(editor, conditions, rows, seeds, steps=5, chance=Chance(range(1, 2), "sde", 0.5)).states[0][
            0
        ],
    )
    assert ode.states == []
    assert (ode.final_BTC - made.final_BTC).abs().max() > 1e-2


def test_a_shared_start_is_one_noise_and_one_path_up_to_the_window(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = editor.encode([picture(64, 64, 0), picture(64, 64, 1)], ["a", "b"])
    rows, seeds, calls = torch.tensor([0, 0, 0, 1, 1, 1]), list(range(6)), []
    original = editor.velocity

    def counting(latents: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(len(latents))
        return original(latents, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(editor, "velocity", counting)
    chance = Chance(range(2, 3), "cps", 0.7, shared_start=True)
    made = roll_out(editor, conditions, rows, seeds, steps=4, chance=chance, batch=4)
    # two steps and the window's velocity of one row a question, then the last step of all rows
    assert calls == [2, 2, 2, 4, 2]
    before, after = made.states
    for group in (slice(0, 3), slice(3, 6)):
        assert (before[group] == before[group][:1]).all()
        assert (after[group][0] - after[group][1]).abs().max() > 0.1
    assert (before[0] - before[3]).abs().max() > 0.1
    calls.clear()
    log_ratio, mean, _ = replay(editor, made, 0, torch.tensor([5, 0, 4, 1]))
    assert calls == [2]
    assert log_ratio.abs().max() < 1e-5
    torch.testing.assert_close(mean[[0, 1]], mean[[2, 3]])
    alone = roll_out(
        editor, conditions, torch.tensor([0, 1]), [0, 3], steps=4, chance=Chance(range(2, 3), "cps", 0.7)
    )
    torch.testing.assert_close(before[[0, 3]], alone.states[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after[[0, 3]], alone.states[1], atol=1e-5, rtol=1e-5)


def test_states_kept_in_bfloat16_are_the_ones_that_the_roll_out_went_on_from(editor: FlowEditor) -> None:
    conditions = editor.encode([picture(64, 64, 0)], ["a"])
    rows, seeds = torch.tensor([0, 0]), [1, 2]
    chance = Chance(range(1, 3), "sde", 0.7, state_dtype=torch.bfloat16)
    made = roll_out(editor, conditions, rows, seeds, steps=3 + 1, chance=chance)
    assert {state.dtype for state in made.states} == {torch.bfloat16}
    for place in range(2):
        log_ratio, _, _ = replay(editor, made, place, torch.tensor([0, 1]))
        assert log_ratio.abs().max() < 1e-5
    last = made.states[-1].float()
    with torch.no_grad():
        end = flow.ode_step(
            last,
            editor.velocity(last, made.sigmas[3], conditions.select(rows)),
            made.sigmas[3],
            made.sigmas[4],
        )
    torch.testing.assert_close(end, made.final_BTC)


def test_pictures_are_rounded_not_cut() -> None:
    values = torch.tensor([0.0, 0.6 / 255, 1.4 / 255, 1.0, 1.2, -0.1]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert np.asarray(to_pictures(values)[0])[0, :, 0].tolist() == [0, 1, 1, 255, 255, 0]


def test_places_are_sorted_by_size() -> None:
    assert by_size([picture(8, 8, 0), picture(9, 8, 0), picture(8, 8, 0)]) == [[0, 2], [1]]


def test_seeds_tell_run_step_question_and_sample_apart() -> None:
    seeds = {
        sample_seed(run, step, name, sample)
        for run in (0, 1)
        for step in (0, 1)
        for name in ("a", "b")
        for sample in (0, 1)
    }
    assert len(seeds) == 16
    assert sample_seed(0, 1, "a", 2) == sample_seed(0, 1, "a", 2)
