"""The shapes of players that decide what a forward pass keeps and costs, from their configuration files, or
as published: nothing is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Kind = Literal["text", "vision", "flux2", "flux2_single", "qwen_image", "flux", "flux_single"]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Transformer blocks that are alike: their width, the widths of queries, of keys and of values (each as
    many), the inner width of the feed-forward part, and whether that is gated (three matrices, not two).
    """

    kind: Kind
    count: int
    width: int
    query: int
    keys: int
    inner: int
    heads: int
    gated: bool = True

    @property
    def weights(self) -> int:
        """Weights of one block that a token meets: of the two streams of a double block its own."""
        feed_forward = (3 if self.gated else 2) * self.width * self.inner
        return 2 * self.width * (self.query + self.keys) + feed_forward


@dataclass(frozen=True, slots=True)
class VlmShape:
    """A vision-language model. side: pixels of a visual token; patches: of the tower, for each of these;
    tokens: of a picture, where it has a fixed number; largest: pixels of a picture, at most.
    """

    text: Blocks
    vision: Blocks
    vocabulary: int
    side: int = 28
    patches: int = 4
    tokens: int | None = None
    largest: int | None = None

    def visual_tokens(self, pixels: int) -> int:
        """Of a picture of so many pixels."""
        return self.tokens or max(1, math.ceil(min(pixels, self.largest or pixels) / self.side**2))


@dataclass(frozen=True, slots=True)
class EditorShape:
    """An editor's transformer. side: pixels of a packed latent token; text: tokens of an instruction (with
    the picture where the text encoder sees it); channels: of a token.
    """

    blocks: tuple[Blocks, ...]
    side: int
    text: int
    channels: int

    def picture_tokens(self, pixels: int) -> int:
        """Of a picture of so many pixels."""
        return max(1, math.ceil(pixels / self.side**2))

    def tokens(self, pixels: int) -> int:
        """Of an edit: the edited picture, its original, the instruction."""
        return 2 * self.picture_tokens(pixels) + self.text


def _llm(count: int, width: int, keys: int, inner: int, heads: int) -> Blocks:
    return Blocks("text", count, width, width, keys, inner, heads)


QWEN_VISION = Blocks("vision", 32, 1280, 1280, 1280, 3420, 16)
SIGLIP = Blocks("vision", 27, 1152, 1152, 1152, 4304, 16, gated=False)


def _tiled(across: int) -> int:
    """Tokens that LLaVA-OneVision's processor makes of a picture of 1024 x 1024: 3 x 3 tiles of
    `across` x `across`, one token at the end of each line, and the picture as a whole.
    """
    return 10 * across**2 + 3 * across


ONEVISION = {"tokens": _tiled(384 // 14), "patches": 1}
QWEN_IMAGE = Blocks("qwen_image", 60, 3072, 3072, 3072, 12288, 24, gated=False)
FLUX2_KLEIN = EditorShape(
    (
        Blocks("flux2", 5, 3072, 3072, 3072, 9216, 24),
        Blocks("flux2_single", 20, 3072, 3072, 3072, 9216, 24),
    ),
    16,
    512,
    128,
)
PUBLISHED_VLMS: dict[str, VlmShape] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": VlmShape(_llm(36, 2048, 256, 11008, 16), QWEN_VISION, 151936),
    "Qwen/Qwen2.5-VL-7B-Instruct": VlmShape(_llm(28, 3584, 512, 18944, 28), QWEN_VISION, 152064),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": VlmShape(
        _llm(28, 3584, 512, 18944, 28), SIGLIP, 152000, **ONEVISION
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": VlmShape(
        _llm(24, 896, 128, 4864, 14), SIGLIP, 152000, **ONEVISION
    ),
}
PUBLISHED_EDITORS: dict[str, EditorShape] = {
    "Qwen/Qwen-Image-Edit": EditorShape((QWEN_IMAGE,), 16, 1400, 64),
    "Qwen/Qwen-Image-Edit-2509": EditorShape((QWEN_IMAGE,), 16, 300, 64),
    "black-forest-labs/FLUX.1-Kontext-dev": EditorShape(
        (
            Blocks("flux", 19, 3072, 3072, 3072, 12288, 24, gated=False),
            Blocks("flux_single", 38, 3072, 3072, 3072, 12288, 24, gated=False),
        ),
        16,
        512,
        64,
    ),
    "black-forest-labs/FLUX.2-klein-base-4B": FLUX2_KLEIN,
    "black-forest-labs/FLUX.2-klein-4B": FLUX2_KLEIN,
}


