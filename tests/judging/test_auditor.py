"""The auditor: the same words whatever the number of processes, its errors, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from sparring.config import CallSettings
from sparring.data.errors import DataError, RecipeError
from sparring.data.records import VisualQuestion
from sparring.judging.validity import Auditor

HERE = CallSettings(call="small_auditor:by_width", arguments={"limit": 6})


def cases() -> tuple[list[VisualQuestion], list[Image.Image]]:
    names = ["a", "b", "unknown", "c", "d", "e", "f", "g", "h", "i"]
    questions = [VisualQuestion(name, Path("x.png"), "?", ("yes", "no"), "A", (), None) for name in names]
    return questions, [Image.new("RGB", (width + 1, 4)) for width in range(len(names))]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_words_of_the_recipes_function(processes: int) -> None:
    with closing(Auditor(HERE, processes)) as auditor:
        for _ in range(2):
            assert auditor.audit(*cases()) == [
                True,
                True,
                None,
                True,
                True,
                False,
                False,
                False,
                False,
                False,
            ]
        questions, images = cases()
        broken = [VisualQuestion("broken", Path("x.png"), "?", ("yes", "no"), "A", (), None), *questions]
        with pytest.raises(DataError, match="broken"):
            auditor.audit(broken, [images[0], *images])


def test_a_function_of_the_script_itself_is_asked_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    own = lambda question, edit: asked.append(os.getpid()) or edit.width < 6  # type: ignore[func-returns-value]  # noqa: E731
    monkeypatch.setattr(sys.modules["__main__"], "word_of_the_script", own, raising=False)
    with closing(Auditor(CallSettings(call="__main__:word_of_the_script"), 2)) as auditor:
        assert auditor.audit(*cases()) == [True] * 5 + [False] * 5
    assert set(asked) == {os.getpid()}


def test_without_a_function_nothing_is_known() -> None:
    assert Auditor(None, 2).audit(*cases()) == [None] * 10


def test_a_wrong_name_is_an_error_at_once() -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.audit"):
        Auditor(CallSettings(call="small_auditor:nothing"), 1)


def audit_and_wait(pids: multiprocessing.Queue[list[int]]) -> None:
    auditor = Auditor(HERE, 2)
    auditor.audit(*cases())
    pids.put([process.pid or 0 for process in multiprocessing.active_children()])
    time.sleep(60)


@pytest.mark.slow
def test_its_processes_end_when_the_run_is_killed() -> None:
    context = multiprocessing.get_context("spawn")
    pids = context.Queue()
    run = context.Process(target=audit_and_wait, args=(pids,))
    run.start()
    try:
        workers = pids.get(timeout=240)
    finally:
        os.kill(run.pid or 0, signal.SIGKILL)
        run.join()
    assert workers
    for _ in range(100):
        if not any(running(pid) for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail("processes of the audit outlived the run")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
