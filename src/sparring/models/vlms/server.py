"""Roll-outs of a Defender in training by a server that has its base model (vLLM): after every update it is
given the newest LoRA adapter.

The adapter is written to a folder that the server can read, and loaded by vLLM's protocol (`POST
/v1/load_lora_adapter`, for which the server runs with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True). An adapter's
name is a hash of its weights: the same weights have the same name in every process, so that a resumed run
finds again what it published and what was answered.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from sparring.config import RolloutServerSettings
from sparring.data.errors import ModelError
from sparring.engine.ranks import writes_files
from sparring.models.vlms import lora
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointVLM
from sparring.models.vlms.local import Completion, LocalVLM


class RolloutServer:
    """Samples for a local Defender, with tokens and log-probabilities, from the adapter that was published
    last.
    """

    def __init__(
        self,
        settings: RolloutServerSettings,
        folder: Path,
        *,
        max_pixels: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """folder: where adapters are written, unless the settings name one. max_pixels, cache: see
        `EndpointVLM`.
        """
        self.remote = EndpointVLM(settings.address, settings.endpoint, cache=cache, max_pixels=max_pixels)
        self.folder = Path(settings.folder or folder).resolve()
        self.adapter: str | None = None

    @property
    def name(self) -> str:
        """The base model's name on the server."""
        return self.remote.name

    def publish(self, vlm: LocalVLM) -> str:
        """Write the Defender's adapter and have the server load it, and forget the one before. Returns its
        name there, to be kept in `adapter`.

        Several processes all call it; the first one publishes, and the others get no name. Raises ModelError
        where the Defender has no adapter, or the server does not take it.
        """
        if not lora.layers(vlm.model):
            raise ModelError(
                f"{vlm.name}: a server's roll-outs need a Defender that trains a LoRA (defender.lora): only "
                f"that is handed over"
            )
        fresh = self.folder / "fresh"
        lora.save(vlm.model, fresh)
        if not writes_files():
            return ""
        name = (
            "sparring-" + hashlib.sha256((fresh / "adapter_model.safetensors").read_bytes()).hexdigest()[:16]
        )
        if name != self.adapter:
            place = self.folder / name
            shutil.rmtree(place, ignore_errors=True)
            fresh.rename(place)
            self.remote.tell(
                "/load_lora_adapter", {"lora_name": name, "lora_path": str(place)}, done_before="already"
            )
            if self.adapter is not None:
                self.remote.tell("/unload_lora_adapter", {"lora_name": self.adapter}, done_before="found")
                shutil.rmtree(self.folder / self.adapter, ignore_errors=True)
        return name

    def generate(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """As `LocalVLM.generate`, by the adapter published last. The log-probabilities are the server's own.
        Raises ModelError for a start.
        """
        if any(starts):
            raise ModelError(
                f"{self.remote.address}: a server's replies cannot be begun for it. Leave out "
                f"defender.rollout_server, or such texts."
            )
        if self.adapter is None:
            raise ModelError(f"{self.remote.address}: nothing was published yet that could answer")
        found = self.remote.sample(images, prompts, sampling, model=self.adapter)
        return [
            [
                Completion(one["text"], tuple(one["token_ids"]), tuple(one["logprobs"]), one["finished"])
                for one in own
            ]
            for own in found
        ]
