"""Vision-language models of transformers, on this machine: pictures and a text in, text out.

Any checkpoint that `AutoModelForImageTextToText` loads. Replies are sampled by a loop of our own, because the log-probabilities that it
records must be the very ones that training recomputes: log-softmax of logits / temperature in float32, over all tokens but the
placeholders of pictures, also where top_p or top_k let only some of them be drawn. Settings of the checkpoint's generation_config other than its end-of-sequence tokens are not used.

The model is always in evaluation mode, in training too: dropout would make the recomputed log-probabilities other ones.

Letters: P prompts, n replies of each, N = P * n replies, T tokens of the longest, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from sparring.models.vlms.base import Pictures, each_picture
from sparring.models.vlms.branch_attention import IMPLEMENTATION as GROUPED
from sparring.models.vlms.branch_attention import IN_BLOCKS
from sparring.models.vlms.branches import (
    PADDING,
    additive,
    append_starts,
    branch_mask,
    flex_mask,
    lay_out,
    next_positions,
    one_row_each,
    prompt_positions,
    step_mask,
    text_positions,
)
from sparring.models.vlms.cache import roomy_cache
from sparring.models.vlms.processors import REFUSALS, Takes, in_a_line, load_processor, needs
from sparring.models.vlms.sampling import choose, token_logprobs, uniforms
from sparring.models.vlms.vision_attention import use_fast_vision_attention

# Plain causal attention over one row of tokens: here many replies may share a row with their prompt. Others get a row for every reply.
SHARED_ROWS = {"llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}
TOWERS = ("visual", "vision_tower", "vision_model")
NOT_FORWARDED = ("input_ids", "attention_mask", "position_ids", "mm_token_type_ids", "picture_count")
# Matrix products of fewer rows than this are computed otherwise on a CPU, with other last digits: no step is
# made of fewer tokens than this for being rid of replies that have ended.
FEWEST_TOKENS = 4
Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply: its text without special tokens, its tokens with the end token where it `finished`, and their log-probabilities."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool

    @property
    def tokens(self) -> int:
        """How many tokens it took."""
        return len(self.token_ids)


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
        # On a GPU, FlexAttention skips what a packed row's tokens do not see of each other; elsewhere SDPA is given that as a dense mask.
        self.flex: bool = self.shares_rows and self.device.type == "cuda" and attention in ("sdpa", IN_BLOCKS)
        if self.flex:
            choose_attention(text, IN_BLOCKS)
        placeholders = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
        self.forbidden: tuple[int, ...] = tuple(token for token in placeholders if token is not None)
        self.takes = Takes(processor)
        ends = model.generation_config.eos_token_id
        ends = processor.tokenizer.eos_token_id if ends is None else ends
        # Renamed in transformers 5.24.
        self.cache_argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
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
        """Load a folder or hub id; safetensors only. min_pixels, max_pixels: see `load_processor`. Raises ModelError when it cannot be loaded."""
        processor = load_processor(path, min_pixels=min_pixels, max_pixels=max_pixels)
        number_type = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(str(path), dtype=number_type, use_safetensors=True)
            folder = Path(str(cached_file(str(path), "config.json"))).parent
        except ImportError as error:
            raise ModelError(f"vision-language model {path}: {needs(error)}") from error
        except (OSError, ValueError) as error:
            raise ModelError(
                f"vision-language model {path}: not a readable image-text-to-text checkpoint with safetensors weights: {error}"
            ) from error
        for parameter in model.parameters():
            # Weights may be a view of the file, which a later save into the same folder would change, and which lies unaligned in memory.
            parameter.data = parameter.data.to(device, copy=True)
        return cls(model.to(device), processor, name=Path(path).name, folder=folder)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    # ---- inputs

    def encode(self, images: Sequence[Pictures], prompts: Sequence[str], starts: Sequence[str] = ()) -> Batch:
        """The model's inputs for one user turn each, its pictures and a text, ready to be answered. Texts are padded on the left.

        Besides what the processor gives there are `position_ids`: [P, L], or [3, P, L] for models with multimodal rotary positions; and
        `picture_count`: [P].
        starts: what each reply begins with, "" where it is the model's alone; none at all if left out.
        Raises RefusedError, with the places, for texts that hold a placeholder of pictures and for pictures
        that the processor does not take.
        """
        if not images or len(images) != len(prompts):
            raise DataError(f"{len(images)} pictures and {len(prompts)} prompts: there must be as many, and at least one")
        shown = [each_picture(own) for own in images]
        refused = {i: said for i in range(len(prompts)) if (said := self.takes.text(prompts[i], *starts[i : i + 1]))}
        if refused:
            raise _refused(self.name, refused)
        turns = [
            [
                {
                    "role": "user",
                    "content": [*({"type": "image", "image": image} for image in own), {"type": "text", "text": prompt}],
                }
            ]
            for own, prompt in zip(shown, prompts, strict=True)
        ]
        batch: Batch = self._processed(turns)
        if any(starts):
            tokens = [self.processor.tokenizer(start, add_special_tokens=False)["input_ids"] for start in starts]
            batch = append_starts(batch, tokens, self.processor.tokenizer.pad_token_id)
        batch["picture_count"] = torch.tensor([len(own) for own in shown])
        batch["position_ids"] = prompt_positions(self.model.model, batch)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _processed(self, turns: Sequence[Any]) -> Batch:
        """What the processor makes of a batch of turns. What it does not take of them is found by trying
        each alone.
        """

        def process(part: Sequence[Any]) -> Batch:
            return dict(
                self.processor.apply_chat_template(
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
                    sizes = ", ".join(f"{part['image'].width} x {part['image'].height}" for part in own[0]["content"] if "image" in part)
                    refused[i] = f"its processor does not take it ({sizes or 'no'} pixels): {in_a_line(alone)}"
            if not refused:
                raise ModelError(f"{self.name}: its processor does not take {len(turns)} questions at once: {in_a_line(error)}") from error
            raise _refused(self.name, refused) from error

    def _forward(self, batch: Batch, **inputs: Any) -> Any:
        """The model on a batch's pictures. Positions are given, so what the processor adds to derive them is left out."""
        pictures = {name: tensor for name, tensor in batch.items() if name not in NOT_FORWARDED}
        return self.model(**pictures, **inputs)

    # ---- sampling

    @torch.inference_mode()
    def generate(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        *,
        n: int = 1,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        first: int = 0,
        batch: int = 128,
        starts: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """n replies to every prompt. Temperature 0 is greedy (all n are then the same). Pictures and prompt are computed once for all n.

        top_p, top_k: see `choose`; 1 and 0 leave every token to be drawn.
        starts: as for `encode`; they are no part of the replies.

        The random numbers of prompt i depend on (seed, first + i) alone. At most about `batch` replies are sampled at a time.
        """
        replies: list[list[Completion]] = []
        at_once = max(1, batch // n)
        for start in range(0, len(prompts), at_once):
            part = slice(start, start + at_once)
            try:
                encoded = self.encode(images[part], prompts[part], starts[part])
            except RefusedError as error:
                raise _refused(self.name, {start + place: said for place, said in error.places.items()}) from error
            numbers = range(first + start, first + start + len(encoded["input_ids"]))
            uniform = uniforms(seed, numbers, n, max_new_tokens).to(self.device)
            # One token a branch and step leaves FlexAttention no blocks to skip.
            with self._attention("sdpa" if self.flex else None):
                replies += self._sample(encoded, uniform, temperature, top_p, top_k)
        return replies

    def try_each(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        numbers: Sequence[int] = (),
        batch: int = 128,
        starts: Sequence[str] = (),
        trial: int = 0,
    ) -> list[Completion | ModelError]:
        """See `VLM.try_each`. Random numbers follow from the place among the prompts that the model takes."""
        refused = dict[int, ModelError]()
        while True:
            taken = [i for i in range(len(prompts)) if i not in refused]
            try:
                replies = self.generate(
                    [images[i] for i in taken],
                    [prompts[i] for i in taken],
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    batch=batch,
                    starts=[starts[i] for i in taken] if starts else (),
                )
            except RefusedError as error:
                refused |= {taken[place]: RefusedError(f"{self.name}: {said}") for place, said in error.places.items()}
                continue
            answered: dict[int, Completion | ModelError] = dict(zip(taken, (own[0] for own in replies), strict=True))
            return [(answered | refused)[i] for i in range(len(prompts))]

    @contextmanager
    def _attention(self, implementation: str | None) -> Iterator[None]:
        """Inside, the language model attends in that way; None: as it does anyway."""
        text = self.model.config.get_text_config()
        present = attention_of(text)
        try:
            choose_attention(text, implementation or present)
            yield
        finally:
            choose_attention(text, present)

    def _sample(self, batch: Batch, uniform: Tensor, temperature: float, top_p: float, top_k: int) -> list[list[Completion]]:
        """Replies to encoded prompts; uniform: [P, n, steps]. The n replies are branches B of one row, or
        rows of their own: R rows in all.

        A row whose replies have all ended is left out of the steps to come.
        """
        prompts, n, steps = uniform.shape
        branches, copies = (n, 1) if self.shares_rows else (1, n)
        text = self.model.config.get_text_config()
        grouped = branches > 1 and attention_of(text) == "sdpa"
        group = text.num_attention_heads // text.num_key_value_heads if grouped else 1
        cache = roomy_cache()
        known = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        output = self._forward(batch, **known, **{self.cache_argument: cache}, use_cache=True, logits_to_keep=1)
        mask_RL, position_R = batch["attention_mask"], next_positions(batch["position_ids"])
        logits_RBV = output.logits.expand(-1, branches, -1)
        if copies > 1:
            cache.batch_repeat_interleave(copies)
            mask_RL, position_R, logits_RBV = (part.repeat_interleave(copies, dim=0) for part in (mask_RL, position_R, logits_RBV))
        uniform = uniform.reshape(prompts * copies, branches, steps)
        ends = torch.tensor(self.end_tokens, device=self.device)
        finished_RB = torch.zeros(uniform.shape[:2], dtype=torch.bool, device=self.device)
        rows_R = torch.arange(len(uniform), device=self.device)  # those that are still computed, among all
        fewest = -(-FEWEST_TOKENS // branches)
        written_RBT = torch.full(uniform.shape, self.end_tokens[0], dtype=torch.long, device=self.device)
        recorded_RBT = torch.zeros(uniform.shape, dtype=torch.float32, device=self.device)
        for step in range(steps):
            logprobs_RBV = token_logprobs(logits_RBV, temperature, self.forbidden)
            tokens_RB = choose(logprobs_RBV, uniform[..., step], greedy=temperature == 0, top_p=top_p, top_k=top_k)
            written_RBT[rows_R, :, step] = tokens_RB
            recorded_RBT[rows_R, :, step] = logprobs_RBV.gather(-1, tokens_RB.unsqueeze(-1)).squeeze(-1)
            finished_RB |= torch.isin(tokens_RB, ends)
            ended_R = finished_RB.all(dim=1)
            going_on = len(ended_R) - int(ended_R.sum())
            if step + 1 == steps or not going_on:
                break
            if max(going_on, fewest) < len(rows_R):
                kept = ended_R.long().argsort(stable=True)[: max(going_on, fewest)]
                cache.batch_select_indices(kept)
                rows_R, tokens_RB, finished_RB, uniform, mask_RL, position_R = (
                    values[kept] for values in (rows_R, tokens_RB, finished_RB, uniform, mask_RL, position_R)
                )
            if branches > 1:
                mask = additive(step_mask(mask_RL, branches, step + 1).repeat(1, 1, group, 1), self.model.dtype)
            else:
                mask = torch.cat([mask_RL, mask_RL.new_ones(len(mask_RL), step + 1)], dim=1)
            positions = text_positions(batch["position_ids"], (position_R + step).unsqueeze(1).expand(-1, branches))
            step_inputs = {"input_ids": tokens_RB, "attention_mask": mask, "position_ids": positions, self.cache_argument: cache}
            with self._attention(GROUPED if group > 1 else None):
                logits_RBV = self.model(**step_inputs, use_cache=True).logits
        written = [values.view(prompts * n, steps).tolist() for values in (written_RBT, recorded_RBT)]
        replies = [self._completion(*reply) for reply in zip(*written, strict=True)]
        return [replies[i : i + n] for i in range(0, len(replies), n)]

    def _completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        end = next((i for i, token in enumerate(tokens) if token in self.end_tokens), None)
        length = len(tokens) if end is None else end + 1
        text = self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Completion(text, tuple(tokens[:length]), tuple(logprobs[:length]), end is not None)

    # ---- scoring

    def completion_logprobs(
        self, batch: Batch, completions: Sequence[Sequence[Sequence[int]]], *, temperature: float = 1.0, forbid: bool = True
    ) -> tuple[Tensor, Tensor]:
        """logprobs_NT (float32, differentiable; 0 in padding) and mask_NT (bool) of the token ids of given replies to encoded prompts.

        completions: for every prompt any number of replies; the N rows are those of prompt 0, then of prompt 1, ... Every prompt and picture
        is computed once, where the model's family allows it. `forbid`: as sampled, without the placeholders of pictures; else over all tokens.
        """
        if len(completions) != len(batch["input_ids"]):
            raise DataError(f"{len(completions)} lists of replies for {len(batch['input_ids'])} prompts: give one list a prompt")
        if not self.shares_rows:
            batch = one_row_each(batch, [len(own) for own in completions])
            completions = [[one] for own in completions for one in own]
        laid = lay_out(completions, pad=self.processor.tokenizer.pad_token_id)
        inputs_PS, branch_PS, depth_PS, tokens_NT, mask_NT, place_NT = (
            part.to(self.device) for part in (laid.inputs_PS, laid.branch_PS, laid.depth_PS, laid.tokens_NT, laid.mask_NT, laid.place_NT)
        )
        mask: Any
        if self.flex:
            mask = flex_mask(batch["attention_mask"], branch_PS)
        elif self.shares_rows:
            mask = additive(branch_mask(batch["attention_mask"], branch_PS), self.model.dtype)
        else:
            mask = torch.cat([batch["attention_mask"], (branch_PS != PADDING).long()], dim=1)
        behind = next_positions(batch["position_ids"]).unsqueeze(1) + depth_PS
        length = batch["input_ids"].shape[1]
        output = self._forward(
            batch,
            input_ids=torch.cat([batch["input_ids"], inputs_PS], dim=1),
            attention_mask=mask,
            position_ids=torch.cat([batch["position_ids"], text_positions(batch["position_ids"], behind)], dim=-1),
            use_cache=False,
            logits_to_keep=torch.arange(length - 1, length + inputs_PS.shape[1], device=self.device),
        )
        logprobs = token_logprobs(output.logits, temperature, self.forbidden if forbid else ()).flatten(0, 1)
        return logprobs[place_NT, tokens_NT].masked_fill(~mask_NT, 0.0), mask_NT

    @torch.inference_mode()
    def option_probabilities(
        self, images: Sequence[Pictures], prompts: Sequence[str], answers: Sequence[str], *, batch: int = 128
    ) -> Tensor:
        """probability_P (float32, CPU) of each given text as the reply to its prompt, length-normalised: exp(mean log-probability of its tokens)."""
        tokens = [self.processor.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        empty = [i for i, own in enumerate(tokens) if not own]
        if empty or len(answers) != len(prompts):
            raise DataError(
                f"one text that is not empty is needed for each of {len(prompts)} prompts; got {len(answers)}, empty ones at {empty}"
            )
        found = []
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            try:
                encoded = self.encode(images[part], prompts[part])
            except RefusedError as error:
                raise _refused(self.name, {start + place: said for place, said in error.places.items()}) from error
            logprobs_NT, mask_NT = self.completion_logprobs(encoded, [[own] for own in tokens[part]])
            found.append((logprobs_NT.sum(1) / mask_NT.sum(1)).exp().cpu())
        return torch.cat(found) if found else torch.zeros(0)

    # ---- training and saving

    @property
    def tower(self) -> str:
        """The name of the vision tower's module inside the model. What translates its features for the language model may lie outside of it."""
        for name in TOWERS:
            if hasattr(self.model.model, name):
                return f"model.{name}"
        raise ModelError(f"{self.name}: no vision tower found in a {type(self.model).__name__}; looked for {', '.join(TOWERS)}")

    def prepare_training(self, *, train_vision: bool, lora_rank: int | None = None, lora_alpha: int = 1, seed: int = 0) -> None:
        """Choose what is trained: all weights, or with `lora_rank` an adapter on every linear layer; the vision tower only if `train_vision`.

        Warns where the replies to one prompt cannot share a row: then picture and prompt are computed once for each of them.
        """
        if not self.shares_rows:
            warnings.warn(
                f"{self.name}: replies of a {self.model.config.model_type} cannot share their prompt in training, which will take longer",
                stacklevel=2,
            )
        tower = self.tower + "."
        self.model.requires_grad_(lora_rank is None)
        if lora_rank is not None:
            lora.add(
                self.model, rank=lora_rank, alpha=lora_alpha, seed=seed, wanted=lambda name: train_vision or not name.startswith(tower)
            )
        elif not train_vision:
            self.model.get_submodule(self.tower).requires_grad_(False)

    def checkpoint_gradients(self, enabled: bool) -> None:
        """From here on, `completion_logprobs` keeps the input of every block alone for the backward pass, which computes the rest again; or not."""
        lora.set_up(self.model, enabled)

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name, in a fixed order."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint that transformers and `load` read: weights, with an adapter merged in, and the processor's files as they were.

        An adapter is also written by itself, to `folder`/adapter, as peft reads it. Several processes all call it; the first one writes.
        """
        folder = Path(folder)
        adapted = bool(lora.layers(self.model))
        state = lora.merged_state(self.model)
        if adapted:
            lora.save(self.model, folder / "adapter")
        if not writes_files():
            return
        self.model.save_pretrained(folder, state_dict=state if adapted or distributed.is_initialized() else None)
        if self.folder is None:
            self.processor.save_pretrained(folder)
            return
        for file in sorted(self.folder.iterdir()):
            if (
                file.suffix in (".json", ".jinja", ".txt", ".model")
                and not (folder / file.name).exists()
                and not file.name.endswith(".index.json")
            ):
                shutil.copyfile(file, folder / file.name)


def _refused(name: str, places: dict[int, str]) -> RefusedError:
    told = "; ".join(f"question {place + 1} of {name}'s batch: {said}" for place, said in sorted(places.items())[:3])
    return RefusedError(told + (f"; and {len(places) - 3} more" if len(places) > 3 else ""), places)
