"""LoRA files of an editor's transformer: which tensor belongs to which layer, as far as it is known; what is
not known is refused by name.

Taken are layers under diffusers' names with any of the prefixes below and either naming of the two factors,
with `alpha` beside them, in the file's header or in peft's adapter_config.json; and, through diffusers' own
converters, what other trainers call them (kohya, ai-toolkit, XLabs, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sparring.data.errors import ModelError, UnchangedError

USUAL = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
PREFIXES = (
    "base_model.model.transformer.",
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "",
)
FACTOR = re.compile(
    r"(.+?)\.(?:(lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)(?:\.default)?\.weight|(alpha))"
)
SIDES = {"lora_A": "A", "lora_down": "A", "lora.down": "A", "lora_B": "B", "lora_up": "B", "lora.up": "B"}
ELSEWHERE = {
    "unet": "a U-Net",
    "lora_unet": "a U-Net",
    "text_encoder": "a text encoder",
    "lora_te": "a text encoder",
    "vae": "an autoencoder",
}
HEADER = "lora_adapter_metadata"  # diffusers' name for what it keeps of peft's configuration
CONVERSION_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError)

Named = tuple[str, Tensor]
Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""diffusers' reading of other trainers' names."""


@dataclass(frozen=True, slots=True)
class Lora:
    """tensors: "LAYER.lora_A.weight" [rank, inputs] and "LAYER.lora_B.weight" [outputs, rank]. config:
    peft's, where the file tells it; else the scale is 1.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None

    @property
    def changes(self) -> bool:
        """Some layer's two factors are not zero, and neither is their scale."""
        if self.config is not None and not self.config.get("lora_alpha", 1):
            return False
        firsts = (name for name in self.tensors if name.endswith(".lora_A.weight"))
        return any(
            bool(self.tensors[name].any()) and bool(self.tensors[name.replace("lora_A", "lora_B")].any())
            for name in firsts
        )

    def require_change(self) -> None:
        """Raises UnchangedError for an adapter that changes no weight."""
        if not self.changes:
            raise UnchangedError(
                f"{self.file}: this LoRA changes no weight of the editor: in every layer one of its factors "
                f"is zero. An Attacker that was never trained is written so. Name another round's, or the "
                f"editor alone."
            )


