"""An `AutoencoderKLFlux2` whose weights are set, not trained: pixels to channels and back, and nothing lost.

A latent cell holds the 4 x 4 x 3 pixels under it in 48 channels (colour, row, column) and the number 1 in one
more. How an ordinary convolutional autoencoder is made to do so:

* **Group norm** (one group). Every normed layer has a channel of the value DOMINANT everywhere, so that the
  variance hardly depends on the picture. Weight and bias are the standard deviation and the mean of a grey
  picture, plus LINEAR. What another picture moves, it moves in every channel alike: each reading is a
  difference to a channel of zeros.
* **SiLU** is the identity for x + LINEAR, and zero for x + LINEAR - OFF: a gate.
* **Down** is a strided convolution that moves 2 x 2 pixels to channels.
* **Up** is harder: nearest upsampling followed by a convolution treats both rows of a cell alike. But a
  convolution knows where the border is, since it pads with zeros. Ramps grow from the four borders, one cell
  a convolution, until the ramps of opposite borders meet. Then every cell is higher than the one before it by
  1 at least: after upsampling, the rise over the row above is 0 in odd rows and 1 or more in even ones, and
  gates choose between the two halves of the channels, first by rows, then by columns.

Beyond the size that an autoencoder was built for, ramps are flat in the middle, and pixels there are wrong.
Half precision is not enough: the large numbers would swallow the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor, nn

COLOURS = 3
CELL = 4  # pixels along a side of a latent cell
TOKEN = 8  # pixels along a side of a packed token: 2 x 2 cells
PIXELS = COLOURS * CELL * CELL  # channels of a cell that hold pixels
PACKED = 4  # cells in a token, and so the constant channels of a token

DOMINANT = 1e6
LINEAR = 14.0  # TensorFloat-32 is finer below 16; far enough above zero for SiLU to be the identity to 1e-5
OFF = 60.0  # far more than LINEAR and the largest difference of two pixels
ZERO_CHANNEL, DOMINANT_CHANNEL = -2, -1
# For each ramp (row, column) to the neighbour nearer to its border.
BORDERS = ((-1, 0), (1, 0), (0, -1), (0, 1))
HERE, ABOVE, BEFORE = (0, 0), (-1, 0), (0, -1)


def packed_order() -> Tensor:
    """Indices [196]: where a packed token's channels stand in one of [colour, row, column], 4 constants.

    `packed_BTC = row_major_BTC[..., packed_order()]`, up to the scale of the noise.
    """
    pixels = torch.arange(COLOURS * TOKEN * TOKEN).reshape(COLOURS, 2, CELL, 2, CELL)
    constants = torch.arange(PACKED) + pixels.numel()
    return torch.cat([pixels.permute(0, 2, 4, 1, 3).flatten(), constants])


@torch.no_grad()
def build(
    size: int, *, scale: float = 0.45, noise: tuple[float, float] = (0.03, 0.06), constant: float = 6
) -> AutoencoderKLFlux2:
    """The autoencoder for pictures in [-1, 1] of at most `size` x `size` pixels, sides in multiples of 8.

    Its batch-norm statistics turn packed latents into tokens of 192 numbers, pixels / (scale * noise[0]), and 4
    of value constant / noise[1]: in units of a noise of these standard deviations on pixels / scale and on
    the constant. The weights are the same at every call.
    Raises ValueError for a size that is no multiple of 8.
    """
    if size < TOKEN or size % TOKEN:
        raise ValueError(f"an autoencoder for {size} x {size} pixels: the size must be a multiple of {TOKEN}")
    cells = size // CELL
    layers = max(1, math.ceil((cells - 3) / 4) - 3)  # reach >= (cells - 1) / 2: ramps meet
    reach = 1 + 2 * (layers + 3)  # cells that a ramp rises over: 1 in conv_in, 2 a residual block
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(COLOURS * 4, PIXELS + 2, PIXELS + 2),
        decoder_block_out_channels=(PIXELS // 8 + 4, PIXELS // 2 + 5, PIXELS + 6),
        latent_channels=PIXELS + 1, layers_per_block=layers, norm_num_groups=1, mid_block_add_attention=False,
        sample_size=size, batch_norm_eps=1e-8,
    )  # fmt: skip
    for parameter in vae.parameters():
        parameter.zero_()
    _set_encoder(vae)
    _set_decoder(vae, reach)
    _set_statistics(vae, scale * noise[0], noise[1] / constant)
    vae.eval()
    _calibrate(vae, torch.zeros(1, COLOURS, size, size))
    return vae


def _set_encoder(vae: AutoencoderKLFlux2) -> None:
    encoder = vae.encoder
    halves, quarters = (encoder.down_blocks[i].downsamplers[0].conv for i in (0, 1))
    for colour in range(COLOURS):
        _tap(encoder.conv_in, colour, colour)
    place = torch.arange(PIXELS).reshape(COLOURS, CELL, CELL)
    inner = torch.arange(COLOURS * 4).reshape(COLOURS, 2, 2)  # channels after the first of two halvings
    for c in range(COLOURS):
        for y in range(CELL):
            for x in range(CELL):
                # Padded on the right and below only: a kernel's first 2 x 2 weights are the cell.
                halves.weight[inner[c, y % 2, x % 2], c, y % 2, x % 2] = 1
                quarters.weight[place[c, y, x], inner[c, y % 2, x % 2], y // 2, x // 2] = 1
    quarters.bias[DOMINANT_CHANNEL] = DOMINANT
    _keep(encoder.down_blocks[1].resnets[0].conv_shortcut, range(COLOURS * 4))
    for channel in range(PIXELS):
        _read(encoder.conv_out, channel, channel)
    encoder.conv_out.bias[PIXELS] = 1
    encoder.conv_out.bias[PIXELS + 1 :] = -30  # log-variances
    for channel in range(2 * PIXELS + 2):
        _tap(vae.quant_conv, channel, channel)


def _set_decoder(vae: AutoencoderKLFlux2, reach: int) -> None:
    decoder = vae.decoder
    ramps = range(PIXELS, PIXELS + 4)
    for channel in range(PIXELS):
        _tap(vae.post_quant_conv, channel, channel)
        _tap(decoder.conv_in, channel, channel)
    vae.post_quant_conv.bias[PIXELS] = 1  # not the latent 1, which an editor may have drawn
    for ramp, towards in zip(ramps, BORDERS, strict=True):
        _tap(decoder.conv_in, ramp, PIXELS, at=towards)
    decoder.conv_in.bias[DOMINANT_CHANNEL] = DOMINANT
    for resnet in (*decoder.mid_block.resnets, *decoder.up_blocks[0].resnets):
        _grow(resnet, ramps)

    # Heights as (channel, weight) terms: a ramp minus the opposite, plus what makes the first cell 1 high.
    offset = (DOMINANT_CHANNEL, (reach + 1) / DOMINANT)
    heights = [[(ramps[i], 1.0), (ramps[i + 1], -1.0), offset] for i in (0, 2)]
    places = torch.arange(PIXELS).reshape(COLOURS, CELL, CELL)  # which channel holds which pixel of a cell
    for level, half in ((0, 2), (1, 1)):
        _upsample(decoder.up_blocks[level].upsamplers[0].conv, places, heights)
        count = places.numel()
        places = torch.arange(count).reshape(COLOURS, 2 * half, 2 * half)
        rows, columns = decoder.up_blocks[level + 1].resnets[:2]
        _choose(rows, places[:, :half], places[:, half:], rise=count)
        # What the columns need: their rise, and the finer heights if there is another level.
        kept = range(count + 1, count + (4 if level == 0 else 2))
        _keep(rows.conv_shortcut, [*places[:, :half].flatten().tolist(), *kept])
        rows.conv_shortcut.bias[DOMINANT_CHANNEL] = DOMINANT
        count //= 2
        places = torch.arange(count).reshape(COLOURS, half, 2 * half)
        _choose(columns, places[:, :, :half], places[:, :, half:], rise=count)
        places = places[:, :, :half]
        heights = [[(count + 1, 1.0)], [(count + 2, 1.0)]]
    for colour, channel in enumerate(places.flatten().tolist()):
        _read(decoder.conv_out, colour, channel)


def _set_statistics(vae: AutoencoderKLFlux2, pixel: float, constant: float) -> None:
    """What packed latents are divided by; the four cells of a token follow each other in every channel."""
    vae.bn.running_mean.zero_()
    vae.bn.running_var[: PACKED * PIXELS] = pixel**2 - vae.bn.eps
    vae.bn.running_var[PACKED * PIXELS :] = constant**2 - vae.bn.eps


def _tap(conv: nn.Conv2d, to: int, channel: int, weight: float = 1, at: tuple[int, int] = HERE) -> None:
    """Add `weight` times an input channel at a neighbour (row, column) to an output channel."""
    centre = conv.kernel_size[0] // 2
    conv.weight[to, channel, centre + at[0], centre + at[1]] += weight


def _read(conv: nn.Conv2d, to: int, channel: int, weight: float = 1, at: tuple[int, int] = HERE) -> None:
    """`_tap` behind a group norm and SiLU: without what they added to every channel."""
    _tap(conv, to, channel, weight, at)
    _tap(conv, to, ZERO_CHANNEL, -weight, at)


def _keep(shortcut: nn.Conv2d, channels: Sequence[int]) -> None:
    for to, channel in enumerate(channels):
        _tap(shortcut, to, channel)


def _grow(resnet: nn.Module, ramps: Sequence[int]) -> None:
    """Two steps of ramp = (ramp + 1) of the neighbour towards the border, 0 beyond it."""
    resnet.conv1.bias[DOMINANT_CHANNEL] = DOMINANT
    for k, (ramp, towards) in enumerate(zip(ramps, BORDERS, strict=True)):
        stepped, before = 2 * k, 2 * k + 1
        _read(resnet.conv1, stepped, ramp, at=towards)
        _read(resnet.conv1, stepped, DOMINANT_CHANNEL, 1 / DOMINANT, at=towards)
        _read(resnet.conv1, before, ramp)
        _read(resnet.conv2, ramp, stepped, at=towards)
        _read(resnet.conv2, ramp, DOMINANT_CHANNEL, 1 / DOMINANT, at=towards)
        _read(resnet.conv2, ramp, before, -1)  # the residual branch replaces what the block adds it to


def _upsample(conv: nn.Conv2d, places: Tensor, heights: Sequence[Sequence[tuple[int, float]]]) -> None:
    """After nearest upsampling: channels of pixels, rises of rows and columns, finer heights of both."""
    count = places.numel()
    for to, channel in enumerate(places.flatten().tolist()):
        _tap(conv, to, channel)
    for axis, (terms, neighbour) in enumerate(zip(heights, (ABOVE, BEFORE), strict=True)):
        rise, finer = count + axis, count + 2 + axis
        for channel, weight in terms:
            _tap(conv, rise, channel, weight)
            _tap(conv, rise, channel, -weight, at=neighbour)
            # Twice the height in odd rows; in even ones midway between that and the row above.
            _tap(conv, finer, channel, weight)
            _tap(conv, finer, channel, weight, at=neighbour)
    conv.bias[DOMINANT_CHANNEL] = DOMINANT


def _choose(resnet: nn.Module, even: Tensor, odd: Tensor, rise: int) -> None:
    """Where `rise` is 0, replace the channels `even` by the channels `odd`.

    With a shortcut, the block's output has the chosen channels first; without, they stay where `even` is.
    """
    gate = even.numel()
    resnet.conv1.bias[DOMINANT_CHANNEL] = DOMINANT
    _read(resnet.conv1, gate, rise, -OFF)
    _read(resnet.conv1, gate + 1, rise, OFF * (gate + 1))  # keeps the mean, whatever the size
    for k, (first, second) in enumerate(zip(even.flatten().tolist(), odd.flatten().tolist(), strict=True)):
        _read(resnet.conv1, k, second)
        _read(resnet.conv1, k, first, -1)
        _read(resnet.conv1, k, rise, -OFF)
        to = first if resnet.conv_shortcut is None else k
        _tap(resnet.conv2, to, k)
        _tap(resnet.conv2, to, gate, -1)


def _calibrate(vae: AutoencoderKLFlux2, pixels_BCHW: Tensor) -> None:
    """Set every group norm, in the order in which they work, to add just LINEAR, for this picture."""

    def fit(norm: nn.GroupNorm, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0].double(), correction=0)
        norm.weight.fill_((variance + norm.eps).sqrt().item())
        norm.bias.fill_(mean.item() + LINEAR)

    handles = [m.register_forward_pre_hook(fit) for m in vae.modules() if isinstance(m, nn.GroupNorm)]
    vae.decode(vae.encode(pixels_BCHW).latent_dist.mode())
    for handle in handles:
        handle.remove()
