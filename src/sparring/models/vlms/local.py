"""Vision-language models of transformers, on this machine: pictures and a text in, text out.

Any checkpoint that `AutoModelForImageTextToText` loads. Replies are sampled by a loop of our own, because
the log-probabilities that it records must be the very ones that training recomputes: log-softmax of logits /
temperature in float32, over all tokens but the placeholders of pictures, also where top_p or top_k let only
some of them be drawn. Settings of the checkpoint's generation_config other than its end-of-sequence tokens
are not used.

The model is always in evaluation mode, in training too: dropout would make the recomputed log-probabilities
other ones.

Letters: P prompts, n replies of each, N = P * n replies, T tokens of the longest, V tokens of the
vocabulary.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, distributed
from transformers import AutoModelForImageTextToText
from transformers.utils import cached_file

from sparring.data.errors import DataError, ModelError, RefusedError
from sparring.engine.ranks import writes_files
from sparring.models.private import attention_of, choose_attention
from sparring.models.vlms import lora
from sparring.models.vlms.attention import IN_BLOCKS, use_fast_vision_attention
from sparring.models.vlms.base import Completion, Pictures, Sampling, each_picture
from sparring.models.vlms.branches import append_starts, picture_counts, prompt_positions
from sparring.models.vlms.generating import sample_replies, uniforms
from sparring.models.vlms.letters import Lettered, Locate, local_letters
from sparring.models.vlms.processors import (
    Takes,
    copy_own_files,
    load_processor,
    needs,
    processed,
    refused_error,
)
from sparring.models.vlms.scoring import completion_logprobs, option_probabilities
from sparring.models.vlms.traits import LocalTraits

# Plain causal attention over one row of tokens: here many replies may share a row with their prompt. Others
# get a row for every reply.
SHARED_ROWS = {"llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}
TOWERS = ("visual", "vision_tower", "vision_model")
NOT_FORWARDED = ("input_ids", "attention_mask", "position_ids", "mm_token_type_ids", "picture_count")
RESTING_PLACE = torch.device("cpu")
Batch = dict[str, Tensor]


class LocalVLM:
    """A vision-language model with its processor."""

    def __init__(self, model: Any, processor: Any, *, name: str, folder: Path | None = None) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.folder = folder
        use_fast_vision_attention(model)
        config = model.config
        text = config.get_text_config()
        full = set(getattr(text, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        attention = attention_of(text)  # IN_BLOCKS in a copy of a model that has been here
        full = full and attention in ("sdpa", "eager", IN_BLOCKS)
        self.shares_rows: bool = config.model_type in SHARED_ROWS and full
        # On a GPU, FlexAttention skips what a packed row's tokens do not see of each other; elsewhere SDPA is
        # given that as a dense mask.
        self.flex: bool = self.shares_rows and self.device.type == "cuda" and attention in ("sdpa", IN_BLOCKS)
        if self.flex:
            choose_attention(text, IN_BLOCKS)
        placeholders = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
        self.forbidden: tuple[int, ...] = tuple(token for token in placeholders if token is not None)
        self.takes = Takes(processor)
        ends = model.generation_config.eos_token_id
        ends = processor.tokenizer.eos_token_id if ends is None else ends
        # Renamed in transformers 5.24.
        self.cache_argument = (
            "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        )
        self.end_tokens: tuple[int, ...] = tuple(ends) if isinstance(ends, (list, tuple)) else (int(ends),)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype | str = torch.float32,
        device: torch.device | str = "cpu",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> Self:
        """Load a folder or hub id; safetensors only. min_pixels, max_pixels: see `load_processor`. Raises
        ModelError when it cannot be loaded.
        """
        processor = load_processor(path, min_pixels=min_pixels, max_pixels=max_pixels)
        number_type = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                str(path), dtype=number_type, use_safetensors=True
            )
            folder = Path(str(cached_file(str(path), "config.json"))).parent
        except ImportError as error:
            raise ModelError(f"vision-language model {path}: {needs(error)}") from error
        except (OSError, ValueError) as error:
            raise ModelError(
                f"vision-language model {path}: not a readable image-text-to-text checkpoint with "
                f"safetensors weights: {error}"
            ) from error
        for parameter in model.parameters():
            # Weights may be a view of the file, which a later save into the same folder would change, and
            # which lies unaligned in memory.
            parameter.data = parameter.data.to(device, copy=True)
        return cls(model.to(device), processor, name=Path(path).name, folder=folder)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @cached_property
    def traits(self) -> LocalTraits:
        """See `VLM.traits`."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        folder, processor = (
            self.folder,
            self.processor,
        )  # a model that its own traits hold is not freed at once
        return LocalTraits(self.name, dtype, folder=lambda: folder, processor=lambda: processor)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """See `VLM.resting`."""
        place = self.device
        try:
            self.model.to(RESTING_PLACE)
            if place.type == "cuda":
                torch.cuda.empty_cache()  # for those who share the card
            yield
        finally:
            self.model.to(place)

    def spending(self) -> dict[str, float]:
        """Nothing: it costs no requests."""
        return {}

    # ---- inputs

    def encode(self, images: Sequence[Pictures], prompts: Sequence[str], starts: Sequence[str] = ()) -> Batch:
        """The model's inputs for one user turn each, its pictures and a text, ready to be answered. Texts are
        padded on the left.

        Besides what the processor gives there are `position_ids`: [P, L], or [3, P, L] for models with
        multimodal rotary positions; and `picture_count`: [P], see `picture_counts`. starts: what each reply
        begins with, "" where it is the model's alone; none at all if left out. Raises RefusedError, with the
        places, for texts that hold a placeholder of pictures and for pictures that the processor does not
        take.
        """
        if not images or len(images) != len(prompts):
            raise DataError(
                f"{len(images)} pictures and {len(prompts)} prompts: there must be as many, and at least one"
            )
        shown = [each_picture(own) for own in images]
        refused = {
            i: said for i in range(len(prompts)) if (said := self.takes.text(prompts[i], *starts[i : i + 1]))
        }
        if refused:
            raise refused_error(self.name, refused)
        turns = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image", "image": image} for image in own),
                        {"type": "text", "text": prompt},
                    ],
                }
            ]
            for own, prompt in zip(shown, prompts, strict=True)
        ]
        batch: Batch = processed(self.processor, turns, self.name)
        if any(starts):
            tokens = [
                self.processor.tokenizer(start, add_special_tokens=False)["input_ids"] for start in starts
            ]
            batch = append_starts(batch, tokens, self.processor.tokenizer.pad_token_id)
        pictures, image_token = [len(own) for own in shown], getattr(self.processor, "image_token_id", None)
        batch["picture_count"] = picture_counts(batch, pictures, image_token)
        batch["position_ids"] = prompt_positions(self.model.model, batch)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def forward(self, batch: Batch, **inputs: Any) -> Any:
        """The model on a batch's pictures. Positions are given, so what the processor adds to derive them is
        left out.
        """
        pictures = {name: tensor for name, tensor in batch.items() if name not in NOT_FORWARDED}
        return self.model(**pictures, **inputs)

    # ---- sampling

    @torch.inference_mode()
    def generate(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """See `VLM.generate`; starts: as for `encode`. Pictures and prompt are computed once for all n
        replies.
        """
        replies: list[list[Completion]] = []
        at_once, n, limit = max(1, sampling.batch // sampling.n), sampling.n, sampling.max_new_tokens
        for start in range(0, len(prompts), at_once):
            part = slice(start, start + at_once)
            try:
                encoded = self.encode(images[part], prompts[part], starts[part])
            except RefusedError as error:
                raise refused_error(
                    self.name, {start + place: said for place, said in error.places.items()}
                ) from error
            numbers = [sampling.number(start + i) for i in range(len(encoded["input_ids"]))]
            uniform = uniforms(sampling.seed, numbers, n, limit).to(self.device)
            # One token a branch and step leaves FlexAttention no blocks to skip.
            with self.attending("sdpa" if self.flex else None):
                replies += sample_replies(self, encoded, uniform, sampling)
        return replies

    def try_each(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        numbers: Sequence[int] = (),
        starts: Sequence[str] = (),
    ) -> list[Completion | ModelError]:
        """See `VLM.try_each`. Random numbers follow from the place among the prompts that the model takes."""
        refused = dict[int, ModelError]()
        while True:
            taken = [i for i in range(len(prompts)) if i not in refused]
            try:
                replies = self.generate(
                    [images[i] for i in taken],
                    [prompts[i] for i in taken],
                    sampling,
                    starts=[starts[i] for i in taken] if starts else (),
                )
            except RefusedError as error:
                refused |= {
                    taken[place]: RefusedError(f"{self.name}: {said}") for place, said in error.places.items()
                }
                continue
            answered: dict[int, Completion | ModelError] = dict(
                zip(taken, (own[0] for own in replies), strict=True)
            )
            return [(answered | refused)[i] for i in range(len(prompts))]

    def try_letters(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        letters: Sequence[Sequence[str]],
        locate: Locate,
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> list[Lettered | ModelError]:
        """See `VLM.try_letters`: the letters' distribution is computed anew behind the reply's own tokens."""
        return local_letters(self, images, prompts, letters, locate, sampling, starts=starts)

    @contextmanager
    def attending(self, implementation: str | None) -> Iterator[None]:
        """Inside, the language model attends in that way; None: as it does anyway."""
        text = self.model.config.get_text_config()
        present = attention_of(text)
        try:
            choose_attention(text, implementation or present)
            yield
        finally:
            choose_attention(text, present)

    def completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        """A reply from its tokens, those behind its end left out, and their log-probabilities."""
        end = next((i for i, token in enumerate(tokens) if token in self.end_tokens), None)
        length = len(tokens) if end is None else end + 1
        text = self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Completion(text, tuple(tokens[:length]), tuple(logprobs[:length]), end is not None)

    # ---- scoring

    def completion_logprobs(
        self,
        batch: Batch,
        completions: Sequence[Sequence[Sequence[int]]],
        *,
        temperature: float = 1.0,
        forbid: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """`scoring.completion_logprobs` of this model."""
        return completion_logprobs(self, batch, completions, temperature=temperature, forbid=forbid)

    def option_probabilities(
        self, images: Sequence[Pictures], prompts: Sequence[str], answers: Sequence[str], *, batch: int = 128
    ) -> Tensor:
        """`scoring.option_probabilities` of this model."""
        return option_probabilities(self, images, prompts, answers, batch=batch)

    # ---- training and saving

    @property
    def tower(self) -> str:
        """The name of the vision tower's module inside the model. What translates its features for the
        language model may lie outside of it.
        """
        for name in TOWERS:
            if hasattr(self.model.model, name):
                return f"model.{name}"
        raise ModelError(
            f"{self.name}: no vision tower found in a {type(self.model).__name__}; looked for "
            f"{', '.join(TOWERS)}"
        )

    def prepare_training(
        self, *, train_vision: bool, lora_rank: int | None = None, lora_alpha: int = 1, seed: int = 0
    ) -> None:
        """Choose what is trained: all weights, or with `lora_rank` an adapter on every linear layer; the
        vision tower only if `train_vision`.

        Warns where the replies to one prompt cannot share a row: then picture and prompt are computed once
        for each of them.
        """
        if not self.shares_rows:
            warnings.warn(
                f"{self.name}: replies of a {self.model.config.model_type} cannot share their prompt in "
                f"training, which will take longer",
                stacklevel=2,
            )
        tower = self.tower + "."
        self.model.requires_grad_(lora_rank is None)
        if lora_rank is not None:
            lora.add(
                self.model,
                rank=lora_rank,
                alpha=lora_alpha,
                seed=seed,
                wanted=lambda name: train_vision or not name.startswith(tower),
            )
        elif not train_vision:
            self.model.get_submodule(self.tower).requires_grad_(False)

    def checkpoint_gradients(self, enabled: bool) -> None:
        """From here on, `completion_logprobs` keeps the input of every block alone for the backward pass,
        which computes the rest again; or not.
        """
        lora.set_up(self.model, enabled)

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name, in a fixed order."""
        return {
            name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad
        }

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint that transformers and `load` read: weights, with an adapter merged in, and the
        processor's files as they were.

        An adapter is also written by itself, to `folder`/adapter, as peft reads it. Several processes all
        call it; the first one writes.
        """
        folder = Path(folder)
        adapted = bool(lora.layers(self.model))
        state = lora.merged_state(self.model)
        if adapted:
            lora.save(self.model, folder / "adapter")
        if not writes_files():
            return
        self.model.save_pretrained(
            folder, state_dict=state if adapted or distributed.is_initialized() else None
        )
        if self.folder is None:
            self.processor.save_pretrained(folder)
            return
        copy_own_files(self.folder, folder)
