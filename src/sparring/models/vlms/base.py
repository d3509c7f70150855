"""What the game asks of a vision-language model, and the one place where a model is made from its name.

A model that answers is a `VLM`, whether its weights are in this process (`LocalVLM`) or behind an OpenAI-compatible endpoint (`EndpointVLM`).
Only a local one can be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.config import EndpointSettings
from sparring.data.errors import ModelError, RefusedError
from sparring.models.vlms.address import is_endpoint

Pictures = Image | Sequence[Image]
"""What stands beside a text: one picture, or any number of them in order, also none."""


def each_picture(pictures: Pictures) -> list[Image]:
    """The pictures beside one text, as a list of RGB pictures."""
    return [image.convert("RGB") for image in ([pictures] if isinstance(pictures, Image) else pictures)]


class Reply(Protocol):
    """One reply: its text, how many tokens it took (0 where that is not known), and whether it ended by itself."""

    @property
    def text(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def finished(self) -> bool: ...


class VLM(Protocol):
    """A vision-language model that can be asked: pictures (as a rule one) and one text in, text out."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> torch.device:
        """Where tensors about its pictures are best put."""

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
        batch: int = 128,
        starts: Sequence[str] = (),
    ) -> Sequence[Sequence[Reply]]:
        """n replies to every prompt about the pictures beside it; temperature 0 is greedy. Those of prompt i depend on the seed and on i.

        starts: what the replies to each prompt begin with, put into the model's mouth; they are no part of the replies.
        Errors: RefusedError for prompts or pictures that the model does not take.
        """

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
    ) -> Sequence[Reply | ModelError]:
        """One reply to every prompt, or the error by which there is none; the others are asked all the same.

        numbers: of the prompts, for those who draw a reply by its number and not by its place here. trial: see `EndpointVLM.generate`; a model on
        this machine says the same again.
        """

    def option_probabilities(
        self, images: Sequence[Pictures], prompts: Sequence[str], answers: Sequence[str], *, batch: int = 128
    ) -> Tensor:
        """probability_P (float32, CPU) of each text as the reply to its prompt, length-normalised: exp(mean log-probability of its tokens).

        Errors: ModelError where the model does not tell log-probabilities.
        """


def ask_each_once(
    vlm: VLM, images: Sequence[Pictures], prompts: Sequence[str], *, max_new_tokens: int, batch: int = 128
) -> list[Reply | None]:
    """One greedy reply to every prompt, None to one that the model refuses: what a judge asks, to whom a question without an answer is unread.

    Errors: those of the model, but for RefusedError.
    """
    try:
        found = vlm.generate(images, prompts, max_new_tokens=max_new_tokens, temperature=0.0, seed=0, batch=batch)
        return [own[0] for own in found]
    except RefusedError:
        replies = vlm.try_each(images, prompts, max_new_tokens=max_new_tokens, batch=batch)
    lost = [reply for reply in replies if isinstance(reply, ModelError) and not isinstance(reply, RefusedError)]
    if lost:
        raise lost[0]
    return [None if isinstance(reply, ModelError) else reply for reply in replies]


def load_vlm(
    spec: str,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    endpoint: EndpointSettings | None = None,
    cache: Path | None = None,
) -> VLM:
    """A model by its folder, hub id, or endpoint (`http://127.0.0.1:8000/v1#model`). Raises ModelError when it cannot be had.

    endpoint, cache: how an endpoint is asked, and the SQLite file that keeps its answers; without effect on local models. Pixel limits: see
    `load_processor`; an endpoint is sent pictures scaled down to `max_pixels`, and takes no `min_pixels`.
    """
    if not is_endpoint(spec):
        from sparring.models.vlms.local import LocalVLM

        return LocalVLM.load(spec, dtype=dtype, device=device, min_pixels=min_pixels, max_pixels=max_pixels)
    from sparring.models.vlms.endpoint import EndpointVLM

    if min_pixels is not None:
        raise ModelError(f"{spec}: min_pixels cannot be set for an endpoint; its server decides. Leave it out.")
    return EndpointVLM(spec, endpoint or EndpointSettings(), cache=cache, max_pixels=max_pixels, device=torch.device(device))
