"""Asking a Defender, each thing once: what it has answered is in a file, by what decides the answer, and is read from there.

A question is known by the model (an address, or the hash of its files), the picture's pixels, the prompt, how the reply was begun, the settings of
generation, the pixel limits, and the number of the try. A model on this machine answers batches, which are kept whole or not at all:
its answers may differ in their last digits with what is asked beside them, and so a resumed probe asks the very batches of an undisturbed one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sparring.asking.answers import parse_answer
from sparring.config import DefenderSettings
from sparring.data.errors import ModelError
from sparring.data.images import image_sha256, load_image
from sparring.data.records import Answer, VisualQuestion
from sparring.engine.screen import Bar
from sparring.measures.faithfulness import LetterScore, letter_place, letter_score
from sparring.models.players import load_asked_defender
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.answer_cache import AnswerCache, answer_key
from sparring.models.vlms.base import VLM, Sampling
from sparring.models.vlms.letters import Lettered, ask_with_letters
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.processors import load_processor


@dataclass(frozen=True, slots=True)
class Request:
    """A question about the picture in a file, in these words, with the reply begun like this. trial: asked anew for every number."""

    question: VisualQuestion
    picture: Path
    prompt: str
    start: str = ""
    trial: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, whose text includes how it was begun, and the option letters at it (None: not asked for, or
    no letter of its own there).

    error: why there is no answer; its question is then in no figure.
    """

    answer: Answer
    letters: LetterScore | None
    error: str = ""


class Pictures:
    """Hashes of pictures by their files, each computed once."""

    def __init__(self) -> None:
        self._hashes: dict[Path, str] = {}

    def sha256(self, path: Path) -> str:
        """The hash of the pixels in that file."""
        if path not in self._hashes:
            self._hashes[path] = image_sha256(load_image(path))
        return self._hashes[path]


