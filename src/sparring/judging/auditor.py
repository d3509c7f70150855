"""The recipe's auditor at work: is the right answer still right in an edited picture? Several processes share
the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from PIL.Image import Image

from sparring.config import CallSettings
from sparring.data.records import VisualQuestion
from sparring.engine.calls import import_call
from sparring.engine.pool import Workers


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
        self._pool: Workers | None = None

    def audit(self, questions: Sequence[VisualQuestion], edits: Sequence[Image]) -> list[bool | None]:
        """The auditor's word on each edited picture of these questions; what it raises comes through."""
        if self.settings is None:
            return [None] * len(questions)
        ask = partial(_ask, self.settings)
        if self.processes < 2 or len(questions) < 2:
            return list(map(ask, questions, edits))
        if self._pool is None:
            self._pool = Workers(self.processes, _one_thread)
        return list(self._pool.map(ask, questions, edits, chunksize=4))

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _one_thread() -> None:
    torch.set_num_threads(1)


def _ask(settings: CallSettings, question: VisualQuestion, edit: Image) -> bool | None:
    word = import_call(settings, "evaluation.audit")(question, edit, **settings.arguments)
    return None if word is None else bool(word)
