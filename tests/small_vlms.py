"""Small random vision-language checkpoints of the real classes, written as ordinary transformers folders:
model, processor, tokenizer, chat template.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from sparring.config import DefenderSettings
from sparring.defenders.rollout import Items, Rollout, add_batches

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
]
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ "
    "c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | upper }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """One token for every printable ASCII character (and any other byte), and the special tokens of both
    families.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*alphabet, *SPECIALS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.add_special_tokens(
        {"additional_special_tokens": [s for s in SPECIALS if s not in ("<|im_end|>", "<|endoftext|>")]}
    )
    return fast


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, parts: list[Any], folder: Path, scale: float
) -> Path:
    """Weights are scaled up, so that pictures, positions and prompts visibly change what a random
    model says.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
            elif "bias" in name:
                parameter.normal_(0, 0.02)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder, safe_serialization=True)
    for part in parts:
        part.save_pretrained(folder)
    return folder


TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
    "bos_token_id": None,
    "tie_word_embeddings": False,
}


def _write_qwen(
    family: tuple[Any, Any],
    text: dict[str, Any],
    vision: dict[str, Any],
    folder: Path,
    seed: int,
    scale: float,
) -> Path:
    """One of the Qwen-VL family: 64 x 64 pixels are 8 x 8 patches, 4 x 4 visual tokens; tied to no hub."""
    torch.manual_seed(seed)
    tokenizer = letters_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIALS}
    config_class, model_class = family
    config = config_class(
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        }
        | text,
        vision_config={"depth": 2, "patch_size": 8, "num_heads": 2} | vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 256, "longest_edge": 65536}
    )
    tokenizer.chat_template = QWEN_TEMPLATE
    return _write(model_class(config), tokenizer, [images, tokenizer], folder, scale)


def tiny_qwen2_5_vl(
    folder: Path,
    *,
    seed: int = 0,
    scale: float = 3.0,
    text: dict[str, Any] | None = None,
    tower: dict[str, Any] | None = None,
) -> Path:
    """Write a Qwen2.5-VL; one window block, one full block."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 32,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    } | (tower or {})
    return _write_qwen(
        (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration), text or {}, vision, folder, seed, scale
    )


def tiny_qwen2_vl(folder: Path, *, seed: int = 0, scale: float = 3.0) -> Path:
    """Write a Qwen2-VL."""
    vision = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    return _write_qwen((Qwen2VLConfig, Qwen2VLForConditionalGeneration), {}, vision, folder, seed, scale)


def tiny_qwen3_vl(folder: Path, *, seed: int = 0, scale: float = 3.0) -> Path:
    """Write a dense Qwen3-VL; the features of its first vision block go into its first text block too."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    return _write_qwen(
        (Qwen3VLConfig, Qwen3VLForConditionalGeneration), {"head_dim": 8}, vision, folder, seed, scale
    )


def tiny_llava(folder: Path, *, seed: int = 0, scale: float = 3.0, head_dim: int = 8) -> Path:
    """Write a LLaVA (CLIP tower, Llama): 64 x 64 pixels are 16 visual tokens."""
    torch.manual_seed(seed)
    tokenizer = letters_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIALS}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "projection_dim": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": head_dim,
            "max_position_embeddings": 1024,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        image_token_index=ids["<image>"],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return _write(LlavaForConditionalGeneration(config), tokenizer, [processor], folder, scale)


def noise_pictures(count: int, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> list[Image.Image]:
    """RGB pictures of coarse coloured blocks, all different."""
    random = np.random.default_rng(seed)
    return [
        Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.NEAREST
        )
        for _ in range(count)
    ]


def collect(vlm: Any, items: Items, settings: DefenderSettings, **where: Any) -> Rollout:
    """All batches of one update's roll-out."""
    rollout, done = Rollout(), False
    while not done:
        batch = items(rollout.batches) if callable(items) else islice(items, settings.prompts_per_step)
        done = add_batches(rollout, vlm, [list(batch)], settings, **where)
    return rollout
