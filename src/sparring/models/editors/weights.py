"""What of an editor trains, where its parts lie, and how it is stored: a LoRA as diffusers reads it, or the
whole pipeline folder.

Offload: the text encoders and the VAE lie in the CPU's memory but for the moments when they work, and the
transformer goes there while others need the accelerator. diffusers' own `enable_model_cpu_offload` is not
used: it moves the transformer away whenever the VAE works, so for every batch of a roll-out, and back inside
its forward pass, which would be in the middle of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.distributed.fsdp import FSDPModule

from sparring.data.errors import ModelError
from sparring.engine.ranks import full, writes_files
from sparring.models.editors.loras import read_lora

ADAPTER = "default"
RESTING_PLACE = torch.device("cpu")


class EditorWeights:
    """The parts of an editor's pipeline. `transformer` is what is trained; text encoders and VAE are frozen.

    device: where the editor works. With `offload` only what works at the moment is there; on a CPU that
    changes nothing.
    """

    lora_targets: ClassVar[str]
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)

    def __init__(
        self, pipeline: Any, *, device: torch.device | str | None = None, offload: bool = False
    ) -> None:
        self.pipeline = pipeline
        self.transformer: Any = pipeline.transformer
        self.device = torch.device(self.transformer.device if device is None else device)
        self.offload, self._rests = offload, False
        for name in ("vae", *self.text_encoders):
            getattr(pipeline, name).requires_grad_(False).eval()
        self.transformer.requires_grad_(True).eval()
        pipeline.set_progress_bar_config(disable=True)
        self._move(self.device, "transformer")
        self._move(RESTING_PLACE if offload else self.device, "vae", *self.text_encoders)

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the frozen weights."""
        dtype: torch.dtype = self.pipeline.vae.dtype
        return dtype

    # ---- where the parts lie

    def _move(self, device: torch.device, *names: str) -> None:
        for name in names:
            getattr(self.pipeline, name).to(device)
        if self.device.type == "cuda" and device.type != "cuda":
            # for those who share the card, and against splinters between large blocks
            torch.cuda.empty_cache()

    @contextmanager
    def _at_work(self, *names: str) -> Iterator[None]:
        """Inside, these parts of the pipeline are on the editor's device; with offload they leave it
        afterwards.
        """
        try:
            if self.offload:
                self._move(self.device, *names)
            yield
        finally:
            if self.offload:
                self._move(RESTING_PLACE, *names)

    def rest(self) -> None:
        """With offload, the transformer leaves the accelerator to others, until `wake`; its trainable weights
        stay the same objects. A sharded one stays: its part is small, and FSDP2 knows where it lies.

        Not inside code that computes gradients: what is kept for a backward pass would stay. Optimisers'
        states stay too.
        """
        if self.offload and not self._rests and not isinstance(self.transformer, FSDPModule):
            self._rests = True
            self._move(RESTING_PLACE, "transformer")

    def wake(self) -> None:
        """The transformer is back on the accelerator."""
        if self._rests:
            self._move(self.device, "transformer")
            self._rests = False

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Inside, the transformer rests; afterwards it is back."""
        try:
            self.rest()
            yield
        finally:
            self.wake()

    def checkpoint_gradients(self, on: bool) -> None:
        """Whether training keeps the input of every transformer block alone and computes the rest again: less
        memory, about a third more time.
        """
        if on:
            self.transformer.enable_gradient_checkpointing()
        else:
            self.transformer.disable_gradient_checkpointing()

    # ---- LoRA and checkpoints

    @property
    def has_lora(self) -> bool:
        """A LoRA is attached to the transformer."""
        return ADAPTER in getattr(self.transformer, "peft_config", {})

    def add_lora(self, rank: int, alpha: int, seed: int, targets: str | None = None) -> None:
        """Attach a LoRA that changes nothing yet, and freeze the rest. Its first weights depend on `seed`
        alone. targets: regular expression of the layers' names; None: the family's own.

        ModelError where no layer has such a name.
        """
        if self.has_lora:
            raise ModelError("the editor has a LoRA already: merge_lora() or remove_lora() first")
        self.transformer.requires_grad_(False)
        try:
            self.transformer.add_adapter(
                LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets or self.lora_targets),
                adapter_name=ADAPTER,
            )
        except ValueError as error:
            raise ModelError(
                f'attacker.lora.targets: "{targets or self.lora_targets}" fits no layer of '
                f"{type(self.transformer).__name__} ({error})"
            ) from error
        generator = torch.Generator("cpu").manual_seed(seed)
        for name, parameter in sorted(self._lora_parameters().items()):
            start = torch.zeros(parameter.shape)
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
            parameter.data = start.to(self.device)

    def _lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {
            name: parameter for name, parameter in self.transformer.named_parameters() if ".lora_" in name
        }

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The LoRA's parameters by name, or all of the transformer's where no LoRA is attached."""
        return {
            name: parameter
            for name, parameter in self.transformer.named_parameters()
            if parameter.requires_grad
        }

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
        """Write the LoRA so that plain diffusers loads it: `pipeline.load_lora_weights(folder)`. Several
        processes all call it; the first one writes.
        """
        if not self.has_lora:
            raise ModelError("the editor has no LoRA to save; save_pipeline() writes all weights")
        tensors = {
            name: full(tensor)
            for name, tensor in get_peft_model_state_dict(self.transformer, adapter_name=ADAPTER).items()
        }
        if not writes_files():
            return
        config = self.transformer.peft_config[ADAPTER].to_dict()
        self.pipeline.save_lora_weights(
            folder, transformer_lora_layers=tensors, transformer_lora_adapter_metadata=config
        )

    def load_lora(self, place: str | Path, *, must_change: bool = False) -> None:
        """Attach a saved LoRA in place of the present one; it is trainable, the rest is frozen.

        What `save_lora` wrote comes back bit by bit; for other files see `read_lora`. Raises ModelError,
        also, with `must_change`, for one that changes no weight.
        """
        if self.has_lora:
            self.remove_lora()
        lora = read_lora(place, self.transformer, type(self.pipeline).lora_state_dict)
        if must_change:
            lora.require_change()
        self.transformer.requires_grad_(False)
        config = (
            None
            if lora.config is None
            else {f"transformer.{name}": value for name, value in lora.config.items()}
        )
        try:
            self.transformer.load_lora_adapter(
                {f"transformer.{name}": tensor for name, tensor in lora.tensors.items()},
                adapter_name=ADAPTER,
                metadata=config,
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(f"{lora.file}: no LoRA that fits this editor: {error}") from error
        # diffusers rounds a LoRA to the dtype of the weights that it is attached to.
        for name, parameter in self._lora_parameters().items():
            parameter.data = lora.tensors[name.replace(f".{ADAPTER}.", ".")].to(
                device=self.device, dtype=torch.float32
            )
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
        """Write the whole pipeline folder, as `from_pretrained` reads it. Several processes all call it; the
        first one writes.
        """
        if self.has_lora:
            raise ModelError(
                "save_pipeline() writes weights without a LoRA: merge_lora() or remove_lora() first, or "
                "save_lora()"
            )
        weights = {name: full(tensor) for name, tensor in self.transformer.state_dict().items()}
        if not writes_files():
            return
        if isinstance(self.transformer, FSDPModule):
            kind: Any = type(self.transformer).__bases__[1]  # FSDP2 has put a class of its own before it
            with torch.device("meta"):
                self.pipeline.transformer = kind.from_config(self.pipeline.transformer.config)
            self.pipeline.transformer.load_state_dict(weights, assign=True)
        try:
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        finally:
            self.pipeline.transformer = self.transformer
