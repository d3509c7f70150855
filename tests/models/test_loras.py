"""LoRA files from anywhere: layers are found under the names that trainers give them, at their strength, or
the file is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from small_checkpoints import picture
from sparring.data.errors import ModelError
from sparring.models.editors import FlowEditor, check_editor, load_editor

FAMILY = "flux2_klein"
LAYERS = ("single_transformer_blocks.0.attn.to_out", "transformer_blocks.0.attn.to_q")


@pytest.fixture
def klein(folders: dict[str, Path]) -> FlowEditor:
    return load_editor(folders[FAMILY])


def velocity(editor: FlowEditor) -> Tensor:
    conditions = editor.encode([picture()], ["x"])
    return editor.velocity(editor.noise(conditions, [0]), 0.5, conditions).detach()


def saved(editor: FlowEditor, folder: Path) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of a LoRA whose alpha is its rank, as `save_lora` names them; and what the editor does with
    it.
    """
    editor.add_lora(4, 4, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in editor.trainable_parameters().values():
        parameter.data.normal_(0, 0.2, generator=generator)
    editor.save_lora(folder)
    bent = velocity(editor)
    editor.remove_lora()
    return load_file(folder / "pytorch_lora_weights.safetensors"), bent


Rename = Callable[[str], str]
NAMES: dict[str, Rename] = {
    "no prefix": lambda name: name.removeprefix("transformer."),
    "peft": lambda name: "base_model.model." + name.removeprefix("transformer."),
    "peft around the pipeline": lambda name: "base_model.model." + name,
    "comfy": lambda name: name.replace("transformer.", "diffusion_model.", 1),
    "peft with the adapter's name": lambda name: name.replace(".weight", ".default.weight"),
    "down and up": lambda name: name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
    "lora.down and lora.up": lambda name: name.replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_are_taken(kind: str, klein: FlowEditor, folders: dict[str, Path], tmp_path: Path) -> None:
    tensors, bent = saved(klein, tmp_path / "own")
    (tmp_path / "other").mkdir()
    save_file(
        {NAMES[kind](name): tensor for name, tensor in tensors.items()},
        tmp_path / "other" / "adapter_model.safetensors",
    )
    check_editor(folders[FAMILY], tmp_path / "other")
    klein.load_lora(tmp_path / "other", must_change=True)
    torch.testing.assert_close(velocity(klein), bent)
    # a file, in place of the one that is there
    klein.load_lora(tmp_path / "other" / "adapter_model.safetensors")
    torch.testing.assert_close(velocity(klein), bent)


def test_the_strength_is_that_of_alpha_beside_the_tensors_or_of_peft_s_configuration(
    klein: FlowEditor, tmp_path: Path
) -> None:
    tensors, bent = saved(klein, tmp_path / "own")
    halved = {name: tensor / 2 if "lora_B" in name else tensor for name, tensor in tensors.items()}
    doubled = {
        name.replace("lora_A.weight", "alpha"): torch.tensor(8.0) for name in tensors if "lora_A" in name
    }
    (tmp_path / "alpha").mkdir()
    save_file(halved | doubled, tmp_path / "alpha" / "lora.safetensors")
    klein.load_lora(tmp_path / "alpha")
    torch.testing.assert_close(velocity(klein), bent)
    for told in (
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 4.0, "use_rslora": True},
        {"r": 2, "lora_alpha": 1, "alpha_pattern": {".*": 4}},
    ):
        folder = tmp_path / f"peft{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file(
            {NAMES["peft"](name): tensor for name, tensor in halved.items()},
            folder / "adapter_model.safetensors",
        )
        (folder / "adapter_config.json").write_text(json.dumps(told))
        klein.load_lora(folder)
        torch.testing.assert_close(velocity(klein), bent)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 8}')
    with pytest.raises(ModelError, match=r"adapter_config\.json: no readable configuration"):
        klein.load_lora(folder)


def test_layers_of_different_ranks_keep_their_strength(klein: FlowEditor, tmp_path: Path) -> None:
    tensors, _ = saved(klein, tmp_path / "own")
    own = {name: tensor for name, tensor in tensors.items() if any(layer in name for layer in LAYERS)}
    for side, cut in (("A", lambda tensor: tensor[:2]), ("B", lambda tensor: tensor[:, :2])):
        name = f"transformer.{LAYERS[0]}.lora_{side}.weight"
        own[name] = cut(own[name]).contiguous()
    save_file(own, tmp_path / "lora.safetensors")
    klein.load_lora(tmp_path / "lora.safetensors")
    weights = dict(klein.transformer.named_modules())
    for layer in LAYERS:
        product = own[f"transformer.{layer}.lora_B.weight"] @ own[f"transformer.{layer}.lora_A.weight"]
        torch.testing.assert_close(weights[layer].get_delta_weight("default"), product)


