"""What the bundled vision-language models are: small Qwen2.5-VL configurations with their processors, as the
training code needs them.

Pictures are `SIZE` x `SIZE` pixels, in patches of 9 pixels. The Defender merges 2 x 2 of them into one
visual token, as the large models do; the judge sees every patch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sparring_arena.world import SIZE
from workshop import vocabulary

PATCH = 9
GRID = SIZE // PATCH
# low enough to tell the few columns of a small picture apart, high enough to compare words far apart
THETA = 300.0
# about 1 / sqrt(width): with the large models' 0.02, attention stays uniform for tens of thousands of samples
INIT = 0.08
WIDTH = 128
SECTIONS = [2, 7, 7]
MIDDLE = 2  # hidden states after so many layers feed the auxiliary heads
TEMPLATE = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}{{% else "
    "%}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}"
    "{{% endif %}}<|im_end|>{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant{{% endif %}}"
)


class SmallVLM:
    """A small Qwen2.5-VL with its processors. `merge`: patches along each side of a visual token."""

    def __init__(self, merge: int) -> None:
        self.merge, self.side = merge, GRID // merge
        self.count = self.side**2  # visual tokens
        self.picture = "<|vision_start|>" + "<|image_pad|>" * self.count + "<|vision_end|>"
        self.tokenizer = vocabulary.build(
            chat_template=TEMPLATE.format(image="<|vision_start|><|image_pad|><|vision_end|>")
        )
        token = self.tokenizer.convert_tokens_to_ids
        opening = self.tokenizer.tokenize(self.chat("", picture=True))
        self.picture_start = opening.index("<|image_pad|>")  # of the first visual token
        config = Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(self.tokenizer), "hidden_size": WIDTH, "intermediate_size": 384, "num_hidden_layers": 5,
                "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 1024,
                "tie_word_embeddings": True, "initializer_range": INIT,
                "rope_parameters": {"rope_type": "default", "rope_theta": THETA, "mrope_section": SECTIONS},
                "eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>"), "bos_token_id": None,
            },
            vision_config={
                "depth": 4, "hidden_size": 128, "intermediate_size": 384, "num_heads": 4, "patch_size": PATCH,
                "spatial_merge_size": merge, "temporal_patch_size": 2, "initializer_range": INIT, "window_size": SIZE,
                "fullatt_block_indexes": [0, 1, 2, 3], "out_hidden_size": WIDTH,
            },
            image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )  # fmt: skip
        self.model: Any = Qwen2_5_VLForConditionalGeneration(config)
        begin_with_lookup(self.language)
        ALL_ATTENTION_FUNCTIONS.register("equal_length_flash", _equal_length_attention)
        self.vision = self.model.model.visual
        ALL_ATTENTION_FUNCTIONS.register("plain_causal", _causal_attention)
        self.vision.config._attn_implementation = "equal_length_flash"
        self.language.config._attn_implementation = "plain_causal"
        # patches do not overlap: a product does what the convolution does, and faster
        embed = self.vision.patch_embed
        embed.forward = lambda patches: nn.functional.linear(patches, embed.proj.weight.flatten(1))
        self.image_processor = Qwen2VLImageProcessorPil(
            patch_size=PATCH, merge_size=merge, temporal_patch_size=2, min_pixels=SIZE * SIZE, max_pixels=SIZE * SIZE,
            image_mean=[0.5] * 3, image_std=[0.5] * 3,
        )  # fmt: skip

    @property
    def language(self) -> Any:
        return self.model.model.language_model

    def chat(self, text: str, *, picture: bool) -> str:
        return f"<|im_start|>user{self.picture if picture else ''}{text}<|im_end|><|im_start|>assistant"

    def features(self, pictures_BCHW: Tensor) -> Tensor:
        """Visual tokens, [B, side * side, C], of pictures in [-1, 1]."""
        batch, m, s, p = len(pictures_BCHW), self.merge, self.side, PATCH
        # B gh gw mh mw C p p
        x = pictures_BCHW.reshape(batch, 3, s, m, p, s, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
        patches = x.unsqueeze(6).expand(*x.shape[:6], 2, p, p).reshape(batch * GRID**2, -1)
        grid = torch.tensor([[1, GRID, GRID]]).expand(batch, 3)
        bounds = torch.arange(batch + 1, dtype=torch.int32) * GRID**2
        with torch.autocast("cpu", torch.bfloat16):
            out = self.vision(
                patches, grid, window_index=torch.arange(batch * self.count), cu_window_seqlens=bounds
            )
        pooled: Tensor = out.pooler_output.float()
        return pooled.view(batch, self.count, -1)

    def positions(self, tokens: int, *, picture: bool) -> Tensor:
        """M-RoPE positions [3, T]: text counts up, visual tokens carry (time, row, column), text goes on
        after the largest.
        """
        if not picture:
            return torch.arange(tokens).expand(3, -1)
        start, side, count = self.picture_start, self.side, self.count
        before = torch.arange(start).expand(3, -1)
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        image = torch.stack([torch.zeros(count, dtype=torch.long), row.flatten(), column.flatten()]) + start
        after = torch.arange(tokens - start - count).expand(3, -1) + start + side
        return torch.cat([before, image, after], dim=1)

    def hidden(self, tokens_BT: Tensor, features_BNC: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden states in the middle and at the end, [B, T, C] each. Causal attention; padding stands on the
        right.
        """
        embeds = self.language.get_input_embeddings()(tokens_BT)
        if features_BNC is not None:
            start = self.picture_start
            embeds = torch.cat([embeds[:, :start], features_BNC, embeds[:, start + self.count :]], dim=1)
        positions = self.positions(tokens_BT.shape[1], picture=features_BNC is not None)
        self.kept_positions = positions[:, None].expand(3, len(tokens_BT), -1)
        with torch.autocast("cpu", torch.bfloat16):
            result = self.language(
                inputs_embeds=embeds,
                position_ids=self.kept_positions,
                use_cache=False,
                output_hidden_states=True,
            )
        self.kept_middle: Tensor = result.hidden_states[MIDDLE].float()
        return self.kept_middle, result.last_hidden_state.float()

    def looking_loss(self, wanted: list[tuple[int, int, list[int]]]) -> tuple[Tensor, float]:
        """Teach head 0 of the layer after the middle where to look, on the batch that `hidden` has just seen.

        wanted: (row, place of a token, places that it should attend to alike). Cross-entropy of the
        attention, and how often its largest value is right. Without it, finding a named thing among the
        visual tokens is learned only after some hundred thousand pictures.
        """
        layer = self.language.layers[MIDDLE]
        attention = layer.self_attn
        states = layer.input_layernorm(self.kept_middle)
        shape = (*states.shape[:2], -1, attention.head_dim)
        query, key = (
            p(states).view(shape)[:, :, :1].transpose(1, 2) for p in (attention.q_proj, attention.k_proj)
        )
        cos, sin = self.language.rotary_emb(states, self.kept_positions)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        rows, places = (torch.tensor([entry[i] for entry in wanted]) for i in (0, 1))
        scores = (query[rows, 0, places].unsqueeze(1) @ key[rows, 0].transpose(1, 2)).squeeze(
            1
        ) * attention.head_dim**-0.5
        scores = scores.masked_fill(torch.arange(scores.shape[1]) > places.unsqueeze(1), float("-inf"))
        target = torch.zeros_like(scores)
        for i, (_, _, targets) in enumerate(wanted):
            target[i, targets] = 1 / len(targets)
        right = (target.gather(1, scores.argmax(-1, keepdim=True)) > 0).float().mean().item()
        logs = scores.log_softmax(-1).masked_fill(target == 0, 0)
        return -(logs * target).sum(-1).mean(), right

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(hidden)
        return logits

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(type(self.model).from_pretrained(folder).state_dict())


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
    mixed = torch.softmax(q * scaling @ k.transpose(-1, -2), -1).to(v.dtype) @ v
    return mixed.transpose(1, 2).flatten(0, 1)[None], None


def _causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float = 1.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Plain causal attention, [B, H, T, D] -> [B, T, H, D]: at these sizes its gradient is faster on a CPU
    than that of torch's own.
    """
    later = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).triu(1)
    weights = torch.softmax((query * scaling @ key.transpose(-1, -2)).masked_fill(later, float("-inf")), -1)
    return (weights.to(value.dtype) @ value).transpose(1, 2), None


@torch.no_grad()
def begin_with_lookup(language: Any) -> None:
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
    frequencies = THETA ** (-torch.arange(0, head_dim, 2) / head_dim)
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
