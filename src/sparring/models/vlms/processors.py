"""Processors: what turns pictures and texts into a model's inputs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from PIL.Image import new as new_image
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.utils import cached_file

from sparring.data.errors import ModelError, RefusedError
from sparring.models.names import require_there

# What processors raise on pictures and texts that they do not take; an error of another kind is a fault of
# the program.
REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    StopIteration,
)
# as processors name theirs, "_token" behind each
PICTURE_TOKENS = ("image", "video", "audio", "boi", "start_image", "fake_image")
EXTRAS = ("torchvision", "num2words", "timm", "sentencepiece", "tiktoken", "einops", "av")


class PicturesOnly(ProcessorMixin):
    """In front of a processor of the Qwen-VL family: takes away its video part, which would need torchvision.
    Pictures and text are read alike.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(
            self, image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template, **kwargs
        )


class Qwen2_5_VLProcessor(PicturesOnly, transformers.Qwen2_5_VLProcessor):
    """transformers' processor of the same name, without videos."""


class Qwen3VLProcessor(PicturesOnly, transformers.Qwen3VLProcessor):
    """transformers' processor of the same name, without videos."""


PICTURES_ONLY: dict[str, Any] = {
    "qwen2_vl": Qwen2_5_VLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "qwen3_vl": Qwen3VLProcessor,
}


def load_processor(path: str | Path, *, min_pixels: int | None = None, max_pixels: int | None = None) -> Any:
    """The processor of a checkpoint folder or hub id, padding on the left.

    min_pixels, max_pixels: area in pixels that pictures are resized to lie in, for processors that work so
    (Qwen-VL); None keeps the checkpoint's own. Errors: ModelError when nothing can be loaded, the limits do
    not apply, or there is no chat template.
    """
    require_there(path, "vision-language model")
    try:
        family = PICTURES_ONLY.get(AutoConfig.from_pretrained(str(path)).model_type, AutoProcessor)
        processor = family.from_pretrained(str(path))
    except ImportError as error:
        raise ModelError(f"vision-language model {path}: {needs(error)}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"vision-language model {path}: its processor cannot be loaded: {error}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ModelError(
            f"vision-language model {path}: its processor has no picture or no text part; the folder needs "
            f"both beside config.json"
        )
    if processor.chat_template is None:
        raise ModelError(
            f"vision-language model {path}: no chat template. Put chat_template.jinja beside config.json."
        )
    _limit_pixels(processor.image_processor, path, min_pixels, max_pixels)
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def needs(error: ImportError) -> str:
    """What a checkpoint's classes lack that transformers imports for them, and how to get it."""
    said = str(error)
    missing = [name for name in EXTRAS if name in said.lower()] or ([error.name] if error.name else [])
    advice = f"Install {' and '.join(missing)} beside this package" if missing else "Install what it names"
    if "torchvision" in missing:
        advice += ", torchvision in the version that goes with your torch"
    return (
        f"its classes in transformers {transformers.__version__} need a package that is not installed: "
        f"{' '.join(said.split())[:200]}. {advice}."
    )


def _limit_pixels(
    image_processor: Any, path: str | Path, min_pixels: int | None, max_pixels: int | None
) -> None:
    if min_pixels is None and max_pixels is None:
        return
    size = dict(image_processor.size)
    # Areas under the names of edges: what the Qwen-VL processors call them.
    if (
        size.get("shortest_edge") is None
        or size.get("longest_edge") is None
        or not hasattr(image_processor, "merge_size")
    ):
        raise ModelError(
            f"vision-language model {path}: its processor makes every picture {size}; leave min_pixels and "
            f"max_pixels unset"
        )
    low = size["shortest_edge"] if min_pixels is None else min_pixels
    high = size["longest_edge"] if max_pixels is None else max_pixels
    if low > high:
        raise ModelError(f"vision-language model {path}: min_pixels {low} is above max_pixels {high}")
    image_processor.size = type(image_processor.size)(shortest_edge=low, longest_edge=high)


class Takes:
    """What a processor takes, found out without its model. Texts and sizes are told apart: no processor
    refuses a picture for what it shows.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        spelled = (getattr(processor, f"{kind}_token", None) for kind in PICTURE_TOKENS)
        self.placeholders: tuple[str, ...] = tuple(
            dict.fromkeys(token for token in spelled if isinstance(token, str) and token)
        )
        self._sizes: dict[tuple[int, int], str] = {}

    def text(self, *texts: str) -> str:
        """Why these texts cannot be told, "" where they can: a placeholder in them would be read as a
        picture that is not there.
        """
        held = next((token for token in self.placeholders if any(token in text for text in texts)), None)
        return (
            f"the text holds {held}, which stands for a picture there. Leave it out of the record"
            if held
            else ""
        )

    def picture(self, size: tuple[int, int]) -> str:
        """Why a picture of this size, (width, height), is not taken; "" where it is. Each size is tried
        once, on a blank picture.
        """
        if size not in self._sizes:
            try:
                self._processor.image_processor(images=[new_image("RGB", size)], return_tensors="pt")
                self._sizes[size] = ""
            except REFUSALS as error:
                self._sizes[size] = f"the picture is {size[0]} x {size[1]} pixels: {in_a_line(error)}"
        return self._sizes[size]


def in_a_line(error: Exception) -> str:
    """What a library's error says, short."""
    return " ".join((str(error) or type(error).__name__).split())[:300]


def checkpoint_folder(path: str | Path) -> Path:
    """Where the files of a checkpoint folder or hub id are. Raises ModelError where they cannot be had."""
    require_there(path, "vision-language model")
    try:
        return Path(str(cached_file(str(path), "config.json"))).parent
    except (OSError, ValueError) as error:
        raise ModelError(f"vision-language model {path}: its files cannot be had: {error}") from error


def processed(processor: Any, turns: Sequence[Any], name: str) -> dict[str, Any]:
    """What a processor makes of a batch of turns. What it does not take of them is found by trying each
    alone.

    Errors: RefusedError, with the places; ModelError where it takes each alone but not all at once.
    """

    def process(part: Sequence[Any]) -> dict[str, Any]:
        return dict(
            processor.apply_chat_template(
                part,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        )

    try:
        return process(turns)
    except REFUSALS as error:
        refused = dict[int, str]()
        for i, own in enumerate(turns):
            try:
                process([own])
            except REFUSALS as alone:
                pictures = [part["image"] for part in own[0]["content"] if "image" in part]
                sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in pictures)
                refused[i] = f"its processor does not take it ({sizes or 'no'} pixels): {in_a_line(alone)}"
        if not refused:
            raise ModelError(
                f"{name}: its processor does not take {len(turns)} questions at once: {in_a_line(error)}"
            ) from error
        raise refused_error(name, refused) from error


def refused_error(name: str, places: dict[int, str]) -> RefusedError:
    """The error that names the first questions of a batch that a model does not take; places: all of them."""
    told = "; ".join(
        f"question {place + 1} of {name}'s batch: {said}" for place, said in sorted(places.items())[:3]
    )
    return RefusedError(told + (f"; and {len(places) - 3} more" if len(places) > 3 else ""), places)


def copy_own_files(source: Path, target: Path) -> None:
    """Copy the small files of a checkpoint that `target` has none of: the processor's, as they were."""
    for file in sorted(source.iterdir()):
        if (
            file.suffix in (".json", ".jinja", ".txt", ".model")
            and not (target / file.name).exists()
            and not file.name.endswith(".index.json")
        ):
            shutil.copyfile(file, target / file.name)
