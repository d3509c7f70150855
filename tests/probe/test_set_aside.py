"""A probe goes on where a question gets no answer or no edit: it is named, and in no figure of any
Defender.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from endpoint_server import dice, question, serving
from small_checkpoints import tiny_flux2_klein
from small_forge import is_light
from small_game import write_game_questions
from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.config import ProbeSettings
from sparring.data.errors import ModelError, RecipeError
from sparring.engine.screen import Screen
from sparring.probe.run import run_probe


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    path = write_game_questions(tmp_path / "q", 6)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps(own | {"question": f"Light {i}?"}) + "\n" for i, own in enumerate(lines))
    )
    return path


def rewritten(path: Path, number: int, **changes: Any) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number] |= changes
    path.write_text("".join(json.dumps(own) + "\n" for own in lines))


def probe(questions: Path, defenders: dict[str, str], out: Path, **changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "data": str(questions),
        "device": "cpu",
        "threads": 1,
        "batch": 4,
        "resamples": 100,
        "text": False,
        "letters": False,
        "defenders": defenders,
        "defender": {
            "model": next(iter(defenders.values())),
            "prompt": "{question} {options}",
            "max_new_tokens": 4,
            "endpoint": {"retries": 1, "first_wait": 0.01},
        },
        "attackers": {"jpeg": "jpeg:10"},
        "judge": {"integrity_threshold": -1},
    }
    return run_probe(ProbeSettings.model_validate(data | changes), out, Screen(Console(file=io.StringIO())))


def test_a_question_that_one_defender_filters_is_in_no_figure_of_either(
    numbered: Path, tmp_path: Path
) -> None:
    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        filtered = body["model"] == "shy" and "Light 2" in question(body)
        return {"text": None, "finish_reason": "content_filter"} if filtered else dice(image, body)

    with serving(answer) as server:
        defenders = {"open": f"{server.url}#open", "shy": f"{server.url}#shy"}
        results = probe(numbered, defenders, tmp_path / "out", text=True)
        asked = len(server.lines)
        again = probe(numbered, defenders, tmp_path / "out", text=True)
        assert len(server.lines) == asked + 1  # the filtered question alone, once
    assert list(results["set_aside"]) == ["q2"] == list(again["set_aside"])
    assert "no answer of shy" in results["set_aside"]["q2"]
    assert results["questions"] == 5
    for name in defenders:
        own = results["defenders"][name]
        assert own["clean_accuracy"]["n"] == 5
        assert own["conditions"]["wrong_caption"]["accuracy"]["n"] == 5
        assert own["robustness"]["attackers"]["jpeg"]["accuracy"]["n"] == 5
    assert results["differences"]["of"]["shy"]["jpeg"]["n"] == 5
    assert any('"q2" is set aside' in text for text in results["warnings"])
    assert {name: own for name, own in again.items() if name in ("defenders", "transfer")}.keys() == {
        "defenders",
        "transfer",
    }


def test_pictures_and_texts_that_a_local_defender_does_not_take(numbered: Path, tmp_path: Path) -> None:
    noise_pictures(1, size=(400, 1))[0].save(numbered.parent / "1.png")
    rewritten(numbered, 1, targets=[])
    rewritten(numbered, 4, options=["no", "yes <|video_pad|>"])
    model = str(tiny_qwen2_5_vl(tmp_path / "vlm"))
    for letters in (False, True):
        results = probe(numbered, {"one": model}, tmp_path / f"out{letters}", letters=letters)
        assert set(results["set_aside"]) == {"q1", "q4"}
        assert "aspect ratio" in results["set_aside"]["q1"]
        assert "<|video_pad|>" in results["set_aside"]["q4"]
        assert results["defenders"]["one"]["clean_accuracy"]["n"] == 4


def test_unchanged_pictures_are_in_no_rate(numbered: Path, tmp_path: Path) -> None:
    for number in (0, 3):
        rewritten(numbered, number, targets=[{"name": "cup", "box": [0, 0, 64, 64]}])
    with serving() as server:
        results = probe(
            numbered,
            {"one": f"{server.url}#m", "two": f"{server.url}#n"},
            tmp_path / "out",
            attackers={"paste": "paste:add"},
        )
    own = results["defenders"]["one"]["robustness"]["attackers"]["paste"]
    assert (own["unchanged"], own["valid"]["n"], own["accuracy"]["n"]) == (2, 4, 4)
    assert results["differences"]["of"]["two"]["paste"]["n"] == 4
    assert any("paste left 2 of 6 pictures as they were" in text for text in results["warnings"])


@pytest.mark.parametrize(
    ("attacker", "error", "message"),
    [
        ("corruption:fogg:3", RecipeError, 'did you mean "fog"'),
        ("benign@/no/where", ModelError, "there is no such folder"),
        ("/no/where+/neither", ModelError, "there is no such folder"),
    ],
)
def test_wrong_attackers_are_found_before_anybody_is_asked(
    attacker: str, error: type[Exception], message: str, numbered: Path, tmp_path: Path
) -> None:
    with serving() as server:
        with pytest.raises(error, match=message):
            probe(
                numbered,
                {"one": f"{server.url}#m"},
                tmp_path / "out",
                attackers={"good": "jpeg:10", "bad": attacker},
            )
        assert server.lines == []
    assert not (tmp_path / "out").exists()


def test_a_gradient_attack_on_one_defender_of_a_family_that_it_does_not_know(
    numbered: Path, tmp_path: Path
) -> None:
    with serving() as server:
        defenders = {"one": f"{server.url}#m", "two": str(tiny_llava(tmp_path / "llava"))}
        with pytest.raises(ModelError, match=r"llava: a gradient attack on pixels needs"):
            probe(numbered, defenders, tmp_path / "out", attackers={"pgd": "pgd:eps=8"})
        assert server.lines == []


def test_a_defender_that_answers_nothing(numbered: Path, tmp_path: Path) -> None:
    with (
        serving(lambda image, body: {"message": {"refusal": "No."}}) as server,
        pytest.raises(ModelError, match="all 6 questions"),
    ):
        probe(numbered, {"one": f"{server.url}#m"}, tmp_path / "out")


def test_an_adaptive_attacker_trains_on_what_the_defender_does_not_filter(tmp_path: Path) -> None:
    path = write_game_questions(tmp_path / "q", 24)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps(own | {"question": f"Light {i}?"}) + "\n" for i, own in enumerate(lines))
    )
    cleans = {Image.open(path.parent / f"{i}.png").tobytes() for i in range(24)}
    everything = False

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        number = int(question(body).split()[1].rstrip("?"))
        if everything or number == 5 or (image.tobytes() not in cleans and number % 3 == 0):
            return {"text": None, "finish_reason": "content_filter"}
        return {"text": f"\\boxed{{{'AB'[is_light(image)]}}}"}

    tiny_flux2_klein(tmp_path / "editor")
    changes: dict[str, Any] = {
        "attacker": {
            "model": str(tmp_path / "editor"),
            "questions_per_step": 2,
            "group_size": 2,
            "rollout_steps": 3,
            "evaluation_steps": 1,
            "lora": {"rank": 2, "alpha": 4},
        },
        "adapt": 3,
        "attackers": {},
        "controls": False,
        "judge": {"integrity_threshold": -1, "dense_weight": 0.0},
    }
    with serving(answer) as server:
        results = probe(path, {"shy": f"{server.url}#shy"}, tmp_path / "out", **changes)
        training = results["defenders"]["shy"]["adaptive_training"]
        assert training["updates"] == 3
        assert training["trained_on"] == 6
        assert training["left_out"]
        assert any("the Defender refused" in text for text in results["warnings"])
        assert {int(name[1:]) for name in training["left_out"]} <= {5, *range(0, 24, 3)}
        everything = True
        with pytest.raises(ModelError, match=r"refuses all|set aside"):
            probe(path, {"shy": f"{server.url}#shy"}, tmp_path / "none", **changes)


def test_labels_that_attacks_make_wrong_are_told(numbered: Path, tmp_path: Path) -> None:
    with serving(dice) as server:
        results = probe(
            numbered,
            {"one": f"{server.url}#one"},
            tmp_path / "out",
            audit={"call": "small_auditor:first_alone"},
        )
        silent = probe(numbered, {"one": f"{server.url}#one"}, tmp_path / "silent")
    jpeg = results["defenders"]["one"]["robustness"]["attackers"]["jpeg"]
    assert (jpeg["label_valid_rate"]["value"], jpeg["label_valid_rate"]["n"]) == (0.2, 5)
    assert any(
        "jpeg: the right answer is still right in only 0.200 of the 5 edits" in text
        for text in results["warnings"]
    )
    assert "right answer still right after jpeg" in (tmp_path / "out/table.md").read_text()
    assert "label_valid_rate" not in silent["defenders"]["one"]["robustness"]["attackers"]["jpeg"]
