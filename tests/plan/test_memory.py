"""The plan's memory against what torch measures: what autograd keeps of a block, and the peak of whole updates
of small players of the real classes by torch's own allocator, on a CPU.
"""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel, QwenImageTransformer2DModel
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn

from allocator import peak
from small_checkpoints import tiny_flux2_klein, tiny_qwen_image_edit
from small_vlms import tiny_qwen2_5_vl
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import Recipe
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.editors import load_editor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.qwen_image_edit import QwenImageEditEditor
from sparring.models.vlms.local import LocalVLM
from sparring.plan.make import make_plan
from sparring.plan.memory import Training, kept_by_token
from sparring.plan.phases import LIBRARIES, Setup
from sparring.plan.shapes import FAMILIES, Blocks, editor_shape, vlm_shape
from sparring.recipes import load_recipe

SIDE = 64


# ---- blocks


def kept(work: Callable[[], object], weights: nn.Module) -> int:
    """Bytes of all that autograd keeps, but for the weights: every storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in weights.parameters()}
    found, alive = dict[int, int](), list[Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(found.values())


ROWS, TOKENS, TEXT = 2, 400, 40
EDITORS: dict[str, Any] = {
    "flux2": (Flux2Transformer2DModel, Flux2KleinEditor.lora_targets),
    "qwen_image": (QwenImageTransformer2DModel, QwenImageEditEditor.lora_targets),
    "flux": (FluxTransformer2DModel, FluxKontextEditor.lora_targets),
}


def kept_by_editor(
    kind: str, counts: tuple[int, int], heads: int, dtype: torch.dtype, rank: int | None
) -> int:
    name = kind.removesuffix("_single")
    model_class, targets = EDITORS[name]
    options: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": counts[0],
        "attention_head_dim": 16,
        "num_attention_heads": heads,
        "joint_attention_dim": 48,
        "axes_dims_rope": (4, 4, 4, 4) if name == "flux2" else (4, 6, 6),
    }
    if name == "qwen_image":
        options["out_channels"] = 4
    else:
        options["num_single_layers"] = counts[1]
    if name == "flux":
        options |= {"pooled_projection_dim": 16}
    if name == "flux2":
        options |= {"timestep_guidance_channels": 16, "guidance_embeds": False}
    model = model_class(**options).to(dtype)
    if rank is not None:
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=rank, target_modules=targets), adapter_name="default")
        for parameter_name, parameter in model.named_parameters():
            if ".lora_" in parameter_name:
                parameter.data = parameter.data.float()
    inputs: dict[str, Any] = {
        "hidden_states": torch.zeros(ROWS, TOKENS, 16, dtype=dtype),
        "encoder_hidden_states": torch.zeros(ROWS, TEXT, 48, dtype=dtype),
        "timestep": torch.full((ROWS,), 0.5, dtype=dtype),
    }
    if name == "qwen_image":
        inputs |= {
            "img_shapes": [[(1, 20, 20)]] * ROWS,
            "encoder_hidden_states_mask": torch.ones(ROWS, TEXT, dtype=torch.long),
        }
    else:
        axes = 4 if name == "flux2" else 3
        shape = (ROWS,) if name == "flux2" else ()
        inputs |= {
            "img_ids": torch.zeros(*shape, TOKENS, axes),
            "txt_ids": torch.zeros(*shape, TEXT, axes),
        }
    if name == "flux":
        inputs["pooled_projections"] = torch.zeros(ROWS, 16, dtype=dtype)
    return kept(lambda: model(**inputs), model)


@pytest.mark.parametrize("rank", [None, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["flux2", "flux2_single", "qwen_image", "flux", "flux_single"])
def test_what_autograd_keeps_of_an_editors_block(kind: str, dtype: torch.dtype, rank: int | None) -> None:
    counts = [(1, 1), (1, 4)] if kind.endswith("single") else [(1, 1), (4, 1)]
    heads = 6
    one, four = (kept_by_editor(kind, own, heads, dtype, rank) for own in counts)
    ratio = 3 if kind.startswith("flux2") else 4
    width = 16 * heads
    blocks = Blocks(kind, 1, *(width,) * 3, ratio * width, heads)  # type: ignore[arg-type]
    how = Training(dtype.itemsize, rank, False)
    measured = (four - one) / 3 / (ROWS * (TOKENS + TEXT))
    assert kept_by_token(blocks, how) == pytest.approx(measured, rel=0.03)


# ---- whole updates


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    for i in range(2)
]
QUESTIONS = [
    VisualQuestion(f"q{i}", Path("none.png"), f"Where is thing {i}?", ("left", "right"), "A")
    for i in range(2)
]


def bytes_of(tensors: list[Tensor]) -> int:
    """Of tensors, every storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def moments(trainer: Any) -> list[Tensor]:
    own = trainer.optimizer
    kept = [value for state in own.adamw.state.values() for value in state.values()]
    return [*kept, *own.copies.values()]


def planned(recipe: Recipe, phase: str) -> float:
    """Bytes of a phase without the libraries, of players that ask nobody beside themselves."""
    plan = make_plan(recipe, Setup(SIDE * SIDE, dense_mask=True))
    (found,) = [own for own in plan.phases if own.name == phase]
    assert not found.unknown
    return found.load.total - LIBRARIES.total


