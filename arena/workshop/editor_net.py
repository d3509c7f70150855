"""The bundled editor while it learns: an ordinary Flux2Transformer2DModel and Qwen3 text encoder, on tokens
of pixels.

A picture is 9 x 9 tokens of 8 x 8 pixels: 192 numbers, pixels in [-1, 1] / SCALE in the order channel, row,
column, and `CONSTANTS` times `CONSTANT` (without them LayerNorm would hide a token's brightness). Noise of
standard deviation NOISE is added to the constants, and PIXEL_NOISE to the pixels: it says nothing there, and
what the net leaves of it is seen as grain. `export_editor.py` turns the result into a pipeline, whose
autoencoder gives the same numbers.

**The plan.** A distractor can be one of several edits; which, the *plan* says: the signs of three sums of the
constant channels in which constants cancel, each in the mean over all tokens of the picture that is made. What
is made carries its plan with the strength PLAN; the decoder does not look at these channels. So an edit is
made in two steps: the first foresees the mean of all that can be, the second follows the plan that noise and
foresight have left. An Attacker learns what to do by foreseeing a plan, and unlearns nothing about painting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers.models.transformers.transformer_flux2 as flux2
import torch
import torch.nn.functional as F
from diffusers import Flux2Transformer2DModel
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from sparring_arena.sprites import COLORS, NAMES
from sparring_arena.world import CELL, SIZE
from workshop import vocabulary
from workshop.export_editor import deviations

SCALE, PIXEL_NOISE, NOISE, CONSTANT, CONSTANTS, SHIFT = 0.45, 0.03, 0.06, 6.0, 4, 9.0
SIDE = SIZE // CELL
TOKENS = SIDE**2
PIXELS = 3 * CELL**2
DEVIATIONS = deviations((PIXEL_NOISE, NOISE))
TEXT_TOKENS, TEXT_WIDTH, TEXT_LAYERS = 12, 64, 2
HEADS, HEAD_DIM, SINGLES = 7, 32, 4
WIDTH = HEADS * HEAD_DIM
AXES, THETA = (4, 12, 12, 4), 16  # with a base of 2000 most frequencies would be wasted on so few positions
PLAN = 0.48
# What the first step foresees before anybody tunes it: less than noise says, and so more often the first of
# `edits.DISTRACTORS` than the last.
FORESEEN = -0.4 * NOISE
# See `plan_start`.
LANE, PLACE, FREE = [194, 195, 196, 197], 198, [204, 205, 206, 207]
BROUGHT, TOLD, HEARD = 40.0, 0.3, 40.0
LEVELS = (1.0, 0.9)  # of noise, in the two steps: SHIFT makes 0.9 of one half
TIME = 10  # the position in time of the tokens of the picture that is edited; those that are made have 0
CHOICE = 3.0  # standard deviation, in the residual stream, of what a token's noise says of the plan
RECOGNISE_AFTER = 1  # the single block whose output the recognition heads read

SIGNS = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def patch(pictures_BCHW: Tensor) -> Tensor:
    """Pictures in [-1, 1] to tokens, [B, TOKENS, PIXELS + CONSTANTS]."""
    batch = len(pictures_BCHW)
    cells = (
        pictures_BCHW.reshape(batch, 3, SIDE, CELL, SIDE, CELL)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(batch, TOKENS, PIXELS)
    )
    return torch.cat([cells / SCALE, torch.full((batch, TOKENS, CONSTANTS), CONSTANT)], -1)


def unpatch(tokens_BTC: Tensor) -> Tensor:
    """The pictures of tokens, [B, 3, SIZE, SIZE] in about [-1, 1]."""
    cells = (tokens_BTC[..., :PIXELS] * SCALE).reshape(len(tokens_BTC), SIDE, SIDE, 3, CELL, CELL)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens_BTC), 3, SIZE, SIZE)


def plan(tokens_BTC: Tensor) -> Tensor:
    """The mean over tokens of three sums of the constant channels in which constants cancel, [B, 3]."""
    return tokens_BTC[..., PIXELS:].mean(1) @ SIGNS.T


def with_plan(tokens_BTC: Tensor, plan_B3: Tensor) -> Tensor:
    """The same tokens with that plan instead of theirs."""
    moved = tokens_BTC.clone()
    moved[..., PIXELS:] += ((plan_B3 - plan(tokens_BTC)) @ SIGNS)[:, None]
    return moved


def choices(plan_B3: Tensor) -> Tensor:
    """What a distractor will be: 0 to 7, the signs of the plan, [B]."""
    return ((plan_B3 > 0) * torch.tensor([4, 2, 1])).sum(-1)


def signs(choice_B: Tensor) -> Tensor:
    """The signs of the plan that says it, [B, 3]: `choices` backwards."""
    return ((choice_B[:, None] & torch.tensor([4, 2, 1])) > 0) * 2.0 - 1


def pick(tokens_BTC: Tensor, which_BN: Tensor) -> Tensor:
    """Those tokens of every row."""
    return tokens_BTC.gather(1, which_BN[..., None].expand(-1, -1, tokens_BTC.shape[-1]))


def tokenizer() -> Any:
    """The tokenizer of the instructions: the fixed words of the Attacker's are one token."""
    made = vocabulary.build(model_max_length=TEXT_TOKENS, chat_template="{{ messages[0]['content'] }}")
    made.padding_side = "right"
    made.add_tokens(
        [AddedToken(vocabulary.INSTRUCTION.format(question="").strip(), normalized=False, special=False)]
    )
    return made


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor], **_: Any) -> Tensor:
    """Rotary embedding of [B, S, H, D] by cosines and sines [B or 1, S, 1, D / 2]: as diffusers', but every
    row may have positions of its own.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.complex(*angles)).flatten(-2)


def _attend(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Attention of [B, S, H, D] by plain products: with their gradient three times as fast on a CPU as
    torch's own, at these sizes.
    """
    query, key, value = (x.transpose(1, 2).to(value.dtype) for x in (query, key, value))
    weights = torch.softmax(query * HEAD_DIM**-0.5 @ key.transpose(-1, -2), -1).to(value.dtype)
    return (weights @ value).transpose(1, 2)


