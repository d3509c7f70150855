"""What trains of an editor, and how it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from official_pipelines import official
from small_checkpoints import TINY_EDITORS, picture
from sparring.attackers.rollout import Chance, replay, roll_out
from sparring.data.errors import ModelError
from sparring.models.editors import FlowEditor, load_editor


def bend(editor: FlowEditor) -> None:
    """Weights for a fresh LoRA that make a difference."""
    generator = torch.Generator().manual_seed(1)
    for parameter in editor.trainable_parameters().values():
        parameter.data.normal_(0, 0.2, generator=generator)


def test_a_fresh_lora_changes_nothing_and_its_start_depends_on_its_seed_alone(editor: FlowEditor) -> None:
    conditions = editor.encode([picture()], ["x"])
    latents = editor.noise(conditions, [0])
    bare = editor.velocity(latents, 0.5, conditions).detach()
    assert len(editor.trainable_parameters()) == len(list(editor.transformer.parameters()))
    torch.manual_seed(1)
    editor.add_lora(4, 8, seed=3)
    assert torch.equal(bare, editor.velocity(latents, 0.5, conditions).detach())
    first = {name: p.detach().clone() for name, p in editor.trainable_parameters().items()}
    assert first
    assert all(".lora_" in name for name in first)
    with pytest.raises(ModelError, match="LoRA already"):
        editor.add_lora(4, 8, seed=3)
    editor.remove_lora()
    torch.manual_seed(2)
    editor.add_lora(4, 8, seed=3)
    assert all(torch.equal(first[name], p) for name, p in editor.trainable_parameters().items())
    editor.velocity(latents, 0.5, conditions).sum().backward()
    # What the last block makes of the text is not read any more: only there may a gradient be missing.
    assert all("to_add_out" in name for name, p in editor.trainable_parameters().items() if p.grad is None)
    assert all(p.grad is None for name, p in editor.transformer.named_parameters() if ".lora_" not in name)


def test_a_lora_adapts_the_layers_that_are_named_and_no_other(editor: FlowEditor) -> None:
    editor.add_lora(4, 8, seed=3, targets=r".*\.attn\.to_q")
    adapted = {name.split(".lora_")[0] for name in editor.trainable_parameters()}
    assert adapted
    assert all(name.endswith(".attn.to_q") for name in adapted)
    editor.remove_lora()
    with pytest.raises(ModelError, match=r'attacker.lora.targets: "nothing" fits no layer'):
        editor.add_lora(4, 8, seed=3, targets="nothing")


def plain_pipeline(editor: FlowEditor, folder: Path) -> Any:
    """diffusers' own class, loaded by its own call; a processor's video part would need torchvision, so ours
    is handed over.
    """
    parts = {"processor": editor.pipeline.processor} if hasattr(editor.pipeline, "processor") else {}
    return editor.pipeline_class.from_pretrained(folder, **parts)


def edit(editor: FlowEditor) -> Tensor:
    """One edit, [C, H, W] in [0, 1]."""
    conditions = editor.encode([picture()], ["add a cup"])
    return editor.decode(roll_out(editor, conditions, torch.arange(1), [3], steps=3).final_BTC, conditions)[0]


def test_a_lora_loads_in_plain_diffusers_and_gives_the_same_image(
    editor: FlowEditor, folder: Path, tmp_path: Path
) -> None:
    bare = edit(editor)
    editor.add_lora(4, 32, seed=0)  # alpha differs from rank: it must survive
    bend(editor)
    bent = edit(editor)
    assert (bent - bare).abs().max() > 1e-2
    editor.save_lora(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    plain = plain_pipeline(editor, folder)
    assert (official(editor, picture(), "add a cup", 3, pipeline=plain) - bare).abs().max() < 1e-4
    plain.load_lora_weights(str(tmp_path))
    assert (official(editor, picture(), "add a cup", 3, pipeline=plain) - bent).abs().max() < 1e-4


def test_a_lora_comes_back_as_it_was_saved(editor: FlowEditor, tmp_path: Path) -> None:
    conditions = editor.encode([picture()], ["x"])
    latents = editor.noise(conditions, [0])
    bare = editor.velocity(latents, 0.5, conditions).detach()
    editor.add_lora(4, 32, seed=0)
    bend(editor)
    bent = editor.velocity(latents, 0.5, conditions).detach()
    editor.save_lora(tmp_path)
    with editor.lora_disabled():
        torch.testing.assert_close(editor.velocity(latents, 0.5, conditions).detach(), bare)
    torch.testing.assert_close(editor.velocity(latents, 0.5, conditions).detach(), bent)
    assert all(parameter.requires_grad for parameter in editor._lora_parameters().values())
    editor.remove_lora()
    torch.testing.assert_close(editor.velocity(latents, 0.5, conditions).detach(), bare)
    for _ in range(2):  # the second time in place of the one that is there
        editor.load_lora(tmp_path)
        torch.testing.assert_close(editor.velocity(latents, 0.5, conditions).detach(), bent)
    assert all(
        ".lora_" in name and p.dtype == torch.float32 for name, p in editor.trainable_parameters().items()
    )
    editor.merge_lora()
    torch.testing.assert_close(editor.velocity(latents, 0.5, conditions).detach(), bent, atol=1e-5, rtol=1e-4)
    assert not editor.has_lora


JOINT = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
SINGLE = {"flux2_klein": ("to_qkv_mlp_proj", "to_out"), "flux_kontext": ("to_q", "to_k", "to_v")}


@pytest.mark.parametrize("family", TINY_EDITORS)
def test_lora_targets_are_named_as_diffusers_names_them(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    editor = load_editor(folders[family])
    editor.add_lora(2, 2, seed=0)
    editor.save_lora(tmp_path)
    joint = {
        f"transformer_blocks.{i}.attn.{name}"
        for i in range(len(editor.transformer.transformer_blocks))
        for name in JOINT
    }
    single = {f"single_transformer_blocks.0.attn.{name}" for name in SINGLE.get(family, ())}
    expected = {f"transformer.{name}.lora_{side}.weight" for name in joint | single for side in "AB"}
    with safe_open(next(tmp_path.iterdir()), framework="pt") as file:
        assert set(file.keys()) == expected


def test_a_saved_pipeline_loads_in_plain_diffusers_and_comes_back_alike(
    editor: FlowEditor, tmp_path: Path
) -> None:
    bare = edit(editor)
    editor.add_lora(4, 32, seed=0)
    bend(editor)
    with pytest.raises(ModelError, match="merge_lora"):
        editor.save_pipeline(tmp_path)
    editor.merge_lora()
    trained = edit(editor)
    assert (trained - bare).abs().max() > 1e-2
    editor.save_pipeline(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert all(
        entry[0] in ("diffusers", "transformers", None) for entry in index.values() if isinstance(entry, list)
    )
    assert not list(tmp_path.rglob("*.bin"))
    plain = plain_pipeline(editor, tmp_path)
    assert (official(editor, picture(), "add a cup", 3, pipeline=plain) - trained).abs().max() < 1e-4
    again = load_editor(tmp_path)
    assert type(again) is type(editor)
    assert torch.equal(edit(again), trained)


@pytest.mark.parametrize("lora", [True, False])
def test_gradients_with_checkpointing_are_those_without(editor: FlowEditor, lora: bool) -> None:
    if lora:
        editor.add_lora(2, 8, seed=0)
        bend(editor)
    conditions = editor.encode(
        [picture(seed=seed) for seed in range(2)], ["a", "put a cup there"], guidance_scale=2.0
    )
    latents = editor.noise(conditions, [0, 1])
    blocks = [
        block
        for name, block in editor.transformer.named_modules()
        if name.count(".") == 1 and "transformer_blocks." in name
    ]
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for block in blocks:
        block.register_forward_pre_hook(count)
    gradients, counts = [], []
    for on in (False, True):
        calls = 0
        editor.checkpoint_gradients(on)
        editor.velocity(latents, torch.tensor([0.3, 0.8]), conditions).square().sum().backward()
        gradients.append(
            {name: p.grad for name, p in editor.trainable_parameters().items() if p.grad is not None}
        )
        counts.append(calls)
        editor.transformer.zero_grad(set_to_none=True)
    assert counts == [2 * len(blocks), 4 * len(blocks)]  # the second forward pass is what checkpointing costs
    assert gradients[0].keys() == gradients[1].keys()
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-5)


def test_a_float32_lora_trains_on_frozen_bfloat16_weights(folder: Path, tmp_path: Path) -> None:
    editor = load_editor(folder, dtype="bfloat16")
    editor.checkpoint_gradients(True)
    editor.add_lora(2, 2, seed=0)
    bend(editor)
    assert {p.dtype for p in editor.trainable_parameters().values()} == {torch.float32}
    frozen = {p.dtype for name, p in editor.transformer.named_parameters() if ".lora_" not in name}
    assert frozen == {editor.pipeline.vae.dtype} == {torch.bfloat16}
    conditions = editor.encode([picture()], ["x"])
    rollout = roll_out(
        editor,
        conditions,
        torch.zeros(2, dtype=torch.long),
        [0, 1],
        steps=3,
        chance=Chance(range(2), "sde", 0.7),
    )
    assert {
        tensor.dtype
        for tensor in (rollout.final_BTC, *rollout.states, editor.decode(rollout.final_BTC[:1], conditions))
    } == {torch.float32}
    for place in range(2):
        log_ratio, _, _ = replay(editor, rollout, place, torch.arange(2))
        torch.testing.assert_close(torch.exp(log_ratio), torch.ones(2), atol=1e-4, rtol=0)
        torch.autograd.backward(log_ratio.sum())
    gradients = [p.grad for p in editor.trainable_parameters().values() if p.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    before = {name: p.detach().clone() for name, p in editor.trainable_parameters().items()}
    editor.save_lora(tmp_path)
    editor.load_lora(tmp_path)
    # no bit of them lost
    assert all(torch.equal(before[name], p) for name, p in editor.trainable_parameters().items())
