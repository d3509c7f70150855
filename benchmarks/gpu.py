"""Both players at full size on one GPU: updates and roll-outs a second, model-flops utilisation and peak
memory; the Defender's beside TRL's.

python benchmarks/gpu.py [--tiny] [--visual-tokens 1024] [--group 8] [--completion 64] [--repeats 3]

The players are a Qwen2.5-VL-7B and the transformer of a FLUX.2-klein-4B with random weights in bfloat16, so
nothing is downloaded. Both train a LoRA of rank 64 with gradient checkpointing; TRL's GRPOTrainer is given
the same LoRA on the same model and the same replies, and its roll-out is transformers' `generate`. The
editor's roll-out is one denoising step of a 1024 x 1024 picture beside its original, its update one forward
and backward pass of it; TRL has no editors. Utilisation counts 2 flops a weight and token forward and 2
backward (the frozen weights need no gradient of their own), neither attention nor what checkpointing
computes again, and every picture and prompt once: what a rival computes again is no use. It is null where
the device's peak is not known: give it as --peak-tflops. `--tiny` runs the same on small models, on a CPU
too; its figures say nothing about speed.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _defenders import QUESTION, parameters, picture, random_vlm, report
from defender_update import sample, trl_inputs, trl_trainer
from diffusers import Flux2Transformer2DModel
from peft import LoraConfig

from sparring.config import DefenderSettings, LoraSettings
from sparring.defenders.trainer import DefenderTrainer
from sparring.engine.device import peak_tflops as known_peak
from sparring.models.editors.flux2_klein import image_positions
from sparring.models.vlms.base import Sampling

QWEN_7B: dict[str, Any] = {
    "text": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "vision": {
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "depth": 32,
        "num_heads": 16,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "patch_size": 14,
        "window_size": 112,
    },
    "mrope_section": [16, 24, 24],
}
TINY_VLM: dict[str, Any] = {
    "text": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "depth": 2,
        "num_heads": 2,
        "fullatt_block_indexes": [1],
        "patch_size": 14,
    },
    "mrope_section": [4, 6, 6],
}
KLEIN_4B: dict[str, Any] = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 7680,
}
TINY_EDITOR: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": 48,
    "axes_dims_rope": (4, 4, 4, 4),
}


class Meter:
    """Seconds and peak memory of work on a device, and the share of its peak arithmetic that was of use."""

    def __init__(self, device: torch.device, peak_tflops: float | None, repeats: int) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.device, self.name, self.repeats = device, name, repeats
        self.peak = peak_tflops or known_peak(name)

    def figures(self, work: Callable[[], object], flops: float) -> dict[str, float | None]:
        """Of the mean of some calls, after one that does not count; flops: of use in one call."""
        work()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(self.repeats):
            work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / self.repeats
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None
        return {
            "seconds": round(seconds, 4),
            "mfu": None if self.peak is None else round(flops / seconds / self.peak / 1e12, 4),
            "peak_gib": None if memory is None else round(memory, 2),
        }


def our_defender(
    vlm: Any, options: argparse.Namespace, meter: Meter
) -> tuple[int, Any, float, dict[str, Any], dict[str, Any]]:
    """(weights, a group of replies, flops of one forward pass, figures of our update, figures of our
    roll-out).
    """
    image, patches = picture(options.visual_tokens, patch=14), 4 * options.visual_tokens
    weights, seeing = parameters(vlm), sum(p.numel() for p in vlm.model.get_submodule(vlm.tower).parameters())
    group = sample(vlm, image, options.group, options.completion)
    prompt, written = (
        vlm.encode([image], [QUESTION])["input_ids"].shape[1],
        options.group * options.completion,
    )
    forward = 2.0 * (seeing * patches + (weights - seeing) * (prompt + written))
    settings = DefenderSettings(
        model="random",
        group_size=options.group,
        micro_batch=options.group,
        lora=LoraSettings(rank=64, alpha=128),
        gradient_checkpointing=True,
    )
    trainer = DefenderTrainer(vlm, settings, seed=0)

    def reply() -> object:
        return vlm.generate(
            [image], [QUESTION], Sampling(options.completion, n=options.group, temperature=1.0)
        )

    update = {"ours": meter.figures(lambda: trainer._learn([group], 0), 2 * forward)}
    return weights, group, forward, update, {"ours": meter.figures(reply, forward)}


def defender(options: argparse.Namespace, meter: Meter) -> None:
    """Two lines: the update and the roll-out of one group, ours and TRL's."""
    sizes, dtype = (TINY_VLM, torch.float32) if options.tiny else (QWEN_7B, torch.bfloat16)
    image = picture(options.visual_tokens, patch=14)

    def model() -> Any:
        return random_vlm(options.visual_tokens, sizes=sizes, dtype=dtype, device=meter.device)

    weights, group, forward, update, roll_out = our_defender(model(), options, meter)
    gc.collect()
    vlm = model()
    vlm.prepare_training(train_vision=True, lora_rank=64, lora_alpha=128)
    vlm.model.generation_config.eos_token_id = None
    batch = vlm.encode([image], [QUESTION])
    del batch["position_ids"], batch["picture_count"]
    how = {
        "do_sample": True,
        "top_k": 0,
        "max_new_tokens": options.completion,
        "suppress_tokens": list(vlm.forbidden),
    }
    vlm.flex = False
    vlm.model.config.get_text_config()._attn_implementation = "sdpa"
    roll_out["trl"] = meter.figures(
        lambda: vlm.model.generate(**batch, **how, num_return_sequences=options.group), forward
    )
    with tempfile.TemporaryDirectory() as folder:
        rival = trl_trainer(vlm, folder, options.group, options.completion, checkpointing=True)
    trained = list(vlm.trainable_parameters().values())
    optimizer, inputs = torch.optim.AdamW(trained, lr=1e-6), trl_inputs(vlm, group)

    def update_trl() -> None:
        rival.compute_loss(rival.model, inputs).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    update["trl"] = meter.figures(update_trl, 2 * forward)
    case = {
        "visual_tokens": options.visual_tokens,
        "group": options.group,
        "completion": options.completion,
        "parameters": weights,
    }
    for name, figures in (("update", update), ("roll-out", roll_out)):
        ours, theirs = figures["ours"]["seconds"], figures["trl"]["seconds"]
        rate = {
            "ours_completions_a_second": round(options.group / (ours or 1e-9), 2),
            "ratio": round((theirs or 0) / (ours or 1e-9), 2),
        }
        report(
            f"Defender {name} at full size against TRL",
            {**case, "device": meter.name},
            {**figures, **rate},
            {},
        )


