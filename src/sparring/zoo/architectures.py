"""What the bundled vision-language models are: small configurations of ordinary transformers classes, with
their processors.

The training code sees both through one interface: `features` (pictures to visual tokens), `hidden` (tokens
and visual tokens to hidden states) and `logits`. Pictures are 64 x 64 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sparring.scenes.world import SIZE
from sparring.zoo import vocabulary

THETA = 300.0
# about 1 / sqrt(width): with the large models' 0.02, attention stays uniform for tens of thousands of samples
INIT = 0.08
TEMPLATE = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}{{% else "
    "%}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}"
    "{{% endif %}}<|im_end|>{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant{{% endif %}}"
)


class Architecture:
    """A model with its processor, as the training code needs it."""

    model: Any
    vision: nn.Module
    tokenizer: Any
    processors: tuple[Any, ...]
    width: int
    side: int  # visual tokens lie on a side x side grid
    picture_start: int  # index of the first visual token
    picture: str  # the picture's tokens in a chat
    middle: int  # hidden states after so many layers feed the auxiliary heads

    def chat(self, text: str, *, picture: bool) -> str:
        return f"<|im_start|>user{self.picture if picture else ''}{text}<|im_end|><|im_start|>assistant"

    def features(self, pictures_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def language(self) -> Any:
        return self.model.model.language_model

    def positions(self, tokens: int, picture: bool) -> Tensor | None:
        return None

    def hidden(self, tokens_BT: Tensor, features_BNC: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden states in the middle and at the end, [B, T, C] each. Causal attention; padding stands on the
        right.
        """
        embeds = self.language().get_input_embeddings()(tokens_BT)
        if features_BNC is not None:
            start, count = self.picture_start, features_BNC.shape[1]
            embeds = torch.cat([embeds[:, :start], features_BNC, embeds[:, start + count :]], dim=1)
        positions = self.positions(tokens_BT.shape[1], features_BNC is not None)
        if positions is not None:
            positions = positions[:, None].expand(3, len(tokens_BT), -1)
        else:
            positions = torch.arange(tokens_BT.shape[1])[None]
        self.kept_positions = positions
        result = self.language()(
            inputs_embeds=embeds, position_ids=positions, use_cache=False, output_hidden_states=True
        )
        self.kept_middle: Tensor = result.hidden_states[self.middle]
        return self.kept_middle, result.last_hidden_state

    def looking_loss(self, tokens_BT: Tensor, wanted: list[tuple[int, int, int]]) -> tuple[Tensor, float]:
        """Teach head 0 of the layer after the middle where to look, on the batch that `hidden` has just seen.

        wanted: (row, place of a token, place that it should attend to). Cross-entropy of the attention, and
        how often its largest value is right. Without it, finding a named thing among the visual tokens is
        learned only after some hundred thousand pictures.
        """
        layer = self.language().layers[self.middle]
        attention = layer.self_attn
        states = layer.input_layernorm(self.kept_middle)
        shape = (*states.shape[:2], -1, attention.head_dim)
        query, key = (
            projection(states).view(shape)[:, :, :1].transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj)
        )
        cos, sin = self.language().rotary_emb(states, self.kept_positions)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        rows, places, targets = (torch.tensor(column) for column in zip(*wanted, strict=True))
        scores = (query[rows, 0, places].unsqueeze(1) @ key[rows, 0].transpose(1, 2)).squeeze(
            1
        ) * attention.head_dim**-0.5
        scores = scores.masked_fill(torch.arange(scores.shape[1]) > places.unsqueeze(1), float("-inf"))
        right = (scores.argmax(-1) == targets).float().mean().item()
        return nn.functional.cross_entropy(scores, targets), right

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(hidden)
        return logits

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        for processor in self.processors:
            processor.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        saved = type(self.model).from_pretrained(folder)
        self.model.load_state_dict(saved.state_dict())