def changed(
    name: str, change: Callable[[Tensor], Tensor]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: tensors | {name: change(tensors[name]).contiguous()}


A, B = (f"transformer.{LAYERS[0]}.lora_{side}.weight" for side in "AB")
REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "of a U-Net": (
        lambda t: {name.replace("transformer.", "unet.", 1): x for name, x in t.items()},
        r"tensor unet\.\S+ fits nothing.*U-Net",
    ),
    "of a text encoder too": (
        lambda t: t | {"text_encoder.x.lora_A.weight": torch.ones(2, 2)},
        r"tensor text_encoder\.x\.lora_A.*a text encoder",
    ),
    "of another transformer": (
        lambda t: {name.replace("attn", "attention"): x for name, x in t.items()},
        r"there is no such layer in its Flux2Transformer2DModel \(\d+ of \d+",
    ),
    "one layer too many": (
        lambda t: t | {A.replace("blocks.0", "blocks.99"): t[A].clone()},
        r"single_transformer_blocks\.99\S+ fits nothing",
    ),
    "twice as wide": (
        changed(A, lambda x: torch.cat([x, x], 1)),
        rf"tensor {A} is \[4, \d+\], and this editor's layer takes \[4, \d+\]",
    ),
    "half as high": (changed(B, lambda x: x[: len(x) // 2]), rf"tensor {B} is \[\d+, 4\]"),
    "one dimension": (changed(B, lambda x: x.flatten()), rf"tensor {B} is \[\d+\]"),
    "half a pair": (lambda t: {name: x for name, x in t.items() if name != B}, "has no tensor lora_B"),
    "not finite": (
        changed(B, lambda x: x.where(x > 0, torch.nan)),
        rf"tensor {B} holds numbers that are not finite",
    ),
    "second factors alone": (
        lambda t: {name: x for name, x in t.items() if "lora_B" in name},
        "has no tensor lora_A",
    ),
    "no dimension": (changed(A, lambda x: torch.tensor(1.0)), rf"tensor {A} is \[\], which is no factor"),
    "quantised": (changed(A, lambda x: (x * 100).to(torch.int8)), rf"tensor {A} holds whole numbers"),
    "one layer under two names": (
        lambda t: t | {A.removeprefix("transformer."): t[A] * 2, B.removeprefix("transformer."): t[B] * 2},
        "are for the same layer",
    ),
    "a scale that is no number": (
        lambda t: t | {A.replace("lora_A.weight", "alpha"): torch.tensor(torch.nan)},
        r"alpha holds numbers that are not finite",
    ),
    "a scale for each row": (
        lambda t: t | {A.replace("lora_A.weight", "alpha"): torch.ones(4)},
        r"alpha is \[4\], which is no scale",
    ),
    "a scale without factors": (
        lambda t: (
            {name: x for name, x in t.items() if name not in (A, B)}
            | {A.replace("lora_A.weight", "alpha"): torch.ones(())}
        ),
        "scale of a layer of which the file holds no factors",
    ),
    "a DoRA": (
        lambda t: t | {A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(4)},
        "is of a DoRA",
    ),
    "a LoHa": (lambda t: {A.replace("lora_A.weight", "hada_w1_a"): t[A]}, "hada_w1_a"),
    "nothing": (lambda t: {}, "it holds no tensors"),
    "zero": (
        lambda t: {name: torch.zeros_like(x) if "lora_B" in name else x for name, x in t.items()},
        "changes no weight",
    ),
    "zero in every layer by one factor": (
        lambda t: {
            name: torch.zeros_like(x) if ("lora_A" in name) == ("to_out" in name) else x
            for name, x in t.items()
        },
        "changes no weight",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_are_refused_by_name(
    kind: str, klein: FlowEditor, folders: dict[str, Path], tmp_path: Path
) -> None:
    change, words = REFUSED[kind]
    tensors, _ = saved(klein, tmp_path / "own")
    bare = velocity(klein)
    save_file(change(tensors), tmp_path / "lora.safetensors")
    for load in (
        lambda: klein.load_lora(tmp_path / "lora.safetensors", must_change=True),
        lambda: check_editor(folders[FAMILY], tmp_path / "lora.safetensors"),
    ):
        with pytest.raises(ModelError, match=words) as refused:
            load()
        assert "lora.safetensors" in str(refused.value)
    torch.testing.assert_close(velocity(klein), bare)


def test_folders_without_a_lora(klein: FlowEditor, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no \.safetensors"):
        klein.load_lora(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"no such file")
    with pytest.raises(ModelError, match="no readable safetensors"):
        klein.load_lora(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"a\.safetensors, b\.safetensors; name one"):
        klein.load_lora(tmp_path)


def test_a_lora_that_was_never_trained_comes_back_for_training_alone(
    klein: FlowEditor, tmp_path: Path
) -> None:
    klein.add_lora(2, 4, seed=0)
    klein.save_lora(tmp_path)
    klein.load_lora(tmp_path)
    assert klein.has_lora
    with pytest.raises(ModelError, match="changes no weight"):
        klein.load_lora(tmp_path, must_change=True)
