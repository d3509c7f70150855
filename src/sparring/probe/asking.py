"""Asking a Defender at the desk, and its replies read with the option letters at them.

What it has answered is in a file and is read from there; a resumed probe asks the very batches of an
undisturbed one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparring.asking.answers import parse_answer
from sparring.asking.desk import Desk, Query, RawAnswer, Size
from sparring.asking.questions import answering
from sparring.config import ProbeSettings
from sparring.data.errors import RunError
from sparring.data.pictures import Picture, PictureFile
from sparring.data.records import Answer, VisualQuestion
from sparring.engine.crew import Engine, Make, OnCall
from sparring.engine.device import begin_computing
from sparring.engine.screen import Bar
from sparring.measures.faithfulness import LetterScore, letter_score
from sparring.models.players import load_asked_defender, traits_of_defender
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import VLM, Sampling
from sparring.models.vlms.processors import checkpoint_folder

ANSWERS = "answers.sqlite"
"""The file of a probe's folder that keeps answers."""
Pictures = dict[Picture, tuple[str, Size]]
"""What is known of pictures, for all Defenders: hash and size."""


@dataclass(frozen=True, slots=True)
class Request:
    """A question about the picture in a file, in these words, with the reply begun like this."""

    question: VisualQuestion
    picture: Path
    prompt: str
    start: str = ""

    def query(self, *, letters: bool) -> Query:
        """As the desk is told; letters: with the option letters at the answer."""
        options = self.question.options if letters else None
        return Query(self.question.id, (PictureFile(self.picture),), self.prompt, self.start, options)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, whose text includes how it was begun, and the option letters at it (None: not asked for, or
    no letter of its own there). picture: the hash of what was shown, "" where it cannot be read.

    error: why there is no answer; its question is then in no figure.
    """

    answer: Answer
    letters: LetterScore | None
    picture: str = ""
    error: str = ""


class Asker:
    """One Defender and the file of its answers. The model is loaded when it has something to answer, by this
    process or by a crew.
    """

    def __init__(
        self, name: str, spec: str, probe: ProbeSettings, engine: Engine, cache: Path, pictures: Pictures
    ) -> None:
        """cache: the file of answers. Raises RunError where it holds some that are kept in another way than
        now.
        """
        settings = probe.defender
        self.name, self.spec, self.settings, self.device = name, spec, settings, engine.device
        self.cache_file = cache
        self.traits = traits_of_defender(spec, settings)
        self.cache = AnswerCache(cache)
        if not self.traits.keeps_answers and self.cache.holds_earlier_probe():
            self.cache.close()
            raise RunError(
                f"{cache}: an earlier version of this program kept the answers of a model on this machine "
                f"there, and this one cannot read them. Go on with that version, or begin another probe "
                f"with --out."
            )
        sampling = Sampling(settings.max_new_tokens, batch=settings.micro_batch)
        make = Make(ready_defender, (spec, probe, cache))
        self._crew = OnCall(engine, None if self.traits.keeps_answers else make, lambda: self.vlm)
        self.desk = Desk(self.traits, self._crew, sampling, probe.batch, self.cache, pictures=pictures)
        self.unanswered: dict[str, str] = {}
        """Question id -> why it got no answer; such a question is not asked again in this process."""
        self._vlm: VLM | None = None
        self._identity: str | None = None

    @property
    def vlm(self) -> VLM:
        """The model in this process; a crew that had it makes room. Raises ModelError where it cannot be
        had.
        """
        if self._vlm is None:
            self.rest()
            self._vlm = load_asked_defender(self.spec, self.settings, self.device, self.cache_file)
        return self._vlm

    def rest(self) -> None:
        """Take the model out of memory."""
        self._vlm = None
        self._crew.close()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Let the model go, and close the file of answers."""
        self.rest()
        self.cache.close()

    @property
    def identity(self) -> str:
        """What the results call this model: its address, or a hash of its files."""
        if self._identity is None:
            self._identity = (
                self.spec if is_endpoint(self.spec) else files_sha256(checkpoint_folder(self.spec))
            )
        return self._identity

    def shown_pixels(self) -> dict[str, Any]:
        """The limits within which pictures are scaled before the model sees them, as the results
        call them.
        """
        limits = self.traits.pixels
        if "max_area_sent" in limits:
            return {"max_pixels": limits["max_area_sent"], "scaled_by_server": "unknown"}
        if "min_area" in limits:
            return {"min_pixels": limits["min_area"], "max_pixels": limits["max_area"]}
        return dict(limits)

    def ask(
        self, requests: Sequence[Request], bar: Bar, *, letters: bool = False, trial: int = 0
    ) -> list[Said]:
        """One greedy answer to every request, in order; letters: with the option letters at each answer;
        trial: asked anew for every number. What gets no answer is noted in `unanswered`.

        Errors: ModelError where the model cannot be had or an endpoint is taken to be down, RunError when
        its budget is used up.
        """
        size = self.traits.at_once(self.desk.batch)
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]

        def queries() -> Iterator[list[Query]]:
            for part in parts:
                yield [one.query(letters=letters) for one in part if one.question.id not in self.unanswered]

        found: list[Said] = []
        for part, raws in zip(parts, self.desk.ask_batches(queries(), trial=trial), strict=True):
            self.unanswered |= {raw.id: raw.error for raw in raws if raw.trouble is not None}
            by_id = {raw.id: raw for raw in raws}
            found += [self._said(request, by_id.get(request.question.id)) for request in part]
            bar.advance(len(part), {"right": sum(said.answer.right for said in found) / len(found)})
        return found

    def _said(self, request: Request, raw: RawAnswer | None) -> Said:
        question = request.question
        picture = raw.hashes[0] if raw is not None and raw.hashes else ""
        if raw is None or raw.trouble is not None:
            nothing = Answer(question.id, self.name, "", None, "no_answer", False)
            return Said(nothing, None, picture, self.unanswered[question.id])
        choice, rule = parse_answer(answering(request.start, raw.text)[0], question.options)
        score = None
        if raw.logprobs is not None and any(value != -math.inf for value in raw.logprobs):
            score = letter_score(raw.logprobs, question.answer)
        answer = Answer(
            question.id,
            self.name,
            request.start + raw.text,
            choice,
            rule,
            choice == question.answer,
            None if score is None else score.right_probability,
            raw.tokens,
        )
        return Said(answer, score, picture)


def ready_defender(spec: str, probe: ProbeSettings, cache: Path) -> VLM:
    """In a worker: the Defender, loaded."""
    device = begin_computing(probe.device, probe.threads)
    return load_asked_defender(spec, probe.defender, device, cache)


def files_sha256(folder: Path) -> str:
    """A hash over the names and contents of a checkpoint's weights and settings."""
    digest = hashlib.sha256()
    for path in sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".json", ".jinja", ".txt", ".model")
    ):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