def _equal_length_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float = 1.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """All pictures of a training batch have the same size: one batched call instead of one call a picture.
    [1, H, B*L, D] -> [1, B*L, H, D].
    """
    batch = kwargs["cu_seq_lens_q"].numel() - 1
    q, k, v = (x[0].unflatten(1, (batch, -1)).transpose(0, 1) for x in (query, key, value))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
    return mixed.transpose(1, 2).flatten(0, 1)[None], None


@torch.no_grad()
def begin_with_lookup(language: Any, theta: float) -> None:
    """Begin near a look-up circuit: after a word, attend to where it stood before and say what stood two
    tokens before it there.

    "B. red ... red \\boxed{" -> "B". Left to itself, a small model finds this circuit (an induction head)
    only after some hundred thousand samples, if at all; from here on it is trained like everything else.
    Four heads of 32, width 128:

    * layer 0, heads 0 to 2 attend one, two and three tokens back, through the biases of queries and keys:
      rotary attention adds angles, so with a constant key and a query turned by -d * frequency the logit is
      largest at distance d. Heads 0 and 1 write what they see (a random projection of the first half of the
      embedding) into dimensions 64..95 and 96..127.
    * layer 1, head 0 compares dimensions 64..95 with the same projection of earlier tokens, in the slow
      frequencies, which distance hardly turns, reads dimensions 96..127 there, and writes them back as an
      embedding.
    """
    head_dim, half = 32, 64
    embedding = language.embed_tokens.weight
    embedding[:, half:] *= 0.2
    frequencies = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    first, second = (layer.self_attn for layer in language.layers[:2])
    # [32, 64], orthonormal rows
    projections = [torch.linalg.qr(torch.randn(half, head_dim))[0].T for _ in range(2)]
    for head, offset in enumerate((1, 2, 3)):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        first.k_proj.bias[rows] = 5.5 * torch.cat([torch.ones(head_dim // 2), torch.zeros(head_dim // 2)])
        first.q_proj.bias[rows] = 5.5 * torch.cat(
            [torch.cos(offset * frequencies), -torch.sin(offset * frequencies)]
        )
        if head < 2:
            first.v_proj.weight[rows] = 0
            first.v_proj.weight[rows, :half] = projections[head]
            first.o_proj.weight[:, rows] = 0
            first.o_proj.weight[half + head * head_dim : half + (head + 1) * head_dim, rows] = torch.eye(
                head_dim
            )
    language.layers[0].mlp.down_proj.weight *= 0.2
    slow = torch.tensor([10, 11, 12, 13, 14, 15, 26, 27, 28, 29, 30, 31])
    for projection in (second.q_proj, second.k_proj):
        projection.weight[:head_dim] = 0
    second.q_proj.weight[slow, half + torch.arange(len(slow))] = 2.5
    second.k_proj.weight[slow, :half] = 2.5 * projections[0][: len(slow)]
    second.v_proj.weight[:head_dim] = 0
    second.v_proj.weight[:head_dim, half + head_dim :] = torch.eye(head_dim)
    second.o_proj.weight[:, :head_dim] = 0
    second.o_proj.weight[:half, :head_dim] = 1.5 * projections[1].T


class QwenDefender(Architecture):
    """Qwen2.5-VL: patches of 8 pixels, merged 2 x 2 to 16 visual tokens."""

    def __init__(self) -> None:
        self.width, self.side, self.middle = 128, 4, 2
        self.picture = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
        self.picture_start = 3
        self.tokenizer = vocabulary.build(
            chat_template=TEMPLATE.format(image="<|vision_start|><|image_pad|><|vision_end|>")
        )
        token = self.tokenizer.convert_tokens_to_ids
        config = Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(self.tokenizer), "hidden_size": self.width, "intermediate_size": 384, "num_hidden_layers": 5, "num_attention_heads": 4,
                "num_key_value_heads": 4, "max_position_embeddings": 1024, "tie_word_embeddings": True, "initializer_range": INIT,
                # The base is low enough to tell the few columns of a small picture apart, high enough to
                # compare words far apart.
                "rope_parameters": {"rope_type": "default", "rope_theta": THETA, "mrope_section": [2, 7, 7]},
                "eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>"), "bos_token_id": None,
            },
            vision_config={
                "depth": 4, "hidden_size": 128, "intermediate_size": 384, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2,
                "initializer_range": INIT, "window_size": 64, "fullatt_block_indexes": [0, 1, 2, 3], "out_hidden_size": self.width,
            },
            image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"), tie_word_embeddings=True,
        )  # fmt: skip
        self.model = Qwen2_5_VLForConditionalGeneration(config)
        begin_with_lookup(self.model.model.language_model, THETA)
        ALL_ATTENTION_FUNCTIONS.register("equal_length_flash", _equal_length_attention)
        self.model.model.visual.config._attn_implementation = "equal_length_flash"
        self.vision = self.model.model.visual
        image_processor = Qwen2VLImageProcessorPil(
            patch_size=8,
            merge_size=2,
            temporal_patch_size=2,
            min_pixels=SIZE * SIZE,
            max_pixels=SIZE * SIZE,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        self.processors = (image_processor, self.tokenizer)

    def features(self, pictures_BCHW: Tensor) -> Tensor:
        batch, p = len(pictures_BCHW), 8
        # B gh gw mh mw C p p
        x = pictures_BCHW.reshape(batch, 3, 4, 2, p, 4, 2, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
        patches = x.unsqueeze(6).expand(*x.shape[:6], 2, p, p).reshape(batch * 64, -1)
        grid = torch.tensor([[1, 8, 8]]).expand(batch, 3)
        index = torch.arange(batch * 16)
        bounds = torch.arange(batch + 1, dtype=torch.int32) * 64
        out = self.vision(patches, grid, window_index=index, cu_window_seqlens=bounds)
        pooled: Tensor = out.pooler_output
        return pooled.view(batch, 16, -1)

    def positions(self, tokens: int, picture: bool) -> Tensor | None:
        """M-RoPE positions [3, T]: text counts up, visual tokens carry (time, row, column), text goes on
        after the largest.
        """
        if not picture:
            return torch.arange(tokens).expand(3, -1)
        start = self.picture_start
        before = torch.arange(start).expand(3, -1)
        row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        image = torch.stack([torch.zeros(16, dtype=torch.long), row.flatten(), column.flatten()]) + start
        after = torch.arange(tokens - start - 16).expand(3, -1) + start + 4
        return torch.cat([before, image, after], dim=1)


class Judge(Architecture):
    """LLaVA: a CLIP vision tower with patches of 8 pixels, 64 visual tokens, and a Llama."""

    def __init__(self) -> None:
        self.width, self.side, self.middle = 128, 8, 1
        self.picture = "<image>" * 64
        self.picture_start = 2
        self.tokenizer = vocabulary.build(chat_template=TEMPLATE.format(image="<image>"))
        token = self.tokenizer.convert_tokens_to_ids
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, image_size=SIZE, patch_size=8, projection_dim=128
            ),
            text_config=LlamaConfig(
                vocab_size=len(self.tokenizer), hidden_size=self.width, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True, initializer_range=INIT, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
                eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"), bos_token_id=None,
            ),
            image_token_index=token("<image>"), vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=64,
            tie_word_embeddings=True,
        )  # fmt: skip
        self.model = LlavaForConditionalGeneration(config)
        self.vision = nn.ModuleList([self.model.model.vision_tower, self.model.model.multi_modal_projector])
        size = {"height": SIZE, "width": SIZE}
        image_processor = CLIPImageProcessorPil(
            size=size, crop_size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        self.processors = (LlavaProcessor(
            image_processor, self.tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=self.tokenizer.chat_template,
            image_token="<image>", num_additional_image_tokens=1,
        ),)  # fmt: skip

    def features(self, pictures_BCHW: Tensor) -> Tensor:
        seen = self.model.model.vision_tower(pictures_BCHW).last_hidden_state[:, 1:]
        projected: Tensor = self.model.model.multi_modal_projector(seen)
        return projected
