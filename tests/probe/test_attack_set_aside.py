"""Questions that get no answer or no edit, pictures that came back as they were, and Attackers that are found
wrong before anybody is asked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from endpoint_server import Server, dice, question, serving
from small_attack import attack, attack_of, figures_of
from small_game import write_game_questions
from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.config import ProbeSettings
from sparring.data.errors import DataError, ModelError, RecipeError
from sparring.probe.attackers import check_attackers

Make = Callable[..., ProbeSettings]
REFUSALS: dict[str, dict[str, Any]] = {
    "filter by HTTP": {
        "status": 400,
        "text": json.dumps({"error": {"message": "policy", "code": "content_filter"}}),
    },
    "filter": {"finish_reason": "content_filter"},
    "refusal": {"message": {"refusal": "No."}},
    "too large": {"status": 413, "text": "{}"},
}


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Six questions that can be told apart by their words."""
    path = write_game_questions(tmp_path / "q", 6)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps(own | {"question": f"Light {i}?"}) + "\n" for i, own in enumerate(lines))
    )
    return path


def settings_of(data: Path, url: str, attacker: str = "jpeg:10", **given: Any) -> ProbeSettings:
    plain = {"samples": 1, "defender__endpoint__first_wait": 0.01, "defender__endpoint__retries": 1}
    return attack_of(Path(attacker), data, url, "judge.model=null", "audit=null", **(plain | given))


def refusing(
    said: dict[str, Any], *words: str, only_edits: bool = False
) -> Callable[[Image.Image, dict[str, Any]], dict[str, Any]]:
    """Dice, but for questions with these words; only_edits: only when they come the second time."""
    seen = set[str]()

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        asked = question(body).split("?")[0]
        again = asked in seen
        seen.add(asked)
        return dict(said) if asked in words and (again or not only_edits) else dice(image, body)

    return answer


@pytest.mark.parametrize("kind", REFUSALS)
def test_one_question_that_gets_no_answer_is_set_aside_and_the_rest_goes_on(
    kind: str, numbered: Path, tmp_path: Path
) -> None:
    with serving(refusing(REFUSALS[kind], "Light 2")) as server:
        summary = attack(settings_of(numbered, server.url), tmp_path / "out")
        assert list(summary["set_aside"]) == ["q2"]
        clean = summary["defenders"]["victim"]["clean_accuracy"]
        assert (summary["questions"], figures_of(summary)["edits"]["made"], clean["n"]) == (5, 5, 5)
        assert any('"q2" is set aside' in text for text in summary["warnings"])
        before = len(server.lines)
        assert (
            attack(settings_of(numbered, server.url), tmp_path / "out")["set_aside"] == summary["set_aside"]
        )
        assert len(server.lines) == before + 1  # that one alone is asked again
    rows = _rows(tmp_path / "out", "SELECT question_id FROM answers")
    assert ("q2",) not in rows


def test_an_edit_that_gets_no_answer_sets_its_question_aside(numbered: Path, tmp_path: Path) -> None:
    with serving(refusing(REFUSALS["filter"], "Light 1", only_edits=True)) as server:
        summary = attack(settings_of(numbered, server.url, judge__integrity_threshold=-1), tmp_path / "out")
    assert list(summary["set_aside"]) == ["q1"]
    assert "no answer of victim" in summary["set_aside"]["q1"]
    clean = summary["defenders"]["victim"]["clean_accuracy"]
    assert (clean["n"], figures_of(summary)["edits"]["accepted"]["n"]) == (5, 5)


def test_a_defender_that_refuses_everything_is_told(numbered: Path, tmp_path: Path) -> None:
    with (
        serving(lambda image, body: {"message": {"refusal": "No."}}) as server,
        pytest.raises(ModelError, match="all 6 questions had to be"),
    ):
        attack(settings_of(numbered, server.url), tmp_path / "out")


