"""One interface over everything that paints a part of a picture and leaves the rest as it is, to the bit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from diffusers import Flux2KleinInpaintPipeline, FluxFillPipeline, FluxTransformer2DModel, QwenImageInpaintPipeline
from numpy.typing import NDArray
from PIL.Image import Image, fromarray
from scipy import ndimage

from sparring.attackers.crops import choose_crop
from sparring.attackers.rivals.paste import BUNDLED, fit, object_name, read_cutout
from sparring.config import PainterSettings
from sparring.data.errors import DataError, ModelError
from sparring.data.records import Box
from sparring.models.players import DTYPES

if TYPE_CHECKING:
    import torch


Mask = NDArray[np.bool_]


class Painter(ABC):
    """A painter. `outpaints`: it can paint around a picture, not only put an object into a box."""

    outpaints: bool = True

    @property
    def objects(self) -> tuple[str, ...] | None:
        """What it is able to paint; None: anything that it is told."""
        return None

    def fill(self, images: Sequence[Image], masks: Sequence[Mask], objects: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        """Paint each object where its picture's mask [height, width] is true; every other pixel is the picture's own.

        A picture depends on its own seed and inputs alone. DataError for a mask of another size, or one that is nowhere true.
        """
        painted = []
        for image, mask, wanted, seed in zip(images, masks, objects, seeds, strict=True):
            if mask.shape != (image.height, image.width) or not mask.any():
                raise DataError(
                    f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels, {mask.sum()} of them true, for a picture of {image.width} x {image.height}"
                )
            rgb = image.convert("RGB")
            made = self._paint(rgb, mask, wanted, seed)
            painted.append(fromarray(np.where(mask[..., None], np.asarray(made), np.asarray(rgb))))
        return painted

    @abstractmethod
    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        """The picture with something painted in the mask; what it has elsewhere is not looked at."""


def box_mask(size: tuple[int, int], boxes: Sequence[Box]) -> Mask:
    """True inside the boxes, for a picture of (width, height)."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def bounds(mask: Mask) -> Box:
    """The smallest box around what is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


SOFT = 0.04  # of the picture's shorter side: distance from the border at which "edges" has become soft


class Paste(Painter):
    """Lays the cut-out of an object into the middle of the mask, as large as fits. A cut-out's file name says what it shows ("alarm_clock.webp")."""

    outpaints = False

    def __init__(self, folder: str | None = None) -> None:
        """folder: of RGBA pictures; None: the bundled ones. Raises DataError where there is none."""
        self.folder = Path(folder) if folder else BUNDLED
        files = sorted(path for path in self.folder.glob("*") if path.suffix.lower() in (".webp", ".png"))
        self._files = {object_name(path): path for path in files}
        if not self._files:
            raise DataError(
                f"{self.folder}: no cut-outs there. Name a folder of RGBA pictures (.png, .webp), each file named after its object."
            )

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self._files)

    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        words = wanted.lower().split()
        able = [name for name in self._files if name.split() == words[-len(name.split()) :]]
        if not able:
            raise DataError(f'there is no cut-out of "{wanted}" in {self.folder}')
        x0, y0, x1, y1 = bounds(mask)
        cutout = read_cutout(self._files[max(able, key=len)])
        scaled = fit(cutout, min((x1 - x0) / cutout.width, (y1 - y0) / cutout.height) * max(cutout.size))
        if np.random.default_rng(seed).integers(2):
            scaled = fromarray(np.asarray(scaled)[:, ::-1].copy())
        made = image.copy()
        made.paste(scaled, ((x0 + x1 - scaled.width) // 2, (y0 + y1 - scaled.height) // 2), scaled)
        return made


class Edges(Painter):
    """Draws the nearest known pixels outwards and lets them go soft: a picture grows by calm surroundings in which there is nothing new."""

    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        if mask.all():
            raise DataError("the mask covers the whole picture: there is no edge to draw outwards")
        distance, (rows, columns) = ndimage.distance_transform_edt(mask, return_indices=True)
        drawn = np.asarray(image)[rows, columns].astype(np.float32)
        reach = max(1.0, SOFT * min(image.size))
        soft = ndimage.gaussian_filter(drawn, (reach, reach, 0))
        share = np.clip(distance / (2 * reach), 0, 1)[..., None].astype(np.float32)
        return fromarray(np.rint(np.clip(drawn + share * (soft - drawn), 0, 255)).astype(np.uint8))


class PipelinePainter(Painter):
    """A painter that is a pipeline. `made_for`: pipeline classes whose folders it can load."""

    pipeline_class: ClassVar[Any]
    made_for: ClassVar[tuple[str, ...]]
    transformer_class: ClassVar[Any] = None

    def __init__(self, pipeline: Any, settings: PainterSettings) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.settings = pipeline, settings

    @classmethod
    def load(cls, settings: PainterSettings, device: torch.device) -> Self:
        """Load the model of these settings; safetensors only. Raises ModelError."""
        dtype, parts = DTYPES[settings.dtype], dict[str, Any]()
        try:
            if settings.transformer is not None:
                if cls.transformer_class is None:
                    raise ModelError(f"painter {settings.model}: another transformer can be put into FLUX.1-Fill only")
                name, _, subfolder = (
                    settings.transformer.partition(":") if not Path(settings.transformer).is_dir() else (settings.transformer, "", "")
                )
                parts["transformer"] = cls.transformer_class.from_pretrained(
                    name, subfolder=subfolder or None, torch_dtype=dtype, use_safetensors=True
                )
            pipeline = cls.pipeline_class.from_pretrained(settings.model, torch_dtype=dtype, use_safetensors=True, **parts)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"painter {settings.model}: not a readable {cls.pipeline_class.__name__} with safetensors weights: {error}"
            ) from error
        return cls(pipeline.to(device), settings)

    @property
    def multiple(self) -> int:
        """Pixels that the sides of what the model works on are a multiple of."""
        return int(self.pipeline.vae_scale_factor) * 2

    @abstractmethod
    def _call(self, prompt: str) -> dict[str, Any]:
        """What the family's pipeline is called with beside picture, mask, size, steps and noise."""

    @torch.no_grad()
    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        crop = choose_crop(image.size, [bounds(mask)], self.settings.crop, self.multiple)
        whole = fromarray(mask.astype(np.uint8) * 255)
        cut, hole = crop.cut(image), crop.cut(whole).point(lambda level: 255 if level else 0)
        right, below = (-side % self.multiple for side in cut.size)
        padded = fromarray(np.pad(np.asarray(cut), ((0, below), (0, right), (0, 0)), mode="edge"))
        hole = fromarray(np.pad(np.asarray(hole), ((0, below), (0, right))))
        made = self.pipeline(
            image=padded,
            mask_image=hole,
            width=padded.width,
            height=padded.height,
            strength=1.0,
            num_inference_steps=self.settings.steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pil",
            **self._call(self.settings.prompt.replace("{object}", wanted)),
        ).images[0]
        if made.size != padded.size:
            raise ModelError(f"painter {self.settings.model}: gave back {made.size} pixels for {padded.size}; lower painter.crop.max_area")
        return crop.compose(image, made.convert("RGB").crop((0, 0, *cut.size)))


class FluxFill(PipelinePainter):
    """FLUX.1-Fill, and with `transformer` the OneReward checkpoint, which is such a model."""

    pipeline_class = FluxFillPipeline
    made_for = ("FluxFillPipeline",)
    transformer_class = FluxTransformer2DModel

    def _call(self, prompt: str) -> dict[str, Any]:
        length = min(512, int(self.pipeline.tokenizer_2.model_max_length))
        return {"prompt": prompt, "guidance_scale": self.settings.guidance_scale, "max_sequence_length": length}


class Flux2Klein(PipelinePainter):
    """FLUX.2-klein: an editor that also sees the picture as it was."""

    pipeline_class = Flux2KleinInpaintPipeline
    made_for = ("Flux2KleinPipeline", "Flux2KleinInpaintPipeline")

    def _call(self, prompt: str) -> dict[str, Any]:
        depth = int(self.pipeline.text_encoder.config.num_hidden_layers)
        length = min(512, int(self.pipeline.tokenizer.model_max_length))
        # The quarters of the text encoder's depth: of 36 layers the pipeline's own 9, 18 and 27.
        layers = (depth // 4, depth * 2 // 4, depth * 3 // 4)
        guidance = self.settings.guidance_scale
        return {"prompt": prompt, "guidance_scale": guidance, "max_sequence_length": length, "text_encoder_out_layers": layers}


class QwenImage(PipelinePainter):
    """Qwen-Image as an inpainting model."""

    pipeline_class = QwenImageInpaintPipeline
    made_for = ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")

    def _call(self, prompt: str) -> dict[str, Any]:
        scale = self.settings.guidance_scale
        length = min(512, int(self.pipeline.tokenizer.model_max_length))
        return {"prompt": prompt, "true_cfg_scale": scale, "max_sequence_length": length} | ({"negative_prompt": " "} if scale > 1 else {})


FAMILIES: tuple[type[PipelinePainter], ...] = (FluxFill, Flux2Klein, QwenImage)


PLAIN = ("paste", "edges")


def is_plain(model: str) -> bool:
    """It needs no model."""
    return model.partition(":")[0] in PLAIN


def load_painter(settings: PainterSettings, device: torch.device) -> Painter:
    """The painter of these settings; a model's family is what its model_index.json says. Raises ModelError, and DataError for missing cut-outs."""
    kind, _, rest = settings.model.partition(":")
    if kind == "paste":
        return Paste(rest or None)
    if settings.model == "edges":
        return Edges()
    from diffusers import DiffusionPipeline

    try:
        name = DiffusionPipeline.load_config(settings.model).get("_class_name")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"painter {settings.model}: no readable model_index.json, so this is no diffusers pipeline folder: {error}"
        ) from error
    for family in FAMILIES:
        if name in family.made_for:
            return family.load(settings, device)
    known = ", ".join(sorted(made for family in FAMILIES for made in family.made_for))
    raise ModelError(f"painter {settings.model}: its pipeline class is {name}, known are {known}")