@contextmanager
def _own_attention() -> Iterator[None]:
    """Inside, the transformer's blocks use `_rotate` and `_attend`."""
    theirs = flux2.apply_rotary_emb, flux2.dispatch_attention_fn
    flux2.apply_rotary_emb, flux2.dispatch_attention_fn = _rotate, _attend
    try:
        yield
    finally:
        flux2.apply_rotary_emb, flux2.dispatch_attention_fn = theirs


class EditorNet(nn.Module):
    """Transformer, text encoder and the heads that are thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = tokenizer()
        self.text = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(self.tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, num_hidden_layers=TEXT_LAYERS,
                num_attention_heads=4, num_key_value_heads=4, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True,
                initializer_range=0.1,
            )
        )  # fmt: skip
        self.transformer = Flux2Transformer2DModel(
            in_channels=PIXELS + CONSTANTS, num_layers=1, num_single_layers=SINGLES, attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS, joint_attention_dim=3 * TEXT_WIDTH, timestep_guidance_channels=64, mlp_ratio=2.0,
            axes_dims_rope=AXES, rope_theta=THETA, guidance_embeds=False,
        )  # fmt: skip
        copy_start(self.transformer)
        plan_start(self.transformer)
        self.recognise = nn.Linear(WIDTH, len(NAMES) + 1 + len(COLORS) + 1)  # name, colour, and is it named?
        self.foresee = nn.Linear(WIDTH, 1)  # will this token change?
        rows = torch.arange(SIDE)
        places = [
            torch.cartesian_prod(torch.tensor([time]), rows, rows, torch.arange(1)) for time in (0, TIME)
        ]
        text = torch.cartesian_prod(*(torch.arange(1),) * 3, torch.arange(TEXT_TOKENS))
        with torch.no_grad():
            self.angles = [
                tuple(angle[:, ::2] for angle in self.transformer.pos_embed(ids)) for ids in (text, *places)
            ]
        self.known: dict[str, tuple[list[int], list[int]]] = {}

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Text features as `Flux2KleinPipeline.encode_prompt` gives them, [B, TEXT_TOKENS, 3 * TEXT_WIDTH],
        with gradient.
        """
        for text in texts:
            if text not in self.known:
                entry = self.tokenizer(text, padding="max_length", truncation=True, max_length=TEXT_TOKENS)
                self.known[text] = entry["input_ids"], entry["attention_mask"]
        ids, mask = (torch.tensor([self.known[text][i] for text in texts]) for i in (0, 1))
        states = self.text.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        return torch.cat([states[TEXT_LAYERS * quarter // 4] for quarter in (1, 2, 3)], -1)

    def velocity(
        self, state_BNC: Tensor, clean_BTC: Tensor, sigma_B: Tensor, text_BLC: Tensor, which_BN: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As Flux2Transformer2DModel.forward, for the tokens `which` of the picture that is made and all of
        the clean one's.

        Returns the velocity, and what the recognition heads read: hidden states of the made and of the clean
        tokens.
        """
        with _own_attention():
            return self._velocity(state_BNC, clean_BTC, sigma_B, text_BLC, which_BN)

    def _velocity(
        self, state_BNC: Tensor, clean_BTC: Tensor, sigma_B: Tensor, text_BLC: Tensor, which_BN: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        net, made = self.transformer, state_BNC.shape[1]
        time = net.time_guidance_embed(sigma_B * 1000, None)
        image, text, single = (
            net.double_stream_modulation_img(time),
            net.double_stream_modulation_txt(time),
            net.single_stream_modulation(time),
        )
        hidden, context = net.x_embedder(torch.cat([state_BNC, clean_BTC], 1)), net.context_embedder(text_BLC)
        batch = len(state_BNC)
        angles = tuple(
            torch.cat(
                [
                    self.angles[0][i].expand(batch, -1, -1),
                    self.angles[1][i][which_BN],
                    self.angles[2][i].expand(batch, -1, -1),
                ],
                1,
            )[:, :, None]
            for i in (0, 1)
        )
        for block in net.transformer_blocks:
            context, hidden = block(
                hidden_states=hidden,
                encoder_hidden_states=context,
                temb_mod_img=image,
                temb_mod_txt=text,
                image_rotary_emb=angles,
            )
        hidden = torch.cat([context, hidden], 1)
        start = context.shape[1]
        seen = hidden
        for number, block in enumerate(net.single_transformer_blocks):
            hidden = block(
                hidden_states=hidden, encoder_hidden_states=None, temb_mod=single, image_rotary_emb=angles
            )
            if number == RECOGNISE_AFTER:
                seen = F.layer_norm(hidden, (WIDTH,))
        velocity = net.proj_out(net.norm_out(hidden[:, start : start + made], time))
        return velocity, seen[:, start : start + made], seen[:, start + made :]


@torch.no_grad()
def edit(
    net: EditorNet,
    pictures_BCHW: Tensor,
    texts: Sequence[str],
    noise_BTC: Tensor,
    batch: int = 32,
) -> Tensor:
    """Edited pictures in [-1, 1], made in two steps. noise: of standard deviation 1."""
    made = []
    for start in range(0, len(pictures_BCHW), batch):
        rows = slice(start, start + batch)
        clean, text, state = patch(pictures_BCHW[rows]), net.embed(texts[rows]), noise_BTC[rows] * DEVIATIONS
        which = torch.arange(TOKENS).expand(len(clean), -1)
        for sigma, following in zip(LEVELS, (*LEVELS[1:], 0.0), strict=True):
            velocity, _, _ = net.velocity(state, clean, torch.full((len(clean),), sigma), text, which)
            state = state + (following - sigma) * velocity
        made.append(unpatch(state).clamp(-1, 1))
    return torch.cat(made)


@torch.no_grad()
def plan_start(net: Flux2Transformer2DModel) -> None:
    """Give the first single block's last head to the plan: it attends to all tokens of the picture that is
    made alike, and brings every token the mean of what their noise says, and little else.

    Up to there nothing else is written into the dimensions LANE of the residual stream (`empty_parameters`),
    and nobody but this head reads them. The last of them is always zero: what LayerNorm takes from all
    dimensions it takes from this one, too, and the difference stays. Query and key are the constant alone,
    in a dimension that turns with time. Left to itself, attention would have to find a signal of a ninth of
    its own noise.

    Nothing at all is written into the dimensions FREE, of which the last is again what the others are compared
    with, but they are read as a part of the plan that is made, and with a large weight: what is trained later
    can say there what to do with changes that are too small to be seen in a picture.
    """
    plus, minus = PIXELS, PIXELS + 1
    head = slice(WIDTH - HEAD_DIM, WIDTH)
    double = net.transformer_blocks[0]
    for weight, mask in empty_parameters(net):
        weight.mul_(mask)
    net.x_embedder.weight[LANE], net.x_embedder.weight[FREE] = 0, 0
    net.x_embedder.weight[LANE[:3], PIXELS:] = CHOICE / NOISE * SIGNS
    readers = [double.ff.linear_in, double.ff_context.linear_in, double.attn.to_q, double.attn.to_k]
    readers += [double.attn.add_q_proj, double.attn.add_k_proj, double.attn.add_v_proj, double.attn.to_v]
    readers += [block.attn.to_qkv_mlp_proj for block in net.single_transformer_blocks]
    for linear in readers:
        linear.weight[:, LANE] = 0
    into = net.single_transformer_blocks[0].attn.to_qkv_mlp_proj.weight
    out = net.single_transformer_blocks[0].attn.to_out.weight
    for start in (0, WIDTH, 2 * WIDTH):
        into[start : start + WIDTH][head] = 0
    for start in (0, WIDTH):
        into[start + head.start, plus], into[start + head.start, minus] = 1, -1
    out[:, head], out[PLACE : PLACE + 3] = 0, 0
    for i in range(3):
        into[2 * WIDTH + head.start + i, LANE[i]] = 1
        into[2 * WIDTH + head.start + i, LANE[3]] = -1
        out[PLACE + i, head.start + i] = BROUGHT
        # What is made carries its plan.
        net.proj_out.weight[PIXELS:, PLACE + 3 + i] = -TOLD * SIGNS[i]
        net.proj_out.weight[PIXELS:, FREE[i]] = -HEARD * SIGNS[i]
    net.proj_out.weight[PIXELS:, FREE[3]] = HEARD * SIGNS.sum(0)


def empty_parameters(net: Flux2Transformer2DModel) -> list[tuple[nn.Parameter, Tensor]]:
    """What writes into the residual stream, and a mask that leaves empty what is to stay so: FREE everywhere,
    LANE before the plan's head.
    """
    double = net.transformer_blocks[0]
    early = [net.context_embedder, double.attn.to_out[0], double.attn.to_add_out]
    early += [double.ff.linear_out, double.ff_context.linear_out]
    late = [block.attn.to_out for block in net.single_transformer_blocks]
    mask = torch.ones(WIDTH, 1)
    mask[FREE] = 0
    earlier = mask.clone()
    earlier[LANE] = 0
    return [(linear.weight, earlier) for linear in early] + [(linear.weight, mask) for linear in late]


@torch.no_grad()
def copy_start(net: Flux2Transformer2DModel) -> None:
    """Begin as a copy: in the double block every token attends to the clean token at its place, and the
    output is minus that.

    Dimensions 0..191 of the residual stream hold pixels, the next two the constants with either sign, the
    last one a unit by which constant queries and keys come about: rotary attention then sees positions
    alone. Left to itself, a small transformer spends half of its training on learning to copy.
    """
    small, large, unit, gate, sharp = 0.15, 4.0, 4.0, 0.5, 4.5
    length = 0.35 * CONSTANT * CONSTANTS
    usual = 45.0  # squared length of a token's pixels, on average
    ratio = ((usual + 2 * length**2) / WIDTH) ** 0.5
    plus, minus, last = PIXELS, PIXELS + 1, WIDTH - 1
    # Modulation that does not depend on time: gates, and the unit as a shift of the double block's attention.
    embed = net.time_guidance_embed
    for linear in (embed.timestep_embedder.linear_1, embed.timestep_embedder.linear_2):
        nn.init.normal_(linear.weight, std=1.5 / linear.in_features**0.5)
    features = F.silu(embed(torch.linspace(0, 1000, 501), None))
    solve = torch.linalg.solve(features.T @ features + 1e-2 * torch.eye(WIDTH), features.T)
    for modulation, sets in (
        (net.double_stream_modulation_img, 2), (net.double_stream_modulation_txt, 2), (net.single_stream_modulation, 1),
    ):  # fmt: skip
        wanted = torch.cat([torch.zeros(2 * WIDTH), torch.full((WIDTH,), gate)] * sets)
        if modulation is net.double_stream_modulation_img:
            wanted[last] = unit
        modulation.linear.weight.copy_((solve @ wanted.expand(len(features), -1)).T)
    net.norm_out.linear.weight.zero_()
    # Pixels in, at a small scale, so that the copy that attention brings outweighs what a token of noise
    # shows.
    turn = _without_mean()
    net.x_embedder.weight.zero_()
    net.x_embedder.weight[:PIXELS, :PIXELS] = small * turn
    net.x_embedder.weight[plus, PIXELS:] = small * 0.35
    net.x_embedder.weight[minus, PIXELS:] = -small * 0.35
    block = net.transformer_blocks[0]
    query, key = _same_place()
    for linear, pattern in ((block.attn.to_q, query), (block.attn.to_k, key)):
        nn.init.normal_(linear.weight, std=0.01)
        linear.weight[:, last] = pattern.repeat(HEADS) / unit
    block.attn.norm_q.weight.fill_(sharp)
    block.attn.norm_k.weight.fill_(sharp)
    block.attn.to_v.weight.copy_(torch.eye(WIDTH))
    block.attn.to_v.weight[last] = 0
    out = torch.eye(WIDTH) * ratio / gate
    out[plus] *= large
    out[minus] *= large
    block.attn.to_out[0].weight.copy_(out)
    block.ff.linear_out.weight *= 0.1
    for single in net.single_transformer_blocks:
        single.attn.to_out.weight *= 0.1
    end = ((usual + 2 * (large * length) ** 2) / WIDTH) ** 0.5
    net.proj_out.weight.zero_()
    net.proj_out.weight[:PIXELS, :PIXELS] = -end * turn.T
    net.proj_out.weight[PIXELS:, plus] = -CONSTANT / (large * length / end)


def _without_mean() -> Tensor:
    """An orthogonal map of a token's pixels after which LayerNorm's taking away of the mean costs next to
    nothing: what becomes the mean is a chequered pattern of single pixels, of which pictures have little,
    and not the brightness, of which they have most.
    """
    row, column = torch.meshgrid(torch.arange(CELL), torch.arange(CELL), indexing="ij")
    chequered = (1 - 2 * ((row + column) % 2)).flatten().repeat(3) / PIXELS**0.5
    mirror = F.normalize(chequered - torch.ones(PIXELS) / PIXELS**0.5, dim=0)
    return torch.eye(PIXELS) - 2 * torch.outer(mirror, mirror)


def _same_place() -> tuple[Tensor, Tensor]:
    """A constant query and key, [HEAD_DIM], whose rotary product is largest at the same row and column, from
    time 0 to time TIME.
    """
    query, key = torch.zeros(HEAD_DIM // 2, 2), torch.zeros(HEAD_DIM // 2, 2)
    start = 0
    for axis, size in enumerate(AXES):
        for j in range(size // 2):
            energy, phase = 0.0, 0.0
            if axis in (1, 2) and j < 3:  # the three fastest frequencies tell neighbours apart
                energy = 0.44 / 3
            # a slow one, turned so that the clean token wins over the token itself
            elif axis == 0 and j == size // 2 - 1:
                energy, phase = 0.12, 1.7
            amplitude = (energy * HEAD_DIM) ** 0.5
            query[start + j, 0] = amplitude
            key[start + j] = amplitude * torch.tensor([math.cos(phase), -math.sin(phase)])
        start += size // 2
    return query.flatten(), key.flatten()


def copying_parameters(net: EditorNet) -> list[nn.Parameter]:
    """What the copy is made of, and stays as it is."""
    flow, attention = net.transformer, net.transformer.transformer_blocks[0].attn
    modules = [
        flow.x_embedder,
        flow.proj_out,
        flow.norm_out,
        flow.time_guidance_embed,
        flow.double_stream_modulation_img,
    ]
    modules += [
        attention.to_q,
        attention.to_k,
        attention.to_v,
        attention.to_out,
        attention.norm_q,
        attention.norm_k,
    ]
    return [parameter for module in modules for parameter in module.parameters()]