def vlm_shape(name: str, folder: Path | None) -> VlmShape | None:
    """Of a model by its folder, or by the name under which it is published; None where it is not known."""
    if folder is None:
        return PUBLISHED_VLMS.get(name)
    config = _read(folder / "config.json")
    text, vision = config.get("text_config", config), config.get("vision_config", {})
    if not vision or "num_hidden_layers" not in text:
        return None
    heads = int(text["num_attention_heads"])
    head = int(text.get("head_dim") or text["hidden_size"] // heads)
    width = int(vision.get("embed_dim", vision["hidden_size"]))
    inner = vision.get("intermediate_size") or width * float(vision.get("mlp_ratio", 4))
    tower = Blocks(
        "vision",
        int(vision.get("depth", vision.get("num_hidden_layers", 1))),
        *(width,) * 3,
        int(inner),
        int(vision.get("num_heads", vision.get("num_attention_heads", 1))),
        gated=config.get("model_type") == "qwen2_5_vl",
    )
    shape = VlmShape(
        Blocks(
            "text",
            int(text["num_hidden_layers"]),
            int(text["hidden_size"]),
            heads * head,
            int(text["num_key_value_heads"]) * head,
            int(text["intermediate_size"]),
            heads,
        ),
        tower,
        int(text["vocab_size"]),
    )
    patch = int(vision.get("patch_size", 14))
    if "image_seq_length" in config or "spatial_merge_size" not in vision:
        across = int(vision.get("image_size", patch)) // patch
        tiled = config.get("model_type") == "llava_onevision"
        tokens = _tiled(across) if tiled else int(config.get("image_seq_length", across**2))
        return replace(shape, tokens=tokens, patches=1, side=patch)
    merge = int(vision["spatial_merge_size"])
    size = _read(folder / "preprocessor_config.json").get("size", {})
    largest = size.get("longest_edge") if isinstance(size, dict) else None
    return replace(shape, side=patch * merge, patches=merge**2, largest=largest)


FAMILIES: dict[str, tuple[Kind, Kind | None, float, bool, int]] = {
    "Flux2Transformer2DModel": ("flux2", "flux2_single", 3.0, True, 512),
    "QwenImageTransformer2DModel": ("qwen_image", None, 4.0, False, 1400),
    "FluxTransformer2DModel": ("flux", "flux_single", 4.0, False, 512),
}
"""A transformer's class: its double and single blocks, the ratio of their inner width, whether that is gated,
and the tokens of an instruction."""


def editor_shape(name: str, folder: Path | None) -> EditorShape | None:
    """Likewise, of an image editor."""
    if folder is None:
        return PUBLISHED_EDITORS.get(name)
    config, vae = _read(folder / "transformer" / "config.json"), _read(folder / "vae" / "config.json")
    family = FAMILIES.get(str(config.get("_class_name")))
    if family is None:
        return None
    double, single, ratio, gated, text = family
    heads = int(config["num_attention_heads"])
    width = heads * int(config["attention_head_dim"])
    inner = int(width * float(config.get("mlp_ratio", ratio)))
    counts = ((double, config.get("num_layers", 0)), (single, config.get("num_single_layers", 0)))
    blocks = tuple(
        Blocks(kind, int(count), *(width,) * 3, inner, heads, gated)
        for kind, count in counts
        if kind and count
    )
    halvings = len(vae.get("block_out_channels", ())) - 1 if "block_out_channels" in vae else None
    halvings = len(vae.get("temperal_downsample", ())) if halvings is None else halvings
    packed = vae.get("patch_size", (2, 2)) if "Flux2" in str(vae.get("_class_name")) else (2, 2)
    side = 2**halvings * int(packed[0])
    longest = _read(folder / "tokenizer" / "tokenizer_config.json").get("model_max_length")
    text = min(text, int(longest)) if isinstance(longest, int | float) else text
    return EditorShape(blocks, side, text, int(config["in_channels"]))


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
