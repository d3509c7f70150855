"""LoRA adapters (arXiv 2106.09685) inside a vision-language model, saved both as peft reads them and merged
into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GradientCheckpointingLayer

from sparring.data.errors import ModelError
from sparring.engine.ranks import full, writes_files
from sparring.models.private import checkpoint_block


def set_up(model: nn.Module, enabled: bool) -> None:
    """Let every block that transformers can checkpoint do so, or none. Raises ModelError where there is none
    to be had.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if enabled and not blocks:
        raise ModelError(
            f"{type(model).__name__}: no blocks whose gradients could be checkpointed; set "
            f"defender.gradient_checkpointing to false"
        )
    for block in blocks:
        block.training = block.gradient_checkpointing = enabled
        if enabled:
            checkpoint_block(block, partial(checkpoint, use_reentrant=False))


ADAPTER = "default"
FILE = "adapter_model.safetensors"


def add(model: Any, *, rank: int, alpha: int, seed: int, wanted: Callable[[str], bool]) -> None:
    """Put an adapter on every linear layer whose name is `wanted`, the output head excepted. Its weights
    follow from `seed`; it starts at zero.
    """
    if layers(model):
        raise ModelError("this model has a LoRA adapter already")
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and wanted(name)
    ]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=names, init_lora_weights=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    model.peft_config = {ADAPTER: config}


def layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the model without adapters that computes the same; the model itself is not changed."""
    adapted = layers(model)
    state = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, rest = name.rpartition(".base_layer.")
        if owner and rest == "weight":
            delta = full(adapted[owner].get_delta_weight(ADAPTER))
            tensor = (full(tensor).float() + delta.float()).to(tensor.dtype)
        state[name.replace(".base_layer.", ".")] = full(tensor)
    return state


def save(model: Any, folder: Path, earlier: Sequence[Path] = ()) -> None:
    """Write the adapter alone, as `peft.PeftModel.from_pretrained` reads it. Several processes all call it;
    the first one writes.

    earlier: folders of adapters of the same settings that are merged into the model's weights already. What
    is written then holds them too, side by side: its rank is the sum of theirs, and it does to the weights
    from before all of them what they and the model's own do one after another.
    """
    tensors = {
        f"base_model.model.{name}": full(tensor).contiguous().cpu()
        for name, tensor in get_peft_model_state_dict(model, adapter_name=ADAPTER).items()
    }
    if not writes_files():
        return
    parts = [*(load_file(own / FILE) for own in earlier), tensors]
    joined = {
        name: torch.cat([part[name] for part in parts], dim=0 if ".lora_A." in name else 1).contiguous()
        for name in tensors
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(joined, folder / FILE)
    own = model.peft_config[ADAPTER]
    count = len(parts)
    config = copy(own)
    config.r, config.lora_alpha, config.inference_mode = own.r * count, own.lora_alpha * count, True
    config.save_pretrained(str(folder))
