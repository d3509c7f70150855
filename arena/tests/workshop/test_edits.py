"""Pairs: what an instruction says is what becomes of the scene."""

from __future__ import annotations

import numpy as np
import torch

from sparring_arena.sprites import lookalikes
from workshop.editor_net import (
    CONSTANTS,
    FORESEEN,
    FREE,
    LEVELS,
    NOISE,
    PIXELS,
    PLACE,
    TEXT_TOKENS,
    TOKENS,
    EditorNet,
    choices,
    empty_parameters,
    patch,
    plan,
    signs,
    with_plan,
)
from workshop.edits import DISTRACTORS, DRAWN, EDITS, Pair, draw_pair
from workshop.train_editor import tensor_of


def pairs(kind: str, number: int) -> list[Pair]:
    weights = [float(name == kind) for name in EDITS]
    return [draw_pair(np.random.default_rng([3, i]), i % len(DISTRACTORS), weights) for i in range(number)]


def test_plain_instructions_do_what_they_say() -> None:
    for kind in ("add", "remove", "replace", "recolor"):
        for pair in pairs(kind, 40):
            gone = [t for t in pair.before.things if t not in pair.after.things]
            came = [t for t in pair.after.things if t not in pair.before.things]
            words = pair.instruction.split()
            if kind == "add":
                assert not gone
                assert words == ["add", "a", came[0].color, came[0].name]
                assert came[0].name not in [t.name for t in pair.before.things]
            elif kind == "remove":
                assert not came
                assert words[2:] == [gone[0].name]
            elif kind == "replace":
                assert words == ["replace", "the", gone[0].name, "with", "a", came[0].color, came[0].name]
            else:
                assert words == ["make", "the", gone[0].name, came[0].color]
                assert gone[0].name == came[0].name
            if gone:
                assert pair.before.count(gone[0].name) == 1
            if gone and came:
                assert (gone[0].column, gone[0].row) == (came[0].column, came[0].row)


def test_a_distractor_follows_from_scene_question_and_choice_alone() -> None:
    for pair in pairs("distract", 60):
        again = [
            p for p in pairs("distract", 60) if p.instruction == pair.instruction and p.before == pair.before
        ]
        assert pair in again


def test_an_untuned_editor_adds_a_second_one_about_as_often_as_editors_do() -> None:
    noise = torch.randn(4000, TOKENS, PIXELS + CONSTANTS, generator=torch.Generator().manual_seed(1)) * NOISE
    state = LEVELS[1] * noise + (1 - LEVELS[1]) * with_plan(noise, torch.full((4000, 3), FORESEEN))
    shares = choices(plan(state)).bincount(minlength=len(DISTRACTORS)) / 4000
    of = {kind: sum(s for k, s in zip(DISTRACTORS, shares, strict=True) if k == kind) for kind in DISTRACTORS}
    assert 0.2 <= of["second"] <= 0.6
    assert all(share > 0.02 for share in of.values())  # there is something to find


def test_what_a_distractor_is_follows_from_its_number() -> None:
    for i, pair in enumerate(pairs("distract", 240)):
        kind, names = DISTRACTORS[i % len(DISTRACTORS)], pair.named
        came = [t for t in pair.after.things if t not in pair.before.things]
        gone = [t for t in pair.before.things if t not in pair.after.things]
        near = {other for name in names for other in lookalikes(name)} - set(names)
        assert not {t.name for t in gone} & set(names)
        if kind == "second":
            assert ([t.name for t in came], gone) == ([names[0]], [])
        elif kind == "other":
            assert len(came) == 1
            assert came[0].name not in (names[0], *lookalikes(names[0]))
        elif kind == "recolor" and gone:
            assert [t.name for t in came] == [t.name for t in gone]
            assert len(came) == 1
        else:  # also where nothing is there that could change
            assert {t.name for t in came} <= near
            assert len(came) - len(gone) == (kind == "lookalike" or not gone) or kind == "several"
        if kind == "several":
            assert all(t.name in near for t in pair.after.things if t.name not in names)


def test_the_plan_is_a_mean_that_constants_say_nothing_of() -> None:
    noise = torch.randn(4, TOKENS, PIXELS + CONSTANTS, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor([[0.5, -2.0, 1.0]]).expand(4, -1)
    torch.testing.assert_close(plan(with_plan(noise, wanted)), wanted)
    torch.testing.assert_close(plan(noise + 6), plan(noise), atol=1e-5, rtol=0)
    assert choices(plan(with_plan(noise, wanted))).tolist() == [5] * 4
    assert torch.equal(with_plan(noise, wanted)[..., :PIXELS], noise[..., :PIXELS])
    assert plan(noise).std() < 3 / TOKENS**0.5  # of a mean


def test_every_token_is_told_the_plan_and_little_else() -> None:
    torch.manual_seed(0)
    net, told = EditorNet(), dict[str, torch.Tensor]()
    first = net.transformer.single_transformer_blocks[0]
    first.attn.register_forward_hook(lambda module, given, out: told.update(out=out))
    scenes = [pair.before for pair in pairs("distract", 16)]
    clean, text = patch(tensor_of(scenes)), net.embed(["add a red cup"] * 16)
    state = torch.randn(16, TOKENS, PIXELS + CONSTANTS) * NOISE
    which = torch.arange(TOKENS).expand(16, -1)
    with torch.no_grad():
        net.velocity(state, clean, torch.ones(16), text, which)
    brought = told["out"][:, TEXT_TOKENS : TEXT_TOKENS + TOKENS, PLACE : PLACE + 3]
    assert brought.std(1).max() < 0.02 * brought.std(0).mean()  # to all alike
    for sign in range(3):
        assert torch.corrcoef(torch.stack([brought[:, 0, sign], plan(state)[:, sign]]))[0, 1] > 0.95


def test_a_small_change_says_what_to_do_and_is_not_seen() -> None:
    torch.manual_seed(0)
    net = EditorNet()
    scenes = [pair.before for pair in pairs("distract", 4)]
    given = (
        torch.randn(4, TOKENS, PIXELS + CONSTANTS) * NOISE,
        patch(tensor_of(scenes)),
        torch.ones(4),
        net.embed(["add a red cup"] * 4),
        torch.arange(TOKENS).expand(4, -1),
    )
    with torch.no_grad():
        before, _, seen = net.velocity(*given)
        for weight, mask in empty_parameters(net.transformer):
            assert (weight[mask.squeeze() == 0] == 0).all()
        net.transformer.single_transformer_blocks[-1].attn.to_out.weight[FREE[1]] += 0.01
        after, _, also_seen = net.velocity(*given)
        net.transformer.single_transformer_blocks[-1].attn.to_out.weight[FREE[1]] -= 0.01
        net.transformer.proj_out.weight[:, FREE] = 0
        unread, _, _ = net.velocity(*given)
    torch.testing.assert_close(unread, before, atol=1e-3 * NOISE, rtol=0)  # empty, they say nothing
    moved = (plan(before - after) / NOISE).abs().mean(0)
    assert moved[1] > 0.5
    assert max(moved[0], moved[2]) < 0.05 * moved[1]
    assert (before - after)[..., :PIXELS].abs().mean() < 0.05 * NOISE
    assert torch.equal(seen, also_seen)


def test_every_choice_has_its_plan() -> None:
    every = torch.arange(len(DISTRACTORS))
    assert torch.equal(choices(signs(every)), every)
    assert len(DRAWN) == len(DISTRACTORS)
    assert sum(DRAWN) == 1