def editor(options: argparse.Namespace, meter: Meter) -> None:
    """One line: a roll-out step and an update of the editor's transformer."""
    sizes, dtype = (TINY_EDITOR, torch.float32) if options.tiny else (KLEIN_4B, torch.bfloat16)
    side, words = (4, 16) if options.tiny else (64, 512)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with meter.device:
        model = Flux2Transformer2DModel(**sizes, in_channels=128, guidance_embeds=False)
    torch.set_default_dtype(before)
    weights = sum(parameter.numel() for parameter in model.parameters())
    model.requires_grad_(False)
    model.add_adapter(
        LoraConfig(
            r=64, lora_alpha=128, target_modules=["to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj"]
        )
    )
    model.enable_gradient_checkpointing()
    model.train()
    # of the picture being made, then of the one it is made from
    positions = image_positions((side, side)).to(meter.device)
    text_ids = torch.cartesian_prod(
        torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(words)
    ).to(meter.device)
    latents = torch.randn(options.edits, 2 * side * side, 128, dtype=dtype, device=meter.device)
    text = torch.randn(options.edits, words, sizes["joint_attention_dim"], dtype=dtype, device=meter.device)
    sigma = torch.full((options.edits,), 0.5, dtype=dtype, device=meter.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def velocity() -> torch.Tensor:
        output: torch.Tensor = model(
            hidden_states=latents,
            timestep=sigma,
            guidance=None,
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=positions,
            return_dict=False,
        )[0]
        return output[:, : side * side]

    def update() -> None:
        velocity().float().pow(2).mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    forward = 2.0 * weights * options.edits * (2 * side * side + words)
    with torch.no_grad():
        step = meter.figures(velocity, forward)
    figures = {"rollout_step": step, "update": meter.figures(update, 2 * forward)}
    case = {
        "edits": options.edits,
        "latent_tokens": side * side,
        "text_tokens": words,
        "parameters": weights,
        "device": meter.name,
    }
    report("Editor of the size of FLUX.2-klein-4B", case, figures, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--tiny", action="store_true", help="small models, also on a CPU: does it run to the end?"
    )
    parser.add_argument("--visual-tokens", type=int, default=1024)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--edits", type=int, default=2, help="edits in one pass of the editor")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--peak-tflops", type=float, help="the device's peak in bfloat16, where it is not known here"
    )
    options = parser.parse_args()
    if options.tiny:
        options.visual_tokens, options.completion, options.repeats = 16, 8, 1
    elif not torch.cuda.is_available():
        parser.error("full size needs a GPU; --tiny runs on a CPU")
    warnings.simplefilter("ignore")
    meter = Meter(
        torch.device("cuda" if torch.cuda.is_available() else "cpu"), options.peak_tflops, options.repeats
    )
    defender(options, meter)
    gc.collect()
    editor(options, meter)


if __name__ == "__main__":
    main()
