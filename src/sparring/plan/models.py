"""Which models a recipe names: where they are, and how large, without loading a weight."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from sparring.config import EditorLoraSettings, Recipe
from sparring.data.errors import ModelError
from sparring.forge.painters import is_plain
from sparring.models.vlms.address import is_endpoint
from sparring.plan.shapes import EditorShape, VlmShape, editor_shape, vlm_shape
from sparring.recipes.paths import packaged_models

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Where = Literal[
    "on this disk", "in the hub cache", "hub id, not on this disk", "behind an endpoint", "missing"
]

# Parameters of what the bundled recipes name, in units of 1e9 (counted from their configurations): for plans
# made where the models are not.
PUBLISHED: dict[str, dict[str, float]] = {
    "Qwen/Qwen-Image-Edit": {"transformer": 20.43, "text_encoder": 8.29, "vae": 0.13},
    "Qwen/Qwen-Image-Edit-2509": {"transformer": 20.43, "text_encoder": 8.29, "vae": 0.13},
    "black-forest-labs/FLUX.1-Kontext-dev": {
        "transformer": 11.90,
        "text_encoder": 0.12,
        "text_encoder_2": 4.76,
        "vae": 0.08,
    },
    "black-forest-labs/FLUX.2-klein-base-4B": {"transformer": 3.88, "text_encoder": 4.02, "vae": 0.08},
    "black-forest-labs/FLUX.2-klein-4B": {"transformer": 3.88, "text_encoder": 4.02, "vae": 0.08},
    "Qwen/Qwen2.5-VL-3B-Instruct": {"": 3.75},
    "Qwen/Qwen2.5-VL-7B-Instruct": {"": 8.29},
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {"": 8.03},
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": {"": 0.89},
}
# LoRA parameters per unit of rank of those editors: sum of inputs + outputs over their attention's linear
# layers.
PUBLISHED_LORA = {
    "Qwen/Qwen-Image-Edit": 60 * 8 * 2 * 3072,
    "Qwen/Qwen-Image-Edit-2509": 60 * 8 * 2 * 3072,
    "black-forest-labs/FLUX.1-Kontext-dev": 19 * 8 * 2 * 3072 + 38 * 3 * 2 * 3072,
    "black-forest-labs/FLUX.2-klein-base-4B": 5 * 8 * 2 * 3072 + 20 * (3072 + 27648 + 12288 + 3072),
    "black-forest-labs/FLUX.2-klein-4B": 5 * 8 * 2 * 3072 + 20 * (3072 + 27648 + 12288 + 3072),
}
PUBLISHED_DISTILLED = {"black-forest-labs/FLUX.2-klein-4B"}


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model named by a recipe. `parts` maps part ("" for a model of one part) to parameters; empty where
    nothing is known of the sizes.
    """

    player: str
    name: str
    where: Where
    dtype: str
    parts: dict[str, int] = field(default_factory=dict)
    published: bool = False
    lora: int | None = None
    shape: VlmShape | EditorShape | None = None

    @property
    def parameters(self) -> int | None:
        """All parts together; None where unknown."""
        return sum(self.parts.values()) if self.parts else None


def find_models(recipe: Recipe) -> list[ModelPlan]:
    """Attacker, Defender and judges: where they are and how large, from the headers of their files."""
    found = [
        find_model("attacker", recipe.attacker.model, recipe.attacker.dtype, recipe.attacker.lora),
        find_model("defender", recipe.defender.model, recipe.defender.dtype),
    ]
    if recipe.judge.model is not None:
        found.append(find_model("judge", recipe.judge.model, recipe.judge.dtype))
    consistency = recipe.defender.consistency
    if consistency.model is not None:
        found.append(find_model("defender.consistency", consistency.model, consistency.dtype))
    return found


def find_forging_models(recipe: Recipe) -> list[ModelPlan]:
    """The models that the bootstrap's forge needs beside the players, each once."""
    stages = recipe.bootstrap_stages()
    named: dict[str, ModelPlan] = {}
    if not recipe.bootstrap.questions:
        return []
    for part, painter in (
        ("extend.painter", stages.extend.painter),
        ("painter", stages.painter if stages.implant == "painter" else None),
    ):
        if painter is not None and not is_plain(painter.model):
            named.setdefault(painter.model, find_model(f"forge.{part}", painter.model, painter.dtype))
    if stages.propose.model is not None:
        named.setdefault(
            stages.propose.model, find_model("forge.propose", stages.propose.model, stages.propose.dtype)
        )
    return list(named.values())