def read_lora(place: str | Path, transformer: nn.Module, convert: Convert) -> Lora:
    """A LoRA's file, or the folder that holds it, for this transformer, whose weights need not be there (the
    meta device).

    Raises ModelError, naming file and tensor, for what cannot be read, fits no layer, has another shape, or
    is not finite.
    """
    file = _file(Path(place))
    try:
        with safe_open(file, framework="pt") as stream:
            raw = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - it is no mapping
            header = dict(stream.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: no readable safetensors file ({error})") from error
    dora = next((name for name in raw if "dora_scale" in name or "magnitude_vector" in name), None)
    if dora is not None:
        raise ModelError(f"{file}: tensor {dora} is of a DoRA, which is not read here. Name a plain LoRA.")
    layers = {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    found, unknown = _sorted(file, raw, layers)
    if unknown:
        found, unknown = _sorted(file, _converted(file, raw, convert, unknown), layers)
    if unknown or not found:
        raise _stranger(file, unknown, raw, transformer)
    factors = {name for name, side in found if side != "alpha"}
    for name, tensor in found.values():
        _require_factor(file, name, tensor)
    if stray := next((spelled for (name, _), (spelled, _) in found.items() if name not in factors), None):
        raise ModelError(f"{file}: tensor {stray} is the scale of a layer of which the file holds no factors")
    config = (_header_config(file, header) or None) if HEADER in header else None
    scales = {} if config is not None else _scales(file, {name for name, _ in found})
    tensors = {}
    rank = max((len(tensor) for (_, side), (_, tensor) in found.items() if side == "A"), default=0)
    for name in dict.fromkeys(name for name, _ in found):
        first, second = _pair(file, name, found, layers[name])
        alpha = found.get((name, "alpha"))
        scale = scales.get(name, 1.0) if alpha is None else float(alpha[1]) / len(first)
        # One rank for all: padding with zeros changes no product, and spares patterns that versions of
        # diffusers read differently.
        wider = rank - len(first) if config is None else 0
        tensors[f"{name}.lora_A.weight"] = nn.functional.pad(first, (0, 0, 0, wider))
        tensors[f"{name}.lora_B.weight"] = nn.functional.pad(
            second if scale == 1 else second * scale, (0, wider)
        )
    return Lora(file, tensors, config)


def _file(place: Path) -> Path:
    if place.is_file():
        return place
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else []
    usual = [file for file in files if file.name in USUAL]
    if len(usual) == 1 or len(files) == 1:
        return (usual or files)[0]
    names = ", ".join(file.name for file in files[:5])
    raise ModelError(
        f"{place}: no LoRA there: "
        + (f"it holds {names}; name one of them" if files else "it holds no .safetensors file")
    )


def _sorted(
    file: Path, raw: Mapping[str, Tensor], layers: Mapping[str, Any]
) -> tuple[dict[tuple[str, str], Named], list[str]]:
    """((layer, "A", "B" or "alpha") -> its name and tensor, names that fit no layer). Raises ModelError where
    two tensors are for the same."""
    found, unknown = dict[tuple[str, str], Named](), list[str]()
    for name, tensor in raw.items():
        match = FACTOR.fullmatch(name)
        inner = (
            (match[1].removeprefix(prefix) for prefix in PREFIXES if match[1].startswith(prefix))
            if match
            else ()
        )
        layer = next((layer for layer in inner if layer in layers), None)
        if match is None or layer is None:
            unknown.append(name)
        else:
            place = layer, SIDES.get(match[2] or "", "alpha")
            if place in found:
                raise ModelError(
                    f"{file}: tensors {found[place][0]} and {name} are for the same layer; a file holds "
                    f"one LoRA"
                )
            found[place] = name, tensor
    return found, unknown


def _require_factor(file: Path, name: str, tensor: Tensor) -> None:
    """Raises ModelError for a tensor that can be no factor and no scale, or holds numbers that are not
    finite.
    """
    if not tensor.is_floating_point() and not name.endswith(".alpha"):
        raise ModelError(
            f"{file}: tensor {name} holds whole numbers ({tensor.dtype}): quantised LoRAs are not read here"
        )
    if tensor.numel() != 1 if name.endswith(".alpha") else tensor.ndim == 0:
        raise ModelError(
            f"{file}: tensor {name} is {list(tensor.shape)}, which is no "
            f"{'scale' if name.endswith('.alpha') else 'factor'}"
        )
    if not bool(torch.isfinite(tensor.float()).all()):
        raise ModelError(f"{file}: tensor {name} holds numbers that are not finite")


def _converted(
    file: Path, raw: Mapping[str, Tensor], convert: Convert, unknown: list[str]
) -> dict[str, Tensor]:
    if not any(_elsewhere(name) != "a U-Net" or name.startswith("lora_unet") for name in unknown):
        return dict(raw)
    try:
        return convert(dict(raw))
    except CONVERSION_ERRORS as error:
        raise ModelError(
            f"{file}: its tensors, such as {unknown[0]}, are for no layer of this editor ({error})"
        ) from error


def _elsewhere(name: str) -> str | None:
    return next((what for start, what in ELSEWHERE.items() if name.startswith(start)), None)


def _stranger(
    file: Path, unknown: list[str], raw: Mapping[str, Tensor], transformer: nn.Module
) -> ModelError:
    if not unknown:
        return ModelError(f"{file}: it holds no tensors")
    first = next((name for name in raw if name in unknown), unknown[0])
    what = _elsewhere(first)
    told = f"it is for {what}" if what else f"there is no such layer in its {type(transformer).__name__}"
    return ModelError(
        f"{file}: tensor {first} fits nothing of this editor that trains: {told} ({len(unknown)} of "
        f"{len(raw)} tensors). Name a LoRA of this editor's transformer."
    )


def _pair(file: Path, name: str, found: Mapping[tuple[str, str], Named], layer: Any) -> tuple[Tensor, Tensor]:
    """Both factors of a layer, in the shapes that it needs."""
    for side in "AB":
        if (name, side) not in found:
            raise ModelError(
                f"{file}: layer {name} has no tensor lora_{side}: a LoRA needs both of its factors"
            )
    (_, first), (_, second) = found[name, "A"], found[name, "B"]
    rank = len(first)
    for side, wanted in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
        spelled, tensor = found[name, side]
        if tuple(tensor.shape) != wanted:
            raise ModelError(
                f"{file}: tensor {spelled} is {list(tensor.shape)}, and this editor's layer takes "
                f"{list(wanted)}. The LoRA was made for another editor."
            )
    return first.float(), second.float()


def _header_config(file: Path, header: Mapping[str, str]) -> dict[str, Any]:
    try:
        told = json.loads(header[HEADER])
        return {
            name.removeprefix("transformer."): value
            for name, value in told.items()
            if name.startswith("transformer.")
        }
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{file}: its header's {HEADER} cannot be read ({error})") from error


def _scales(file: Path, names: set[str]) -> dict[str, float]:
    """What peft's configuration beside the file multiplies each layer's product by; nothing where there is
    no such file.
    """
    beside = file.with_name("adapter_config.json")
    if not beside.is_file():
        return {}
    try:
        told = json.loads(beside.read_bytes())  # with a byte-order mark or without
        ranks, alphas = told.get("rank_pattern") or {}, told.get("alpha_pattern") or {}
        found = {}
        for name in names:
            rank, alpha = _of_pattern(name, ranks, told["r"]), _of_pattern(name, alphas, told["lora_alpha"])
            found[name] = float(alpha) / (float(rank) ** 0.5 if told.get("use_rslora") else float(rank))
        return found
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, re.error) as error:
        raise ModelError(f"{beside}: no readable configuration of a LoRA ({error!r})") from error


def _of_pattern(name: str, patterns: Mapping[str, Any], usual: Any) -> Any:
    """The value of the first pattern that ends a layer's name, as peft matches them."""
    return next(
        (value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", name)), usual
    )
