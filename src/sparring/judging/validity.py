"""Label validity beyond integrity: an edit must neither add nor take away an object that the question is
about.

A judge model, which is not the Defender and never trained in the game, counts each queried object in the
clean and in the edited picture. Two counts that differ, or a reply that names no number, reject the edit.

An auditor, a function that the recipe names, is asked whether the right answer still is right. It is in no
reward.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from sparring.asking.prompts import filled
from sparring.config import CallSettings, JudgeSettings
from sparring.data.errors import DataError
from sparring.data.images import image_sha256
from sparring.data.records import VisualQuestion
from sparring.engine.calls import import_call
from sparring.engine.pool import LocalWorker, WorkersLostError
from sparring.judging.queried import queried_names
from sparring.models.players import DTYPES
from sparring.models.vlms.base import VLM, Sampling, ask_each_once, load_vlm

COUNT_TOKENS = 24  # room for "There are two cups in the picture.", beyond which a judge only rambles

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *(
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ),
)
_NUMBERS = {word: number for number, word in enumerate(_WORDS)} | {"no": 0, "none": 0, "single": 1}
_NUMBER = re.compile(rf"\b(?:{'|'.join(_NUMBERS)})\b|(?<![\w.,])\d+(?![\w]|[.,]\d)", re.IGNORECASE)


def parse_count(text: str) -> int | None:
    """The number that a reply states, in digits or words up to twenty; None where it states none, or several
    that differ.
    """
    found = {
        int(mention) if mention.isdigit() else _NUMBERS[mention.lower()] for mention in _NUMBER.findall(text)
    }
    return found.pop() if len(found) == 1 else None


class DuplicateCheck:
    """Has the count of a queried object changed, as a judge model sees it?"""

    def __init__(self, judge: VLM, settings: JudgeSettings, *, batch: int = 128) -> None:
        """`batch`: pictures handed to the judge at once. RecipeError where `judge.count_prompt` has another
        placeholder than {name}.
        """
        filled(settings.count_prompt, "judge.count_prompt", name="cup")
        self.judge = judge
        self.settings = settings
        self.batch = batch
        self._clean: dict[tuple[str, str], int | None] = {}

    def forget(self) -> None:
        """Drop the counts of clean pictures: for those that never come back."""
        self._clean.clear()

    def counts(self, images: Sequence[Image], names: Sequence[str]) -> list[int | None]:
        """How often each name's object is in the picture beside it, by the judge's greedy reply; None for
        one without a number, or where it gives none.
        """
        prompts = [filled(self.settings.count_prompt, "judge.count_prompt", name=name) for name in names]
        replies = ask_each_once(self.judge, images, prompts, Sampling(COUNT_TOKENS, batch=self.batch))
        return [None if reply is None else parse_count(reply.text) for reply in replies]

    def changed(
        self, questions: Sequence[VisualQuestion], cleans: Sequence[Image], edits: Sequence[Sequence[Image]]
    ) -> list[list[bool]]:
        """For every edit of every picture: True where a queried object's count differs from the clean
        picture's, or either is unknown. Two passes of the judge: over clean pictures not counted before, and
        over all edits.
        """
        if not len(questions) == len(cleans) == len(edits):
            raise DataError(
                f"{len(questions)} questions, {len(cleans)} clean pictures and {len(edits)} lists of edits "
                f"do not belong together"
            )
        names = [
            queried_names(question) if own else () for question, own in zip(questions, edits, strict=True)
        ]
        clean_keys = [image_sha256(clean) if own else "" for clean, own in zip(cleans, names, strict=True)]
        self._count_clean(
            (key, name, clean)
            for key, own, clean in zip(clean_keys, names, cleans, strict=True)
            for name in own
        )
        asked = [(q, e, name) for q, own in enumerate(names) for e in range(len(edits[q])) for name in own]
        counts = self.counts([edits[q][e] for q, e, _ in asked], [name for *_, name in asked])
        changed = [[False] * len(own) for own in edits]
        for (q, e, name), count in zip(asked, counts, strict=True):
            before = self._clean[clean_keys[q], name]
            changed[q][e] |= before is None or count is None or count != before
        return changed

    def _count_clean(self, wanted: Iterable[tuple[str, str, Image]]) -> None:
        missing = {(key, name): image for key, name, image in wanted if (key, name) not in self._clean}
        counts = self.counts(list(missing.values()), [name for _, name in missing])
        self._clean.update(zip(missing, counts, strict=True))


def load_duplicate_check(settings: JudgeSettings, device: torch.device, cache: Path) -> DuplicateCheck | None:
    """The check of the judge model, whose answers are kept in `cache` where it is an endpoint; None where
    there is no judge. Raises ModelError.
    """
    if settings.model is None:
        return None
    judge = load_vlm(
        settings.model, dtype=DTYPES[settings.dtype], device=device, endpoint=settings.endpoint, cache=cache
    )
    return DuplicateCheck(judge, settings, batch=settings.batch)


class Auditor:
    """Asks the function that `evaluation.audit` names; without one nothing is known.

    With more than one process the pictures are shared out among them: they start with the first audit and
    end with `close` or with this process, however it ends. What is found does not depend on their number.
    """

    def __init__(self, settings: CallSettings | None, processes: int) -> None:
        if settings is not None:
            import_call(settings, "evaluation.audit")
        # Other processes do not import the script that started them, so what stands in it is asked in this
        # process.
        of_script = settings is not None and settings.call.partition(":")[0] == "__main__"
        self.settings, self.processes = settings, 1 if of_script else processes
        self._workers = list[LocalWorker]()

    def audit(self, questions: Sequence[VisualQuestion], edits: Sequence[Image]) -> list[bool | None]:
        """The auditor's word on each edited picture of these questions; what it raises comes through."""
        if self.settings is None:
            return [None] * len(questions)
        if self.processes < 2 or len(questions) < 2:
            return [_ask(self.settings, *one) for one in zip(questions, edits, strict=True)]
        while len(self._workers) < self.processes:
            self._workers.append(LocalWorker())
        count = len(self._workers)
        shares = [
            worker.submit(_ask_all, self.settings, questions[first::count], edits[first::count])
            for first, worker in enumerate(self._workers)
        ]
        words: list[bool | None] = [None] * len(questions)
        try:
            for first, share in enumerate(shares):
                words[first::count] = share.result()
        except WorkersLostError:
            self.close()  # others begin with the next audit
            raise
        return words

    def close(self) -> None:
        """End the processes."""
        while self._workers:
            self._workers.pop().end()


def _ask_all(
    settings: CallSettings, questions: Sequence[VisualQuestion], edits: Sequence[Image]
) -> list[bool | None]:
    torch.set_num_threads(1)
    return [_ask(settings, *one) for one in zip(questions, edits, strict=True)]


def _ask(settings: CallSettings, question: VisualQuestion, edit: Image) -> bool | None:
    word = import_call(settings, "evaluation.audit")(question, edit, **settings.arguments)
    return None if word is None else bool(word)
