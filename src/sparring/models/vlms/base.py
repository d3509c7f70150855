"""What the game asks of a vision-language model, and the one place where a model is made from its name.

A model that answers is a `VLM`, whether its weights are in this process (`LocalVLM`) or behind an
OpenAI-compatible endpoint (`EndpointVLM`). Only a local one can be trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.config import EndpointSettings
from sparring.data.errors import ModelError, RefusedError
from sparring.models.vlms.address import is_endpoint, parse_address
from sparring.models.vlms.letters import Lettered, Locate
from sparring.models.vlms.traits import EndpointTraits, LocalTraits, Traits

if TYPE_CHECKING:
    from sparring.models.vlms.local import LocalVLM

Pictures = Image | Sequence[Image]
"""What stands beside a text: one picture, or any number of them in order, also none."""


def each_picture(pictures: Pictures) -> list[Image]:
    """The pictures beside one text, as a list of RGB pictures."""
    return [image.convert("RGB") for image in ([pictures] if isinstance(pictures, Image) else pictures)]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn.

    temperature: 0 is greedy, and all n replies to a prompt are then the same. top_p, top_k: see
    `sampling.choose`; 1 and 0 leave every token to be drawn. numbers: of the prompts; 0, 1, ... if left out.
    The replies to a prompt depend on the seed and on its number, not on the prompts beside it. batch: of how
    many replies, about, a model on this machine computes at a time. trial: a greedy question that is put
    again is asked again once for every number; a model that says the same again takes no notice.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    n: int = 1
    numbers: Sequence[int] = ()
    batch: int = 128
    trial: int = 0

    def number(self, place: int) -> int:
        """Of the prompt at that place."""
        return self.numbers[place] if self.numbers else place


class Reply(Protocol):
    """One reply: its text, how many tokens it took (0 where that is not known), and whether it ended by
    itself.
    """

    @property
    def text(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def finished(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply: its text without special tokens, its tokens with the end token where it `finished`, and
    their log-probabilities.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool

    @property
    def tokens(self) -> int:
        """How many tokens it took."""
        return len(self.token_ids)


class VLM(Protocol):
    """A vision-language model that can be asked: pictures (as a rule one) and one text in, text out."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits:
        """How it is best asked, and what its answers depend on."""

    @property
    def device(self) -> torch.device:
        """Where tensors about its pictures are best put."""

    def generate(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> Sequence[Sequence[Reply]]:
        """`sampling.n` replies to every prompt about the pictures beside it.

        starts: what the replies to each prompt begin with, put into the model's mouth; they are no part of
        the replies. Errors: RefusedError for prompts or pictures that the model does not take.
        """

    def try_each(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        numbers: Sequence[int] = (),
        starts: Sequence[str] = (),
    ) -> Sequence[Reply | ModelError]:
        """One reply to every prompt, or the error by which there is none; the others are asked all the same.

        numbers: of the prompts, for those who draw a reply by its number and not by its place here.
        """

    def try_letters(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        letters: Sequence[Sequence[str]],
        locate: Locate,
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> Sequence[Lettered | ModelError]:
        """As `try_each`, with the log-probabilities of `letters[i]` at the answer of reply i; the prompts'
        numbers are their places. Raises ModelError where the model tells no log-probabilities.
        """

    def spending(self) -> Mapping[str, float]:
        """What it has cost since its cache was begun; nothing where it is on this machine."""

    def resting(self) -> AbstractContextManager[None]:
        """Inside, its weights lie in the CPU's memory and it is not asked, so that others have the
        accelerator; then they are back.
        """

    def option_probabilities(
        self, images: Sequence[Pictures], prompts: Sequence[str], answers: Sequence[str], *, batch: int = 128
    ) -> Tensor:
        """probability_P (float32, CPU) of each text as the reply to its prompt, length-normalised: exp(mean
        log-probability of its tokens).

        Errors: ModelError where the model does not tell log-probabilities.
        """


@contextmanager
def all_resting(vlms: Iterable[VLM]) -> Iterator[None]:
    """Inside, all of these rest."""
    with ExitStack() as stack:
        for vlm in vlms:
            stack.enter_context(vlm.resting())
        yield


def ask_each_once(
    vlm: VLM, images: Sequence[Pictures], prompts: Sequence[str], sampling: Sampling
) -> list[Reply | None]:
    """One reply to every prompt, None to one that the model refuses: what a judge asks, to whom a question
    without an answer is unread.

    Errors: those of the model, but for RefusedError.
    """
    found = generate_each(vlm, images, prompts, sampling)
    return [None if isinstance(own, RefusedError) else own[0] for own in found]


def generate_each(
    vlm: VLM, images: Sequence[Pictures], prompts: Sequence[str], sampling: Sampling
) -> list[Sequence[Reply] | RefusedError]:
    """As `VLM.generate`, with the error in the place of a prompt that the model refuses. The others are asked
    all the same, and keep their numbers.

    Errors: those of the model, but for RefusedError.
    """
    refused = dict[int, RefusedError]()
    while True:
        taken = [i for i in range(len(prompts)) if i not in refused]
        try:
            replies = vlm.generate(
                [images[i] for i in taken],
                [prompts[i] for i in taken],
                replace(sampling, numbers=[sampling.number(i) for i in taken]),
            )
        except RefusedError as error:
            if len(taken) == 1:
                refused[taken[0]] = error
            elif error.places:
                refused |= {taken[place]: RefusedError(said) for place, said in error.places.items()}
            else:  # it does not say which
                return [
                    generate_each(vlm, [image], [prompt], replace(sampling, numbers=[sampling.number(i)]))[0]
                    for i, (image, prompt) in enumerate(zip(images, prompts, strict=True))
                ]
            continue
        answered = dict(zip(taken, replies, strict=True))
        return [refused[i] if i in refused else answered[i] for i in range(len(prompts))]


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
    """A model by its folder, hub id, or endpoint (`http://127.0.0.1:8000/v1#model`). Raises ModelError when
    it cannot be had.

    endpoint, cache: how an endpoint is asked, and the SQLite file that keeps its answers; without effect on
    local models. Pixel limits: see `load_processor`; an endpoint is sent pictures scaled down to
    `max_pixels`, and takes no `min_pixels`.
    """
    if not is_endpoint(spec):
        from sparring.models.vlms.local import LocalVLM

        return LocalVLM.load(spec, dtype=dtype, device=device, min_pixels=min_pixels, max_pixels=max_pixels)
    from sparring.models.vlms.endpoint import EndpointVLM

    if min_pixels is not None:
        raise ModelError(
            f"{spec}: min_pixels cannot be set for an endpoint; its server decides. Leave it out."
        )
    return EndpointVLM(
        spec, endpoint or EndpointSettings(), cache=cache, max_pixels=max_pixels, device=torch.device(device)
    )


def traits_of(
    spec: str,
    *,
    dtype: str = "float32",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    endpoint: EndpointSettings | None = None,
) -> Traits:
    """The traits of the model that `load_vlm` would give, without its weights. Raises ModelError for a spec
    that is none; their identity and limits raise it where the model's files cannot be had.
    """
    if is_endpoint(spec):
        return EndpointTraits(parse_address(spec), endpoint or EndpointSettings(), max_pixels=max_pixels)
    from sparring.models.vlms.processors import checkpoint_folder, load_processor

    return LocalTraits(
        Path(spec).name,
        dtype,
        folder=lambda: checkpoint_folder(spec),
        processor=lambda: load_processor(spec, min_pixels=min_pixels, max_pixels=max_pixels),
    )


def require_vlm(spec: str | None) -> None:
    """Raise ModelError where a model cannot be had, as far as its processor tells; whether an endpoint
    answers is found out by asking it. None: no model.
    """
    if spec is not None and not is_endpoint(spec):
        from sparring.models.vlms.processors import load_processor

        load_processor(spec)


def local_weights(vlm: VLM, otherwise: Exception) -> LocalVLM:
    """The model itself, whose weights are in this process, to train it or for its gradients. Raises
    `otherwise` for one that an endpoint serves.
    """
    from sparring.models.vlms.local import LocalVLM

    if not isinstance(vlm, LocalVLM):
        raise otherwise
    return vlm