def test_a_picture_that_cannot_be_edited_sets_its_question_aside(
    numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparring.attackers.rivals.corruptions import Jpeg

    real = Jpeg._edit_one

    def fails(self: Jpeg, own: Any, image: Image.Image, seed: int) -> Any:
        if own.id == "q4":
            raise IndexError("index 3 is out of bounds")
        return real(self, own, image, seed)

    monkeypatch.setattr(Jpeg, "_edit_one", fails)
    with serving() as server:
        summary = attack(settings_of(numbered, server.url), tmp_path / "out")
    assert list(summary["set_aside"]) == ["q4"]
    assert (
        "jpeg:10 cannot edit its picture of 64 x 64 pixels: index 3 is out of bounds"
        in summary["set_aside"]["q4"]
    )
    monkeypatch.setattr(Jpeg, "_edit_one", lambda *_: 1 / 0)
    with serving() as server, pytest.raises(ModelError, match=r"all 6 questions.*division by zero"):
        attack(settings_of(numbered, server.url), tmp_path / "none")


def test_an_edit_that_the_checks_break_over_sets_its_question_aside(numbered: Path, tmp_path: Path) -> None:
    with serving() as server:
        audit = {"call": "small_auditor:breaks"}
        settings = attack_of(
            Path("jpeg:10"), numbered, server.url, "judge.model=null", samples=1, audit=audit
        )
        summary = attack(settings, tmp_path / "out")
    assert list(summary["set_aside"]) == ["q2"]
    assert "its edit by jpeg:10 cannot be checked: KeyError('q2')" in summary["set_aside"]["q2"]
    assert summary["questions"] == 5


@pytest.mark.parametrize("size", [(300, 1), (1, 300), (4000, 8)])
def test_a_picture_that_a_local_defender_does_not_take(
    size: tuple[int, int], numbered: Path, tmp_path: Path
) -> None:
    noise_pictures(1, size=size)[0].save(numbered.parent / "3.png")
    lines = [json.loads(line) for line in numbered.read_text().splitlines()]
    lines[3]["targets"] = []
    lines[1]["question"] = "Light <|image_pad|>?"
    numbered.write_text("".join(json.dumps(own) + "\n" for own in lines))
    model = tiny_qwen2_5_vl(tmp_path / "vlm")
    settings = settings_of(numbered, "", defender=str(model), defender__max_new_tokens=3)
    summary = attack(settings, tmp_path / "out")
    assert set(summary["set_aside"]) == {"q1", "q3"}
    assert "<|image_pad|>" in summary["set_aside"]["q1"]
    assert "aspect ratio" in summary["set_aside"]["q3"]
    assert summary["questions"] == 4


def test_pictures_that_came_back_as_they_were_are_no_attacks(numbered: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in numbered.read_text().splitlines()]
    for own in lines[:2]:
        own["targets"] = [{"name": "cup", "box": [0, 0, 64, 64]}]  # no free place anywhere
    numbered.write_text("".join(json.dumps(own) + "\n" for own in lines))
    with serving() as server:
        summary = attack(settings_of(numbered, server.url, "paste:add", samples=2), tmp_path / "out")
        asked = len(server.lines)
    right = {
        name
        for name, right in _rows(
            tmp_path / "out", "SELECT question_id, right FROM answers WHERE stage = 'clean'"
        )
        if right
    }
    own = figures_of(summary)
    assert (own["edits"]["made"], own["unchanged"]) == (12, 4)
    assert own["edits"]["accepted"]["n"] == own["edits"]["intact"]["n"] == 8
    assert [each["asr"]["n"] for each in own["asr_at_k"]] == [len(right - {"q0", "q1"})] * 2
    assert own["asr"]["n"] == len(right - {"q0", "q1"})
    assert any("it left 4 of 12 pictures as they were" in text for text in summary["warnings"])
    accepted = _rows(
        tmp_path / "out", "SELECT question_id, accepted FROM verdicts WHERE question_id IN ('q0', 'q1')"
    )
    assert {value for _, value in accepted} == {0}
    edits = {image for (image,) in _rows(tmp_path / "out", "SELECT count(*) FROM verdicts WHERE accepted")}
    assert asked == 6 + edits.pop()  # nobody is asked about what did not change


def test_a_widened_canvas_is_taken(numbered: Path, tmp_path: Path) -> None:
    with serving() as server:
        summary = attack(settings_of(numbered, server.url, "paste:insert"), tmp_path / "out")
    accepted = figures_of(summary)["edits"]["accepted"]
    assert accepted == {**accepted, "value": 1.0, "n": 6}


def _rows(out: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        return db.execute(query).fetchall()


# ---- before anybody is asked


@pytest.fixture
def silent() -> Iterator[Server]:
    """A server that must not be asked anything."""
    with serving() as server:
        yield server
        assert server.lines == []


@pytest.mark.parametrize(
    ("attacker", "error", "message"),
    [
        ("corruption:fogg:3", RecipeError, 'did you mean "fog"'),
        ("corruption:fog:9", RecipeError, "severity must be a whole number"),
        ("jpeg:200", RecipeError, "quality must be"),
        ("paste:ad", RecipeError, "paste:ad"),
        ("paste:add:folder=/no/where", DataError, "no cut-outs there"),
        ("pgd:eps=x", RecipeError, "eps=x"),
        ("pgd:eps=8", RecipeError, "an endpoint gives none"),
        ("benign@/no/where", ModelError, "there is no such folder"),
        ("/no/where", ModelError, "there is no such folder"),
    ],
)
def test_a_wrong_attacker_is_found_before_anybody_is_asked(
    attacker: str, error: type[Exception], message: str, numbered: Path, silent: Server, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        attack(settings_of(numbered, silent.url, attacker), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gradient_attack_on_a_family_that_it_does_not_know(numbered: Path, tmp_path: Path) -> None:
    settings = settings_of(numbered, "", "pgd:eps=8", defender=str(tiny_llava(tmp_path / "vlm")))
    with pytest.raises(ModelError, match=r"vlm: a gradient attack on pixels needs a picture processor.*CLIP"):
        check_attackers(settings)
    known = settings_of(numbered, "", "pgd:eps=8", defender=str(tiny_qwen2_5_vl(tmp_path / "known")))
    check_attackers(known)


def test_editors_and_loras_are_checked_without_their_weights(
    editor: Path, numbered: Path, silent: Server, tmp_path: Path
) -> None:
    broken = tmp_path / "lora"
    broken.mkdir()
    for attacker in (f"{editor}+{broken}", f"roundtrip@{editor}+{broken}"):
        with pytest.raises(ModelError, match="no LoRA there"):
            attack(settings_of(numbered, silent.url, attacker), tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    (other / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match="its pipeline class is FluxPipeline"):
        attack(settings_of(numbered, silent.url, str(other)), tmp_path / "out")