def find_model(player: str, name: str, dtype: str, lora: EditorLoraSettings | None = None) -> ModelPlan:
    """Where a model is, and its parameters as its safetensors headers give them; nothing is loaded,
    downloaded or asked.

    A model behind an endpoint takes no memory here: its parameters count as 0.
    """
    if is_endpoint(name):
        return ModelPlan(player, name, "behind an endpoint", dtype, {"": 0})
    folder, where = Path(name), "on this disk"
    if not folder.is_dir():
        cached = _in_hub_cache(name)
        if cached is None:
            at_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "arena/"))
            sizes = {part: round(size * 1e9) for part, size in PUBLISHED.get(name, {}).items()}
            known = lora is not None and lora.targets is None and name in PUBLISHED_LORA
            adapted = PUBLISHED_LORA[name] * lora.rank if lora is not None and known else None
            return ModelPlan(
                player,
                name,
                "hub id, not on this disk" if at_hub else "missing",
                dtype,
                sizes,
                bool(sizes),
                adapted,
                shape_of(name, None),
            )
        folder, where = cached, "in the hub cache"
    parts = {}
    if (folder / "model_index.json").is_file():
        for part in sorted(path for path in folder.iterdir() if path.is_dir()):
            if size := sum(prod(shape) for shape in tensor_shapes(part).values()):
                parts[part.name] = size
    elif shapes := tensor_shapes(folder):
        parts[""] = sum(prod(shape) for shape in shapes.values())
    adapted = _lora_parameters(folder / "transformer", lora) if lora else None
    return ModelPlan(
        player,
        name,
        where,  # type: ignore[arg-type]
        dtype,
        parts,
        lora=adapted,
        shape=shape_of(name, folder),
    )


def shape_of(name: str, folder: Path | None) -> VlmShape | EditorShape | None:
    """The shape of an editor or of a vision-language model; None where it is not known."""
    return editor_shape(name, folder) or vlm_shape(name, folder)


def says_step_distilled(model: str) -> bool:
    """Whether an editor's own configuration says so, or its publisher; False also where it is neither here
    nor known, and only a run can tell.
    """
    folder = Path(model) if Path(model).is_dir() else _in_hub_cache(model)
    if folder is None:
        return model in PUBLISHED_DISTILLED
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and bool(index.get("is_distilled"))


def require_models(recipe: Recipe) -> None:
    """Raise ModelError if a model is named by a path that is not there, or lies there without weights. Hub
    ids are left to the hub.
    """
    bundled = ", ".join(
        f"{prefix}/{path.parent.name}"
        for prefix, folder in packaged_models().items()
        for path in sorted(folder.glob("*/*.json"))
        if path.name in ("config.json", "model_index.json")
    )
    for model in (*find_models(recipe), *find_forging_models(recipe)):
        if model.where == "missing":
            raise ModelError(
                f"{model.player}.model: {model.name} is no folder and no hub id (owner/name). Bundled are: "
                f"{bundled or 'none: they come with the package sparring-arena'}."
            )
        if model.where == "on this disk" and not model.parts:
            raise ModelError(
                f"{model.player}.model: {model.name} holds no safetensors weights. Name a diffusers or "
                f"transformers folder."
            )


def _in_hub_cache(name: str) -> Path | None:
    for file in ("model_index.json", "config.json"):
        try:
            found = try_to_load_from_cache(name, file)
        except HFValidationError:  # a path, not an id
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of one model, from the headers of its safetensors files (the shards of an
    index where there is one).
    """
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        weight_map = json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"]
        files = sorted({folder / str(name) for name in weight_map.values()})
    else:
        # Variants such as model.fp16.safetensors hold the same tensors again.
        files = [
            folder / name
            for name in ("model.safetensors", "diffusion_pytorch_model.safetensors")
            if (folder / name).is_file()
        ]
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        if path.is_file():
            shapes.update(_header(path))
    return shapes


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100_000_000:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: is no safetensors file ({error}). Copy or download it again.") from error


def _lora_parameters(transformer: Path, lora: EditorLoraSettings) -> int:
    wanted = re.compile(f"(?:{lora.targets})\\.weight" if lora.targets else r".*\.attn\..*\.weight")
    linear = (
        shape
        for name, shape in tensor_shapes(transformer).items()
        if wanted.fullmatch(name) and len(shape) == 2
    )
    return sum(lora.rank * (outputs + inputs) for outputs, inputs in linear)
