"""What makes an image editor playable: one interface over the flow-matching families of diffusers.

Conventions (rectified flow): x_sigma = (1 - sigma) x0 + sigma eps, velocity v = eps - x0, sigma runs from 1 (noise) to 0 (picture).
Letters: B rows of a batch, T packed latent tokens of the edited picture, C channels of a token, H and W pixels.

Sizes: an edited picture has the size of its input picture. Families work on multiples of some number of pixels: a picture that
is not such a multiple is padded on the right and at the bottom by repeating its edge, and the padding is cut off after decoding. A picture of
more than `MAX_AREA` pixels (what these models were made for) is scaled down inside and the edit scaled back up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor
from torch.nn import functional

from sparring.data.errors import ModelError

MAX_AREA = 1024 * 1024
ADAPTER = "default"
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything that is encoded once for B (image, instruction) pairs of one size.

    tensors: each with B rows. height, width: pixels of the decoded picture. grid: rows and columns of packed latent tokens.
    """

    tensors: dict[str, Tensor]
    height: int
    width: int
    grid: tuple[int, int]
    guidance_scale: float = 1.0

    @property
    def batch(self) -> int:
        """The number of rows."""
        return int(next(iter(self.tensors.values())).shape[0])

    def repeat(self, n: int) -> Conditions:
        """Each entry n times in a row: entry i becomes rows i*n to i*n + n - 1."""
        return replace(self, tensors={name: tensor.repeat_interleave(n, dim=0) for name, tensor in self.tensors.items()})

    def select(self, rows: Tensor | slice | Sequence[int]) -> Conditions:
        """The given rows, in the given order; a row may come more than once."""
        index: Any = rows if isinstance(rows, (Tensor, slice)) else torch.tensor(list(rows), dtype=torch.long)
        return replace(self, tensors={name: tensor[index] for name, tensor in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Parts of the same size, one below the other; texts of unequal length are padded with zeros (their masks too)."""
        first = parts[0]
        if any(
            (part.height, part.width, part.grid, part.guidance_scale) != (first.height, first.width, first.grid, first.guidance_scale)
            for part in parts
        ):
            raise ModelError(
                "conditions of different picture sizes or guidance scales cannot be put into one batch; sort them by size first"
            )
        tensors = {}
        for name in first.tensors:
            pieces = [part.tensors[name] for part in parts]
            length = max(piece.shape[1] for piece in pieces)
            tensors[name] = torch.cat([_pad_rows(piece, length) for piece in pieces])
        return replace(first, tensors=tensors)


def _pad_rows(piece: Tensor, length: int) -> Tensor:
    """Zeros appended along axis 1 up to `length`."""
    missing = length - piece.shape[1]
    return piece if missing == 0 else torch.cat([piece, piece.new_zeros(piece.shape[0], missing, *piece.shape[2:])], dim=1)


class FlowEditor(ABC):
    """An image editor whose transformer predicts the velocity of a rectified flow. `transformer` is what is trained."""

    pipeline_class: ClassVar[Any]
    lora_targets: ClassVar[str]

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.transformer: Any = pipeline.transformer
        for part in (pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False).eval()
        self.transformer.requires_grad_(True).eval()
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(cls, path: str | Path, *, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu") -> Self:
        """Load a pipeline folder or hub id of this family. Raises ModelError when it cannot be loaded."""
        return cls._load(path, dtype, device)

    @classmethod
    def _load(cls, path: str | Path, dtype: torch.dtype | str, device: torch.device | str, **components: Any) -> Self:
        number_type = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        try:
            pipeline = cls.pipeline_class.from_pretrained(str(path), dtype=number_type, use_safetensors=True, **components)
        except (OSError, ValueError) as error:
            raise ModelError(f"editor {path}: not a readable {cls.pipeline_class.__name__} with safetensors weights: {error}") from error
        return cls(pipeline.to(device))

    # ---- what a family provides

    @abstractmethod
    def encode(self, images: Sequence[Image], instructions: Sequence[str], guidance_scale: float = 1.0) -> Conditions:
        """Encode B pictures of one size with their instructions, without gradient. A repeated picture or text is encoded once."""

    @abstractmethod
    def velocity(self, latents_BTC: Tensor, sigma: float | Tensor, conditions: Conditions) -> Tensor:
        """v_BTC (float32) at noise level sigma in [0, 1] (a number, or one for every row), guidance included. Differentiable."""

    @abstractmethod
    def decode(self, latents_BTC: Tensor, conditions: Conditions) -> Tensor:
        """images_BCHW in [0, 1], float32, of packed clean latents, without gradient."""

    @abstractmethod
    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        """Packed clean latents_BTC (float32) of pixels in [-1, 1] whose sides are multiples of `multiple`."""

    @abstractmethod
    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        """Packed tokens_BTC of a latent picture as the official pipeline draws its noise."""

    @abstractmethod
    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Shape of one row of noise as the official pipeline draws it."""

    @abstractmethod
    def _shift(self, steps: int, tokens: int) -> float:
        """mu of the scheduler's dynamic shifting, as the official pipeline computes it."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Pixels of one packed latent token's side."""

    # ---- shared by all families

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return torch.device(self.transformer.device)

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the frozen weights."""
        dtype: torch.dtype = self.pipeline.vae.dtype
        return dtype

    def noise(self, conditions: Conditions, seeds: Sequence[int]) -> Tensor:
        """latents_BTC float32 at sigma 1. One generator for every row: a row's noise depends on its own seed only."""
        if len(seeds) != conditions.batch:
            raise ModelError(f"{len(seeds)} seeds for {conditions.batch} rows of conditions: give one seed for every row")
        shape = self._noise_shape(conditions.grid)
        rows = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32) for seed in seeds]
        return self._pack(torch.cat(rows)).to(self.device)

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """sigmas [steps + 1] float32, from about 1 down to 0: what the official pipeline's scheduler uses at this size.

        Raises ModelError where the scheduler has no schedule of so few steps.
        """
        scheduler = self.pipeline.scheduler
        levels = None if scheduler.config.get("use_flow_sigmas", False) else np.linspace(1.0, 1 / steps, steps)
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
        """x0_BTC float32 of the given pictures, in the space that `velocity` lives in. They must have the conditions' size."""
        pixels_BCHW = self.pixels(images)
        if any((image.height, image.width) != (conditions.height, conditions.width) for image in images):
            sizes = sorted({image.size for image in images})
            raise ModelError(
                f"pictures of {sizes} pixels do not fit conditions of {conditions.width} x {conditions.height}: both must have one size"
            )
        return self._encode_pixels(pixels_BCHW)

    @torch.no_grad()
    def reencode(self, images: Sequence[Image]) -> Tensor:
        """images_BCHW in [0, 1]: the round trip through the VAE alone. The pictures must have one size."""
        pixels_BCHW = self.pixels(images)
        grid = (pixels_BCHW.shape[2] // self.multiple, pixels_BCHW.shape[3] // self.multiple)
        conditions = Conditions({}, images[0].height, images[0].width, grid)
        return self.decode(self._encode_pixels(pixels_BCHW), conditions)

    def inner_size(self, image: Image) -> tuple[int, int]:
        """(width, height) at which a picture is worked on: see the module's note on sizes."""
        width, height = image.size
        if width * height <= MAX_AREA:
            return math.ceil(width / self.multiple) * self.multiple, math.ceil(height / self.multiple) * self.multiple
        scale = math.sqrt(MAX_AREA / (width * height))
        return max(1, int(width * scale) // self.multiple) * self.multiple, max(1, int(height * scale) // self.multiple) * self.multiple

    def fit(self, image: Image) -> Image:
        """The picture as RGB at its inner size: padded with its edge, or scaled down when it is too large."""
        width, height = self.inner_size(image)
        rgb = image.convert("RGB")
        if image.width * image.height > MAX_AREA:
            return rgb.resize((width, height), Resampling.LANCZOS)
        if rgb.size == (width, height):
            return rgb
        padding = ((0, height - rgb.height), (0, width - rgb.width), (0, 0))
        return fromarray(np.pad(np.asarray(rgb), padding, mode="edge"))

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """pixels_BCHW in [-1, 1] at the inner size, on the editor's device and in its dtype. The pictures must have one size."""
        sizes = sorted({image.size for image in images})
        if len(sizes) != 1:
            raise ModelError(f"one batch needs pictures of one size and got {sizes}: sort them by size first")
        array = np.stack([np.asarray(self.fit(image), dtype=np.float32) for image in images]) / 255
        return (torch.from_numpy(array).permute(0, 3, 1, 2) * 2 - 1).to(device=self.device, dtype=self.dtype)

    def _finish(self, pixels_BCHW: Tensor, conditions: Conditions) -> Tensor:
        """Decoded pixels in [-1, 1] to images in [0, 1] of the conditions' size."""
        images_BCHW = (pixels_BCHW.float() / 2 + 0.5).clamp(0, 1)
        if conditions.height * conditions.width > MAX_AREA:
            size = (conditions.height, conditions.width)
            return functional.interpolate(images_BCHW, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        return images_BCHW[:, :, : conditions.height, : conditions.width]

    def _timesteps(self, sigma: float | Tensor, batch: int) -> Tensor:
        """One sigma for every row, float32."""
        return torch.as_tensor(sigma, dtype=torch.float32, device=self.device).expand(batch)

    # ---- LoRA and checkpoints

    @property
    def has_lora(self) -> bool:
        """A LoRA is attached to the transformer."""
        return ADAPTER in getattr(self.transformer, "peft_config", {})

    def add_lora(self, rank: int, alpha: int, seed: int) -> None:
        """Attach a LoRA that changes nothing yet, and freeze the rest. Its first weights depend on `seed` alone."""
        if self.has_lora:
            raise ModelError("the editor has a LoRA already: merge_lora() or remove_lora() first")
        self.transformer.requires_grad_(False)
        self.transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=self.lora_targets), adapter_name=ADAPTER)
        generator = torch.Generator("cpu").manual_seed(seed)
        for name, parameter in sorted(self._lora_parameters().items()):
            start = torch.zeros(parameter.shape)
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
            parameter.data = start.to(self.device)

    def _lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {name: parameter for name, parameter in self.transformer.named_parameters() if ".lora_" in name}

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The LoRA's parameters by name, or all of the transformer's where no LoRA is attached."""
        return {name: parameter for name, parameter in self.transformer.named_parameters() if parameter.requires_grad}

    @contextmanager
    def lora_disabled(self) -> Iterator[None]:
        """Inside, the editor works as if its LoRA were not there."""
        if not self.has_lora:
            raise ModelError("the editor has no LoRA to disable")
        self.transformer.disable_adapters()
        try:
            yield
        finally:
            self.transformer.enable_adapters()

    def save_lora(self, folder: str | Path) -> None:
        """Write the LoRA so that plain diffusers loads it: `pipeline.load_lora_weights(folder)`."""
        if not self.has_lora:
            raise ModelError("the editor has no LoRA to save; save_pipeline() writes all weights")
        tensors = get_peft_model_state_dict(self.transformer, adapter_name=ADAPTER)
        config = self.transformer.peft_config[ADAPTER].to_dict()
        self.pipeline.save_lora_weights(folder, transformer_lora_layers=tensors, transformer_lora_adapter_metadata=config)

    def load_lora(self, folder: str | Path) -> None:
        """Attach a saved LoRA in place of the present one; it is trainable, the rest is frozen."""
        if self.has_lora:
            self.remove_lora()
        self.transformer.requires_grad_(False)
        try:
            self.pipeline.load_lora_weights(str(folder), adapter_name=ADAPTER)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: no LoRA that fits this editor: {error}") from error
        for parameter in self._lora_parameters().values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    def remove_lora(self) -> None:
        """Take the LoRA off; its weights are lost. All weights are trainable again."""
        self.transformer.unload_lora()
        self.transformer.requires_grad_(True)

    def merge_lora(self) -> None:
        """Add the LoRA into the weights for good. All weights are trainable again."""
        self.transformer.fuse_lora()
        self.remove_lora()

    def save_pipeline(self, folder: str | Path) -> None:
        """Write the whole pipeline folder, as `from_pretrained` reads it."""
        if self.has_lora:
            raise ModelError("save_pipeline() writes weights without a LoRA: merge_lora() or remove_lora() first, or save_lora()")
        self.pipeline.save_pretrained(folder, safe_serialization=True)


def unique(items: Sequence[Item], key: Callable[[Item], Hashable]) -> tuple[list[Item], list[int]]:
    """The different items in order of appearance, and for every item the place of its like among them."""
    places: dict[Hashable, int] = {}
    different: list[Item] = []
    index = []
    for item in items:
        name = key(item)
        if name not in places:
            places[name] = len(different)
            different.append(item)
        index.append(places[name])
    return different, index


def load_editor(path: str | Path, *, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu") -> FlowEditor:
    """Load an editor; the family is what `_class_name` in the folder's model_index.json says. Raises ModelError."""
    from sparring.models.editors.flux2_klein import Flux2KleinEditor
    from sparring.models.editors.qwen_image_edit import QwenImageEditEditor

    families: tuple[type[FlowEditor], ...] = (Flux2KleinEditor, QwenImageEditEditor)
    try:
        name = DiffusionPipeline.load_config(str(path)).get("_class_name")
    except (OSError, ValueError) as error:
        raise ModelError(f"editor {path}: no readable model_index.json, so this is no diffusers pipeline folder: {error}") from error
    for family in families:
        if family.pipeline_class.__name__ == name:
            return family.load(path, dtype=dtype, device=device)
    known = ", ".join(family.pipeline_class.__name__ for family in families)
    raise ModelError(f"editor {path}: its pipeline class is {name}, known are {known}")
