"""What the Defender's benchmarks share: a random Qwen2.5-VL of a wanted size with the bundled Defender's
processor, pictures, and a memory meter.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.processors import load_processor
from sparring.recipes.paths import resolve_model

DEFENDER = Path(resolve_model("arena/defender"))
PATCH, MERGE = 8, 2
QUESTION = "Where is the cup?\nA. left\nB. right"
# 22 M parameters in the proportions of Qwen2.5-VL-3B: a sixth of them sees, one block in eight of the vision
# tower attends to the whole picture.
MIDDLING: dict[str, Any] = {
    "text": {
        "hidden_size": 448,
        "intermediate_size": 1216,
        "num_hidden_layers": 8,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
    },
    "vision": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "depth": 8,
        "num_heads": 3,
        "fullatt_block_indexes": [7],
    },
    "mrope_section": [8, 12, 12],
}


def random_vlm(
    visual_tokens: int,
    *,
    sizes: Mapping[str, Any] = MIDDLING,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device = torch.device("cpu"),
) -> LocalVLM:
    """A Qwen2.5-VL of those sizes with random weights; every picture of `picture(visual_tokens)` takes as
    many tokens of its prompt.
    """
    config = json.loads((DEFENDER / "config.json").read_text(encoding="utf-8"))
    text, vision = dict(config["text_config"]), dict(config["vision_config"])
    rope = text["rope_parameters"] | {"mrope_section": sizes["mrope_section"], "rope_theta": 10000.0}
    del text["layer_types"]
    text |= {
        **sizes["text"],
        "rope_parameters": rope,
        "max_position_embeddings": 8192,
        "initializer_range": 0.02,
    }
    vision |= {
        "window_size": 64,
        **sizes["vision"],
        "out_hidden_size": sizes["text"]["hidden_size"],
        "initializer_range": 0.02,
    }
    torch.manual_seed(seed)
    patch, before = int(vision["patch_size"]), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(**(config | {"text_config": text, "vision_config": vision}))
            )
    finally:
        torch.set_default_dtype(before)
    pixels = visual_tokens * (patch * MERGE) ** 2
    processor = load_processor(DEFENDER, min_pixels=pixels, max_pixels=pixels)
    processor.image_processor.patch_size = patch
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    vlm = LocalVLM(model, processor, name="random")
    vlm.end_tokens = (-1,)  # no reply ends early
    return vlm


def picture(visual_tokens: int, seed: int = 0, patch: int = PATCH) -> Image.Image:
    """Noise, square, of that many visual tokens (a square number)."""
    side = round(visual_tokens**0.5) * patch * MERGE
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def parameters(vlm: LocalVLM) -> int:
    """How many numbers the model has."""
    return sum(parameter.numel() for parameter in vlm.model.parameters())


def measured(work: Callable[[], object]) -> tuple[float, float | None]:
    """(seconds of processor time, peak of the process's memory above where it was before in MB) of one call.
    Memory: on Linux only, else None.
    """
    gc.collect()
    meter = Path("/proc/self/clear_refs")
    before = 0.0
    if meter.exists():
        # What was freed may still belong to the process; it is given back first, so that both rivals start
        # from the same.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        meter.write_text("5")
        before = _status("VmRSS")
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    return seconds, (_status("VmHWM") - before if meter.exists() else None)


def _status(field: str) -> float:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")
    )
    return int(line.split()[1]) / 1024


def processor_seconds(*_: object) -> float:
    """Processor time of this process so far; workers are asked for theirs."""
    return time.process_time()


def report(
    benchmark: str, case: Mapping[str, Any], figures: Mapping[str, Any], bars: Mapping[str, bool]
) -> bool:
    """Print one result as a JSON line; True where all bars are met."""
    print(json.dumps({"benchmark": benchmark, "case": dict(case), **figures, "met": dict(bars)}), flush=True)
    return all(bars.values())


def finish(met: bool) -> None:
    """End the script; its exit status says whether every bar was met."""
    sys.exit(0 if met else 1)