def large_vlm(folder: Path) -> Path:
    text = {
        "hidden_size": 128,
        "intermediate_size": 448,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 4, 4], "rope_theta": 10000.0},
    }
    return tiny_qwen2_5_vl(folder, scale=1.0, text=text, tower={"depth": 4, "out_hidden_size": 128})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        slow({"lora": {"rank": 8, "alpha": 8}}),
        slow({"lora": {"rank": 8, "alpha": 8}, "train_vision": False}),
        slow({"gradient_checkpointing": True}),
        slow({"dtype": "bfloat16"}),
        slow({"dtype": "bfloat16", "lora": {"rank": 8, "alpha": 8}, "gradient_checkpointing": True}),
        slow({"interpolation": 0.5, "train_vision": False}),
    ],
    ids=str,
)
def test_an_update_of_a_defender(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rollout, "answer_reward", lambda text, *_, **__: {"accuracy": zlib.crc32(text.encode()) % 5 / 4}
    )
    folder = large_vlm(tmp_path / "vlm")
    arena = load_recipe("arena")
    defender = arena.defender.model_copy(update={"model": str(folder)})
    few = {
        "prompts_per_step": 4,
        "group_size": 4,
        "micro_batch": 8,
        "max_new_tokens": 96,
        "max_refills": 1,
        "keep_reward_above": -1.0,
        "keep_reward_below": 2.0,
        "prompt": "{question} {options} " + "x" * 80,
        "lora": None,
    }
    settings = type(defender).model_validate(defender.model_dump() | few | changes)
    recipe = arena.model_copy(
        update={
            "defender": settings,
            "judge": arena.judge.model_copy(update={"model": None}),
        }
    )
    vlm = LocalVLM.load(folder, dtype=settings.dtype)
    vlm.end_tokens = (10**9,)  # no reply ends early
    trainer = DefenderTrainer(vlm, settings, seed=0)
    items = [(PICTURES[i % 2], QUESTIONS[i % 2]) for i in range(4)]
    trainer.update(lambda _: items, 0)
    gc.collect()
    resident = bytes_of([*vlm.model.parameters(), *moments(trainer), *trainer.start.values()])
    measured = resident + peak(lambda: trainer.update(lambda _: items, 1))
    assert planned(recipe, "Defender trains") / measured == pytest.approx(1, abs=0.15)


def large_editor(family: str, folder: Path) -> Path:
    if family == "flux2":
        tiny_flux2_klein(folder, text_tokens=24)
        transformer: Any = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=8,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
    else:
        tiny_qwen_image_edit(folder)
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=4,
            attention_head_dim=16,
            num_attention_heads=8,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        )
    transformer.save_pretrained(folder / "transformer")
    return folder


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("flux2", {}),
        slow("flux2", {"lora": None}),
        slow("flux2", {"algorithm": "diffusion_nft", "gradient_checkpointing": True}),
        slow("flux2", {"dtype": "bfloat16", "guidance_scale": 2.0}),
        slow("qwen", {}),
        slow("qwen", {"guidance_scale": 2.0, "gradient_checkpointing": True}),
    ],
    ids=str,
)
def test_an_update_of_an_attacker(
    family: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = large_editor(family, tmp_path / "editor")
    arena = load_recipe("arena")
    few = {
        "model": str(folder),
        "algorithm": {"type": "flow_grpo", "window": {"size": 2, "move": "fixed", "first": 0}},
        "questions_per_step": 2,
        "group_size": 4,
        "rollout_steps": 4,
        "micro_batch": 4,
        "past_share": 0.0,
        "keep_best": 0,
        "lora": {"rank": 4, "alpha": 8},
        "guidance_scale": 1.0,
        "steps": 3,
    }
    settings = type(arena.attacker).model_validate(arena.attacker.model_dump() | few | changes)
    fixed = arena.defender.model_copy(update={"model": "http://127.0.0.1:1/v1#none"})
    recipe = arena.model_copy(
        update={
            "attacker": settings,
            "defender": fixed,
            "judge": arena.judge.model_copy(update={"model": None}),
        }
    )
    editor = load_editor(folder, dtype=settings.dtype)
    editor.checkpoint_gradients(settings.gradient_checkpointing)
    trainer = AttackerTrainer(editor, settings, seed=0)
    # The plan knows the length of a large editor's instructions; this one's tokenizer is another.
    own = FAMILIES[type(editor.transformer).__name__]
    said = settings.instruct("Where is thing 0?")
    monkeypatch.setattr(type(editor), "no_instruction", said)  # as long as what guidance leads away from
    text = editor.encode(PICTURES[:1], [said]).tensors["text"].shape[1]
    monkeypatch.setitem(FAMILIES, type(editor.transformer).__name__, (*own[:-1], text))

    def brightness(edits: list[list[Image.Image]]) -> Tensor:
        return torch.tensor([[float(np.asarray(edit).mean()) for edit in group] for group in edits])

    trainer.update(QUESTIONS, PICTURES, brightness, 0)
    gc.collect()
    parts = [getattr(editor.pipeline, name) for name in ("transformer", "text_encoder", "vae")]
    weights = [parameter for part in parts for parameter in part.parameters()]
    resident = bytes_of([*weights, *moments(trainer), *trainer.policies.old.values()])
    measured = resident + peak(lambda: trainer.update(QUESTIONS, PICTURES, brightness, 1))
    assert planned(recipe, "Attacker trains") / measured == pytest.approx(1, abs=0.15)


def test_shapes_are_read_from_configurations(tmp_path: Path) -> None:
    vlm = vlm_shape("x", large_vlm(tmp_path / "vlm"))
    assert vlm is not None
    assert (vlm.text.count, vlm.text.keys, vlm.vision.count, vlm.visual_tokens(SIDE * SIDE)) == (5, 64, 4, 16)
    editor = editor_shape("x", large_editor("flux2", tmp_path / "editor"))
    assert editor is not None
    assert [own.count for own in editor.blocks] == [2, 3]
    assert editor.tokens(SIDE * SIDE) == 64 + 64 + 24
