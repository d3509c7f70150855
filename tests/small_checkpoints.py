"""Small random checkpoints of the real classes, written as ordinary folders: what the adapters are tested
with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from sparring.models.editors.qwen_image_edit import (
    Qwen2VLProcessor,
    QwenImageEditEditor,
    QwenImageEditPlusEditor,
)

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
    "}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def byte_tokenizer(model_max_length: int = 64) -> Qwen2TokenizerFast:
    """A Qwen2 tokenizer whose tokens are single bytes and Qwen's special tokens."""
    letters = sorted(ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*letters, *SPECIAL])}
    tokenizer = Qwen2TokenizerFast(
        vocab=vocab, merges=[], model_max_length=model_max_length, additional_special_tokens=SPECIAL[1:]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_flux2_klein(folder: Path, *, seed: int = 0, text_tokens: int = 48, shift: bool = True) -> Path:
    """Write a Flux2KleinPipeline of random weights: 4x VAE, 2 x 2 packing (8 pixels a token). `shift`:
    resolution-dependent sigmas.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )
    vae.bn.running_mean.normal_(0, 0.1)
    vae.bn.running_var.uniform_(0.5, 1.5)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    tokenizer = byte_tokenizer(text_tokens)
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=512,
        )
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=shift)
    pipeline = Flux2KleinPipeline(scheduler, vae.eval(), text_encoder.eval(), tokenizer, transformer.eval())
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_flux_kontext(folder: Path, *, seed: int = 0, guidance: bool = True) -> Path:
    """Write a FluxKontextPipeline of random weights: 4x VAE, 2 x 2 packing (8 pixels a token). `guidance`:
    the transformer takes a guidance scale.
    """
    FluxKontextPipeline(**_flux_parts(seed, in_channels=16, guidance_embeds=guidance)).save_pretrained(
        folder, safe_serialization=True
    )
    return folder


def tiny_flux_fill(folder: Path, *, seed: int = 0) -> Path:
    """Write a FluxFillPipeline of random weights. Its transformer sees 16 numbers of the state, 16 of the
    masked picture and 64 pixels of the mask.
    """
    parts = _flux_parts(seed, in_channels=96, out_channels=16, guidance_embeds=True)
    FluxFillPipeline(**parts).save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_qwen_image(folder: Path, *, seed: int = 0) -> Path:
    """Write a QwenImagePipeline of random weights: 4x VAE, 2 x 2 packing (8 pixels a token)."""
    parts = _qwen_image_parts(seed)
    del parts["processor"]
    QwenImagePipeline(**parts).save_pretrained(folder, safe_serialization=True)
    return folder


def _flux_parts(seed: int, **transformer_options: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.36,
        shift_factor=0.12,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=12,
        axes_dims_rope=(4, 6, 6),
        **transformer_options,
    )
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(words)}, merges=[], model_max_length=24
    )
    clip = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -2.0),
        *((chr(code), -3.0) for code in range(33, 127)),
    ]
    tokenizer_2 = T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=32)
    t5 = T5Config(
        vocab_size=len(pieces),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift=3.0, base_shift=0.5, max_shift=1.15
    )
    return {
        "scheduler": scheduler,
        "vae": vae.eval(),
        "text_encoder": CLIPTextModel(clip).eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": T5EncoderModel(t5).eval(),
        "tokenizer_2": tokenizer_2,
        "transformer": transformer.eval(),
    }


def tiny_qwen_image_edit(folder: Path, *, seed: int = 0) -> Path:
    """Write a QwenImageEditPipeline of random weights: 4x VAE, 2 x 2 packing (8 pixels a token)."""
    QwenImageEditEditor(QwenImageEditPipeline(**_qwen_image_parts(seed))).save_pipeline(folder)
    return folder


def tiny_qwen_image_edit_plus(folder: Path, *, seed: int = 0, zero_cond_t: bool = False) -> Path:
    """The same as a QwenImageEditPlusPipeline. `zero_cond_t`: the input picture's tokens are at noise level
    0, as in the version 2511.
    """
    parts = _qwen_image_parts(seed, zero_cond_t=zero_cond_t)
    QwenImageEditPlusEditor(QwenImageEditPlusPipeline(**parts)).save_pipeline(folder)
    return folder


def _qwen_image_parts(seed: int, **transformer_options: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.2, 0.8, 1.1, 0.9],
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
        **transformer_options,
    )
    tokenizer = byte_tokenizer(1024)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    text_encoder = Qwen2_5_VLForConditionalGeneration(config)
    images = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 256, "longest_edge": 16384}
    )
    processor = Qwen2VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, shift_terminal=0.02
    )
    return {
        "scheduler": scheduler,
        "vae": vae.eval(),
        "text_encoder": text_encoder.eval(),
        "tokenizer": tokenizer,
        "processor": processor,
        "transformer": transformer.eval(),
    }


TINY_EDITORS: dict[str, Callable[[Path], Path]] = {
    "flux2_klein": tiny_flux2_klein,
    "flux_kontext": tiny_flux_kontext,
    "qwen_image_edit": tiny_qwen_image_edit,
    "qwen_image_edit_plus": tiny_qwen_image_edit_plus,
}
"""A checkpoint of every family."""
