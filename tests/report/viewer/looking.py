"""What the viewer's tests share: a folder of runs, and a client that asks for this machine by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient
from PIL import Image

from report.fake_run import FakeRun, write_fake_run
from report.test_page import Page
from sparring.data.records import Answer, Edit, Verdict
from sparring.engine.ledger import Ledger
from sparring.report.viewer.app import make_app
from sparring.report.viewer.works import Work, Works

HOSTILE = "<script>alert('q')</script>\"><img src=x onerror=alert(1)>'; DROP TABLE edits; -- ../../{{ 7 * 7 }} \u202e\u2028é"


def client_of(root: Path, cache: Path, *, token: str | None = None, host: str = "127.0.0.1") -> TestClient:
    """A client of the viewer of `root`."""
    return TestClient(make_app(root, cache, token), base_url=f"http://{host}:8777", follow_redirects=False)


def work_of(folder: Path) -> Work:
    """The work in a folder."""
    found = Works(folder.parent).get(folder.name)
    assert found is not None
    return found


def write_game(
    out: Path, *, until_round: int | None = None, alter: Callable[[FakeRun], object] | None = None
) -> FakeRun:
    """A fake run of two rounds whose Attackers' updates have edits with rewards."""
    run = write_fake_run(out, held_out=16, rounds=2, steps=6, until_round=until_round, alter=alter)
    add_training(run)
    return run


def add_training(run: FakeRun) -> None:
    """Edits of the first round's updates 0 and 1: four samples of two questions each."""
    ledger, stage = Ledger(run.out), "round1/attacker"
    asked = [question for question in run.questions if question.targets][:2]
    ledger.record_answers(
        "round0/clean", 0, [Answer(q.id, "base", "yes", q.answer, "boxed", True) for q in asked]
    )
    for step in range(2):
        for number, question in enumerate(asked):
            image = Image.open(question.image).convert("RGB")
            edits = [
                Edit(question.id, "round1", "add", 5, image.point(lambda v, s=s: min(255, v + 9 * s)))
                for s in range(4)
            ]
            fooled = [(step + number + sample) % 3 == 0 for sample in range(4)]
            ledger.record_edits(stage, step, edits, list(range(4)))
            wrong = next(letter for letter in question.letters if letter != question.answer)
            answers = [
                Answer(
                    question.id, "base", "so \\boxed{}", wrong if own else question.answer, "boxed", not own
                )
                for own in fooled
            ]
            ledger.record_answers(stage, step, answers[:3], [0, 1, 2])
            verdicts = [
                Verdict(
                    question.id, 0.9, sample < 3, False, float(own and sample < 3), 0.1 + 0.2 * sample,
                    probability_drop=0.1 * sample,
                    notes={"reward_bonus": 0.1, "reward_efficacy": 0.2 * sample, "relit": 0.0, "answers": 1.0},
                )
                for sample, own in enumerate(fooled)
            ]  # fmt: skip
            ledger.record_verdicts(stage, step, verdicts, list(range(4)))
    ledger.close()


def page_of(client: TestClient, address: str) -> Page:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def tiles_of(client: TestClient, address: str) -> list[dict[str, str | None]]:
    return page_of(client, address).with_class("tile")


def pictures_of(client: TestClient, address: str) -> list[str]:
    return [
        str(attrs["src"])
        for name, attrs in page_of(client, address).elements
        if name == "img" and "src" in attrs
    ]
