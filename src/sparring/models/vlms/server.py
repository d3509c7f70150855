"""Roll-outs of a Defender in training by servers that have its base model: after every update they are given
its newest weights, a LoRA adapter or all of them.

The weights are written to a folder that the servers can read, and loaded by their own protocols (`orders`).
Weights are known by a hash: the same ones have the same name in every process, so that a resumed run finds
again what it published and what was answered.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image

from sparring.config import RolloutServerSettings
from sparring.data.errors import ModelError, SparringError
from sparring.engine.ranks import writes_files
from sparring.models.vlms import lora, orders
from sparring.models.vlms.base import Completion, Sampling
from sparring.models.vlms.endpoint import EndpointVLM
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.server_check import ServerCheck

Result = TypeVar("Result")


class RolloutServer:
    """Samples for a local Defender, with tokens and log-probabilities, by the weights that were published
    last. Several servers share the prompts out evenly.
    """

    def __init__(
        self,
        settings: RolloutServerSettings,
        folder: Path,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        cache: Path | None = None,
        earlier: Sequence[Path] = (),
    ) -> None:
        """folder: where weights are written, unless the settings name one. min_pixels, max_pixels: see
        `ServerCheck`; the servers are sent pictures as they are and resize them as training does. cache: see
        `EndpointVLM`. earlier: adapters that are merged into the Defender's weights and that the servers'
        base model lacks; what is published holds them too.
        """
        self.settings = settings
        self.remotes = [EndpointVLM(address, settings.endpoint, cache=cache) for address in settings.address]
        self.folder = Path(settings.folder or folder).resolve()
        self.earlier = earlier
        self.check = ServerCheck(settings.probe_tolerance, min_pixels=min_pixels, max_pixels=max_pixels)
        self.published: str | None = None
        self.adapts = True

    @property
    def name(self) -> str:
        """The base model's name on the first server."""
        return self.remotes[0].name

    def publish(self, vlm: LocalVLM) -> str:
        """Write the Defender's adapter, or all its weights where it has none, have every server load it, and
        forget the one before. Returns its name, to be kept in `published`.

        Several processes all call it; the first one publishes, and the others get no name. Raises ModelError
        where a server does not take it.
        """
        self.adapts = bool(lora.layers(vlm.model))
        fresh = self.folder / "fresh"
        if writes_files():
            shutil.rmtree(fresh, ignore_errors=True)
        if self.adapts:
            lora.save(vlm.model, fresh, self.earlier)
        else:
            vlm.save(fresh)
        if not writes_files():
            return ""
        name = f"sparring-{_hash_of(fresh)[:16]}"
        if name != self.published:
            place = self.folder / name
            shutil.rmtree(place, ignore_errors=True)
            fresh.rename(place)
            load = orders.load_adapter if self.adapts else orders.load_weights
            self._tell(load(self.settings.kind, name, place))
            self._drop()
        return name

    def forget(self) -> None:
        """After the last update: have the servers forget the adapter published last, and remove what was
        written for them. A server that does not answer any more is warned of: nothing depends on it.
        """
        try:
            if writes_files():
                self._drop()
        except SparringError as error:
            warnings.warn(f"the last adapter may still be loaded: {error}", stacklevel=2)
        self.published = None

    def _drop(self) -> None:
        if self.published is not None:
            shutil.rmtree(self.folder / self.published, ignore_errors=True)
            if self.adapts:
                self._tell(orders.unload_adapter(self.settings.kind, self.published))

    def look(self, vlm: LocalVLM, temperature: float) -> float:
        """How far the servers' log-probabilities of a few fixed replies are from the Defender's, in nats a
        token: see `ServerCheck`. Raises ModelError where that is too far.
        """
        return self.check.look(vlm, self.remotes, self._how(), temperature)

    def generate(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """As `LocalVLM.generate`, by the weights published last. The log-probabilities are the servers' own.
        Raises ModelError for a start.

        A prompt goes to the server of its number modulo theirs, so that the processes of one training share
        them out evenly too; its replies do not depend on which server that is, as far as servers are alike.
        """
        if any(starts):
            raise ModelError(
                f"{self.remotes[0].address}: a server's replies cannot be begun for it. Leave out "
                f"defender.rollout_server, or such texts."
            )
        how, count = self._how(), len(self.remotes)
        numbers = [sampling.number(i) for i in range(len(prompts))]
        shares = [[i for i, own in enumerate(numbers) if own % count == place] for place in range(count)]

        def ask(number: int) -> list[list[Completion]]:
            own = shares[number]
            found = self.remotes[number].sample(
                [images[i] for i in own],
                [prompts[i] for i in own],
                sampling,
                how=how,
                numbers=[numbers[i] for i in own],
            )
            return [
                [
                    Completion(one["text"], tuple(one["token_ids"]), tuple(one["logprobs"]), one["finished"])
                    for one in replies
                ]
                for replies in found
            ]

        answered = self._each(ask)
        at = {
            i: replies
            for own, got in zip(shares, answered, strict=True)
            for i, replies in zip(own, got, strict=True)
        }
        return [at[i] for i in range(len(prompts))]

    def _how(self) -> dict[str, object]:
        if self.published is None:
            raise ModelError(f"{self.remotes[0].address}: nothing was published yet that could answer")
        return orders.how_to_ask(self.settings.kind, self.published, adapter=self.adapts)

    def _tell(self, steps: Sequence[orders.Order]) -> None:
        def tell(number: int) -> None:
            for order in steps:
                self.remotes[number].tell(order)

        self._each(tell)

    def _each(self, work: Callable[[int], Result]) -> list[Result]:
        """work(number) of every server, all at a time. The first error is raised, once all have ended."""
        with ThreadPoolExecutor(len(self.remotes)) as pool:
            return list(pool.map(work, range(len(self.remotes))))


def _hash_of(folder: Path) -> str:
    """SHA-256 of the weights in a folder, by file."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
