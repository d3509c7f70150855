"""What makes an image editor playable: one interface over the flow-matching families of diffusers.

Conventions (rectified flow): x_sigma = (1 - sigma) x0 + sigma eps, velocity v = eps - x0, sigma runs from 1
(noise) to 0 (picture). Letters: B rows of a batch, T packed latent tokens of the edited picture, C channels
of a token, H and W pixels.

Sizes: an edited picture has the size of its input picture. Families work on multiples of some number of
pixels: a picture that is not such a multiple is padded on the right and at the bottom by repeating its edge,
and the padding is cut off after decoding. Nothing is scaled: which part of a large picture an editor is
given, and at which size, is chosen in `attackers.crops`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor
from torch.nn import functional

from sparring.data.errors import ModelError
from sparring.models.editors.conditions import Conditions, unique
from sparring.models.editors.weights import EditorWeights
from sparring.models.private import linear_shift


class FlowEditor(EditorWeights, ABC):
    """An image editor whose transformer predicts the velocity of a rectified flow.

    embedded_guidance: the guidance scale that a guidance-distilled transformer (FLUX.1-Kontext) takes as an
    input; others take none.
    """

    pipeline_class: ClassVar[Any]
    no_instruction: ClassVar[str] = ""
    embedded_guidance: float = 2.5

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype | str = torch.float32,
        device: torch.device | str = "cpu",
        offload: bool = False,
    ) -> Self:
        """Load a pipeline folder or hub id of this family; for `offload` see `weights`. Raises ModelError
        when it cannot be loaded.
        """
        number_type = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        components = cls._components(path)
        try:
            pipeline = cls.pipeline_class.from_pretrained(
                str(path), dtype=number_type, use_safetensors=True, **components
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"editor {path}: not a readable {cls.pipeline_class.__name__} with safetensors weights: "
                f"{error}"
            ) from error
        return cls(pipeline, device=device, offload=offload)

    @classmethod
    def _components(cls, path: str | Path) -> dict[str, Any]:
        """Parts of the pipeline that are loaded in another way than diffusers' own."""
        return {}

    # ---- what a family provides

    @abstractmethod
    def _encode_text(self, images: Sequence[Image], texts: Sequence[str]) -> dict[str, Tensor]:
        """Tensors of B rows, "text" among them, of (picture, text) pairs; what is repeated is read once."""

    @abstractmethod
    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        """Packed clean latents_BTC (float32) of pixels in [-1, 1] whose sides are multiples of `multiple`."""

    @abstractmethod
    def _decode_latents(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pixels_BCHW in [-1, 1] of packed clean latents."""

    @abstractmethod
    def _positions(self, grid: tuple[int, int]) -> Any:
        """Where the tokens lie, of the edited picture and then of the input's, as the family's transformer is
        told.
        """

    @abstractmethod
    def _predict(
        self, state_BSC: Tensor, sigma_B: Tensor, texts: dict[str, Tensor], positions: Any
    ) -> Tensor:
        """The transformer's output for tokens of the edited picture followed by the input's, under what
        `_encode_text` gave.
        """

    @abstractmethod
    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        """Packed tokens_BTC of a latent picture as the official pipeline draws its noise."""

    @abstractmethod
    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Shape of one row of noise as the official pipeline draws it."""

    @abstractmethod
    def _shift(self, steps: int, tokens: int) -> float:
        """mu of the scheduler's dynamic shifting, as the official pipeline computes it."""

    def _guide(self, v_BTC: Tensor, negative_BTC: Tensor, scale: float) -> Tensor:
        """True classifier-free guidance: away from what the transformer makes of `no_instruction`."""
        return negative_BTC + scale * (v_BTC - negative_BTC)

    @property
    def takes_guidance(self) -> bool:
        """False where the official pipeline ignores classifier-free guidance."""
        return True

    @property
    def step_distilled(self) -> bool:
        """True where the checkpoint says that it was distilled to few steps; its velocities are no flow."""
        return False

    # ---- shared by all families

    @property
    def multiple(self) -> int:
        """Pixels of one packed latent token's side: the VAE's factor times the 2 x 2 packing."""
        return int(self.pipeline.vae_scale_factor) * 2

    @torch.no_grad()
    def encode(
        self, images: Sequence[Image], instructions: Sequence[str], guidance_scale: float = 1.0
    ) -> Conditions:
        """Encode B pictures of one size with their instructions. A repeated picture or text is encoded once.

        guidance_scale: of true classifier-free guidance; 1 is off.
        """
        if not images or len(images) != len(instructions):
            raise ModelError(
                f"{len(images)} pictures and {len(instructions)} instructions: there must be as many, and at "
                f"least one"
            )
        pictures, places = unique(images, id)
        pixels_BCHW = self.pixels(pictures)
        with self._at_work("vae"):
            tensors = {"image": self._encode_pixels(pixels_BCHW)[places]}
        with self._at_work(*self.text_encoders):
            tensors |= self._encode_text(images, instructions)
            if guidance_scale > 1 and self.takes_guidance:
                negative = self._encode_text(images, [self.no_instruction] * len(instructions))
                tensors |= {f"negative_{name}": tensor for name, tensor in negative.items()}
        grid = (pixels_BCHW.shape[2] // self.multiple, pixels_BCHW.shape[3] // self.multiple)
        return Conditions(tensors, images[0].height, images[0].width, grid, guidance_scale)

    def velocity(self, latents_BTC: Tensor, sigma: float | Tensor, conditions: Conditions) -> Tensor:
        """v_BTC (float32) at noise level sigma in [0, 1] (a number, or one for every row), guidance included.
        Differentiable.
        """
        return self.velocity_at(latents_BTC, sigma, conditions, self._positions(conditions.grid))

    def velocity_at(
        self, latents_BTC: Tensor, sigma: float | Tensor, conditions: Conditions, positions: Any
    ) -> Tensor:
        """The velocity of tokens at these positions, of the edited picture and then of the input's: all, or a
        part of the picture.
        """
        tokens = latents_BTC.shape[1]
        state_BSC = torch.cat([latents_BTC, conditions.tensors["image"]], dim=1).to(self.transformer.dtype)
        sigma_B = torch.as_tensor(sigma, dtype=torch.float32, device=self.device).expand(latents_BTC.shape[0])
        negative = {
            name.removeprefix("negative_"): t
            for name, t in conditions.tensors.items()
            if name.startswith("negative_")
        }
        v_BTC, *negative_BTC = (
            torch.as_tensor(self._predict(state_BSC, sigma_B, texts, positions)[:, :tokens]).float()
            for texts in (conditions.tensors, negative)
            if texts
        )
        return self._guide(v_BTC, negative_BTC[0], conditions.guidance_scale) if negative_BTC else v_BTC

    @torch.no_grad()
    def decode(self, latents_BTC: Tensor, conditions: Conditions) -> Tensor:
        """images_BCHW in [0, 1], float32, of packed clean latents."""
        with self._at_work("vae"):
            return self._finish(self._decode_latents(latents_BTC, conditions.grid), conditions)

    def noise(self, conditions: Conditions, seeds: Sequence[int]) -> Tensor:
        """latents_BTC float32 at sigma 1. One generator for every row: a row's noise depends on its own seed
        only.
        """
        if len(seeds) != conditions.batch:
            raise ModelError(
                f"{len(seeds)} seeds for {conditions.batch} rows of conditions: give one seed for every row"
            )
        shape = self._noise_shape(conditions.grid)
        rows = [
            torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)
            for seed in seeds
        ]
        return self._pack(torch.cat(rows)).to(self.device)

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """sigmas [steps + 1] float32, from about 1 down to 0: what the official pipeline's scheduler uses at
        this size.

        Raises ModelError where the scheduler has no schedule of so few steps.
        """
        scheduler = self.pipeline.scheduler
        levels = (
            None if scheduler.config.get("use_flow_sigmas", False) else np.linspace(1.0, 1 / steps, steps)
        )
        mu = self._shift(steps, math.prod(conditions.grid))
        if levels is None:
            scheduler.set_timesteps(steps, mu=mu)
        else:
            scheduler.set_timesteps(sigmas=levels, mu=mu)
        if not bool(scheduler.sigmas.isfinite().all()):
            raise ModelError(f"the editor's scheduler has no schedule of {steps} steps: use more steps")
        return torch.as_tensor(scheduler.sigmas).clone().to(device=self.device, dtype=torch.float32)

    @torch.no_grad()
    def clean_latents(self, images: Sequence[Image], conditions: Conditions) -> Tensor:
        """x0_BTC float32 of the given pictures, in the space that `velocity` lives in. They must have the
        conditions' size.
        """
        pixels_BCHW = self.pixels(images)
        if any((image.height, image.width) != (conditions.height, conditions.width) for image in images):
            sizes = sorted({image.size for image in images})
            raise ModelError(
                f"pictures of {sizes} pixels do not fit conditions of {conditions.width} x "
                f"{conditions.height}: both must have one size"
            )
        with self._at_work("vae"):
            return self._encode_pixels(pixels_BCHW)

    @torch.no_grad()
    def reencode(self, images: Sequence[Image]) -> Tensor:
        """images_BCHW in [0, 1]: the round trip through the VAE alone. The pictures must have one size."""
        pixels_BCHW = self.pixels(images)
        grid = (pixels_BCHW.shape[2] // self.multiple, pixels_BCHW.shape[3] // self.multiple)
        conditions = Conditions({}, images[0].height, images[0].width, grid)
        with self._at_work("vae"):
            latents_BTC = self._encode_pixels(pixels_BCHW)
        return self.decode(latents_BTC, conditions)

    def inner_size(self, image: Image) -> tuple[int, int]:
        """(width, height) at which a picture is worked on: see the module's note on sizes."""
        return math.ceil(image.width / self.multiple) * self.multiple, math.ceil(
            image.height / self.multiple
        ) * self.multiple

    def fit(self, image: Image) -> Image:
        """The picture as RGB at its inner size: padded with its edge."""
        width, height = self.inner_size(image)
        rgb = image.convert("RGB")
        if rgb.size == (width, height):
            return rgb
        padding = ((0, height - rgb.height), (0, width - rgb.width), (0, 0))
        return fromarray(np.pad(np.asarray(rgb), padding, mode="edge"))

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """pixels_BCHW in [-1, 1] at the inner size, on the editor's device and in its dtype. The pictures
        must have one size.
        """
        sizes = sorted({image.size for image in images})
        if len(sizes) != 1:
            raise ModelError(f"one batch needs pictures of one size and got {sizes}: sort them by size first")
        array = np.stack([np.asarray(self.fit(image), dtype=np.float32) for image in images]) / 255
        return (torch.from_numpy(array).permute(0, 3, 1, 2) * 2 - 1).to(device=self.device, dtype=self.dtype)

    def _finish(self, pixels_BCHW: Tensor, conditions: Conditions) -> Tensor:
        """Decoded pixels in [-1, 1] to images in [0, 1] of the conditions' size."""
        images_BCHW = (pixels_BCHW.float() / 2 + 0.5).clamp(0, 1)
        return images_BCHW[:, :, : conditions.height, : conditions.width]


class PackedEditor(FlowEditor):
    """2 x 2 latent pixels make a token. The pipelines draw noise before they pack it."""

    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        packed_BCHW = functional.pixel_unshuffle(latents_BCHW.contiguous(), 2)
        return packed_BCHW.flatten(2).transpose(1, 2).contiguous()

    def _unpack(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        """latents_BCHW as the family's VAE takes them, in its dtype."""
        packed_BCHW = latents_BTC.transpose(1, 2).unflatten(2, grid).contiguous()
        return functional.pixel_shuffle(packed_BCHW, 2).to(self.dtype)

    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return (1, int(self.transformer.config.in_channels) // 4, grid[0] * 2, grid[1] * 2)

    def _shift(self, steps: int, tokens: int) -> float:
        return linear_shift(tokens, self.pipeline.scheduler.config)