class Asker:
    """One Defender and the file of its answers. The model is loaded when it has something to answer."""

    def __init__(
        self, name: str, spec: str, settings: DefenderSettings, device: torch.device, cache: Path, pictures: Pictures, *, batch: int
    ) -> None:
        self.name, self.spec, self.settings, self.device = name, spec, settings, device
        self.cache_file, self.pictures, self.batch = cache, pictures, batch
        self.cache = AnswerCache(cache)
        self.unanswered: dict[str, str] = {}
        """Question id -> why it got no answer; such a question is not asked again in this process."""
        self._vlm: VLM | None = None
        self._identity: str | None = None

    @property
    def vlm(self) -> VLM:
        """The model. Raises ModelError where it cannot be had."""
        if self._vlm is None:
            self._vlm = load_asked_defender(self.spec, self.settings, self.device, self.cache_file)
        return self._vlm

    def rest(self) -> None:
        """Take the model out of memory."""
        self._vlm = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Close the file of answers."""
        self.cache.close()

    @property
    def identity(self) -> str:
        """What tells this model from any other: its address, or a hash of its files."""
        if self._identity is None:
            if is_endpoint(self.spec):
                self._identity = self.spec
            else:
                folder = Path(self.spec)
                if not folder.is_dir():
                    assert isinstance(self.vlm, LocalVLM)
                    assert self.vlm.folder is not None
                    folder = self.vlm.folder
                self._identity = files_sha256(folder)
        return self._identity

    def shown_pixels(self) -> dict[str, Any]:
        """The limits within which pictures are scaled before the model sees them."""
        if is_endpoint(self.spec):
            return {"max_pixels": self.settings.max_pixels, "scaled_by_server": "unknown"}
        settings = self.settings
        processor = load_processor(self.spec, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels).image_processor
        size = dict(processor.size)
        if size.get("shortest_edge") is not None and size.get("longest_edge") is not None and hasattr(processor, "merge_size"):
            return {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        return {"size": {name: value for name, value in size.items() if value is not None}}

    def ask(self, requests: Sequence[Request], bar: Bar, *, letters: bool = False) -> list[Said]:
        """One greedy answer to every request, in order; letters: with the option letters at each answer.
        What gets no answer is noted in `unanswered`.

        Errors: ModelError where the model cannot be had or an endpoint is taken to be down, RunError when
        its budget is used up.
        """
        found: list[Said] = []
        for start in range(0, len(requests), self.batch):
            part = requests[start : start + self.batch]
            keys = [answer_key(self._asked(request, letters)) for request in part]
            known = {key: self.cache.get(key) for key in keys}
            missing = list({key: i for i, key in enumerate(keys) if known[key] is None and not self._lost(part[i])}.values())
            if missing:
                fresh = dict[str, tuple[dict[str, Any], dict[str, Any]]]()
                for i, answer in zip(missing, self._answer([part[i] for i in missing], letters), strict=True):
                    if isinstance(answer, ModelError):
                        self.unanswered[part[i].question.id] = str(answer)
                    else:
                        known[keys[i]] = answer
                        fresh[keys[i]] = self._asked(part[i], letters), answer
                self.cache.put_all(self.identity, fresh)
            found += [self._said(request, known[key]) for request, key in zip(part, keys, strict=True)]
            bar.advance(len(part), {"right": sum(said.answer.right for said in found) / len(found)})
        return found

    def _lost(self, request: Request) -> bool:
        return request.question.id in self.unanswered

    def _asked(self, request: Request, letters: bool) -> dict[str, Any]:
        settings = self.settings
        return {
            "probed": self.identity,
            "image": self.pictures.sha256(request.picture),
            "prompt": request.prompt,
            "start": request.start,
            "letters": list(request.question.letters) if letters else None,
            # The letter is looked for where the reply names an option, in words too.
            "options": list(request.question.options) if letters else None,
            "trial": request.trial,
            "how": {"temperature": 0, "max_new_tokens": settings.max_new_tokens, "dtype": settings.dtype},
            "pixels": [settings.min_pixels, settings.max_pixels],
        }

    def _answer(self, requests: Sequence[Request], letters: bool) -> list[dict[str, Any] | ModelError]:
        images, prompts = [load_image(request.picture) for request in requests], [request.prompt for request in requests]
        starts = [request.start for request in requests]
        sampling = Sampling(self.settings.max_new_tokens, batch=self.settings.micro_batch)
        if letters:

            def place(i: int, text: str) -> int | None:
                own, put = answering(starts[i], text)
                found = letter_place(own, requests[i].question.options)
                return None if found is None or found < put else found - put

            options = [request.question.letters for request in requests]
            replies = ask_with_letters(self.vlm, images, prompts, options, place, sampling, starts=starts)
            return [reply if isinstance(reply, ModelError) else _scored(reply) for reply in replies]
        trials = {request.trial for request in requests}
        assert len(trials) == 1  # a call asks for one try
        said = self.vlm.try_each(images, prompts, replace(sampling, trial=trials.pop()), starts=starts)
        return [reply if isinstance(reply, ModelError) else {"text": reply.text, "tokens": reply.tokens} for reply in said]

    def _said(self, request: Request, answer: dict[str, Any] | None) -> Said:
        if answer is None:
            question = request.question
            reason = self.unanswered.get(question.id, "nothing was asked")
            return Said(Answer(question.id, self.name, "", None, "no_answer", False), None, reason)
        question, text = request.question, request.start + answer["text"]
        choice, rule = parse_answer(answering(request.start, answer["text"])[0], question.options)
        scored = answer.get("logprobs")
        score = None
        if scored is not None and any(value is not None for value in scored):
            score = letter_score([-math.inf if value is None else value for value in scored], question.answer)
        right_probability = None if score is None else score.right_probability
        return Said(
            Answer(question.id, self.name, text, choice, rule, choice == question.answer, right_probability, int(answer["tokens"])), score
        )


def _scored(reply: Lettered) -> dict[str, Any]:
    logprobs = None if reply.logprobs is None else [None if value == -math.inf else value for value in reply.logprobs]
    return {"text": reply.text, "tokens": reply.tokens, "logprobs": logprobs}


def answering(start: str, text: str) -> tuple[str, int]:
    """The part of a reply that is read for its answer, and how many of its characters were put there.

    What was put into the model's mouth is not its answer. A thought in tags is passed over by the parser, which needs to see it whole; where a
    thought without tags was begun, what follows is read alone.
    """
    return (start + text, len(start)) if "<think>" in start else (text, 0)


def files_sha256(folder: Path) -> str:
    """A hash over the names and contents of a checkpoint's weights and settings."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".jinja", ".txt", ".model")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
