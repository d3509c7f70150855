"""The harness: nothing is asked twice, faults and kills change no score, pixels decide what is known, and
results say how pictures were shown.
"""

import io
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from PIL import Image
from rich.console import Console

import endpoint_server
from endpoint_server import FAULTS, dice, question, serving
from small_eval import engine_of, evaluate, evaluate_quietly, settings_of, write_custom
from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from small_workers import contents, process, use_hands
from sparring.benchmarks.compare import compare
from sparring.benchmarks.items import Item, PictureInMemory
from sparring.benchmarks.run import Thumbnails, run_evaluation, was_reduced
from sparring.benchmarks.scoring import read_items, rescore
from sparring.data.errors import ModelError, RecipeError, RunError
from sparring.data.records import RULES_VERSION
from sparring.engine.screen import Screen
from sparring.models.vlms.base import load_vlm
from sparring.models.vlms.local import LocalVLM


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how the answers came about."""
    return {
        name: results[name] for name in ("profiles", "items", "pictures", "api_errors", "unreadable_pictures")
    }


def test_scores_with_a_third_of_faults_are_those_without(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 40)
    with serving() as server:
        clean = evaluate(settings_of(path, f"{server.url}#toy"), tmp_path / "clean")
        assert len(server.lines) == 40
        evaluate(settings_of(path, f"{server.url}#toy"), tmp_path / "clean")
        assert len(server.lines) == 40
    with serving(share=0.3, slow=2.2) as server:
        faulty = evaluate(
            settings_of(path, f"{server.url}#toy", defender__endpoint__deadline=1.5), tmp_path / "faulty"
        )
        outcomes = server.outcomes()
        assert outcomes["ok"] == 40
        assert len(outcomes) > 4
        assert sum(outcomes[fault] for fault in FAULTS) > 10
    assert figures(clean) == figures(faulty)
    assert 0.2 < clean["profiles"]["sparring"]["value"] < 0.9


@pytest.mark.slow
def test_killed_ten_times_no_finished_answer_is_asked_for_again(tmp_path: Path) -> None:
    path, log = write_custom(tmp_path / "q", 120), tmp_path / "log"
    with serving(share=0.3, slow=0.05, delay=0.02, log=log) as server:
        for kill in range(10):
            target = 10 * (kill + 1)
            own = settings_of(path, f"{server.url}#toy", defender__endpoint__concurrency=2)
            with process(evaluate_quietly, own.model_dump_json(), str(tmp_path / "out")) as evaluation:
                while evaluation.is_alive() and server.outcomes()["ok"] < target:
                    time.sleep(0.01)
                assert evaluation.is_alive(), "it ended before it was killed"
            time.sleep(0.1)
        before = Counter(line["key"] for line in server.lines if line["outcome"] == "ok")
        results = evaluate(
            settings_of(path, f"{server.url}#toy", defender__endpoint__concurrency=2), tmp_path / "out"
        )
        answered_then = Counter(line["key"] for line in server.lines if line["outcome"] == "ok")
    assert sum(before.values()) >= 100
    # A kill may cut off the two answers that were on their way; what had come back is never asked for again.
    assert sum(answered_then.values()) - 120 <= 2 * 10
    assert max(answered_then.values()) <= 2
    with serving() as server:
        whole = evaluate(settings_of(path, f"{server.url}#toy"), tmp_path / "whole")
    assert figures(results) == figures(whole)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_workers_find_what_one_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """The model and the judge that reads what rules have not, both on this machine."""
    path, model = write_custom(tmp_path / "q", 11), tiny_qwen2_5_vl(tmp_path / "m")
    settings = settings_of(
        path,
        str(model),
        batch=2,
        trials=2,
        temperature=temperature,
        judge={"model": str(tiny_qwen2_5_vl(tmp_path / "judge", seed=1))},
    )
    evaluate(settings, tmp_path / "one")
    crews = use_hands(monkeypatch)
    evaluate(settings, tmp_path / "three", workers=3)
    assert crews == [3, 3]
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_a_model_that_takes_nothing_is_told(tmp_path: Path) -> None:
    path, model = write_custom(tmp_path / "q", 3), tiny_qwen2_5_vl(tmp_path / "m")
    settings = settings_of(path, str(model), defender__prompt="{question} {options} <|image_pad|>")
    with pytest.raises(ModelError, match=r"takes none of the 3 items.*image_pad"):
        evaluate(settings, tmp_path / "out")


def test_what_is_given_up_is_an_error_and_asked_again_next_time(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 12)
    down = {3, 7}

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        if any(f"Colour {number}?" in question(body) for number in down):
            raise ConnectionAbortedError
        return dice(image, body)

    with serving(answer) as server:
        settings = settings_of(path, f"{server.url}#toy", defender__endpoint__retries=1)
        results = evaluate(settings, tmp_path / "out")
        assert (
            results["api_errors"],
            results["profiles"]["sparring"]["errors"],
            results["profiles"]["sparring"]["n"],
        ) == (2, 2, 12)
        asked = len(server.lines)
        down.clear()
        results = evaluate(settings, tmp_path / "out")
        assert results["api_errors"] == 0
        assert len(server.lines) == asked + 2
    with pytest.raises(ModelError, match="none of 12 requests in a row was answered"):
        evaluate(
            settings_of(path, "http://127.0.0.1:9/v1#toy", defender__endpoint__retries=0), tmp_path / "dead"
        )
    with serving() as server, pytest.raises(RunError, match="budget of 5"):
        evaluate(settings_of(path, f"{server.url}#toy", defender__endpoint__budget=5), tmp_path / "poor")


def told(body: dict[str, Any], tries: Counter[str]) -> tuple[int, int]:
    """The number of the question that a request asks, and the how manieth time that is."""
    asked = question(body)
    tries[asked] += 1
    return int(asked.split("?")[0].removeprefix("Colour ")), tries[asked]


def test_trials_go_on_until_the_first_miss(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 12)
    tries: Counter[str] = Counter()

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        number, again = told(body, tries)
        return {"text": f"\\boxed{{{'AB'[number % 2] if again < 3 or number < 4 else 'Z'}}}"}

    with serving(answer) as server:
        results = evaluate(
            settings_of(path, f"{server.url}#toy", suite="vstar", profile="aot", trials=3, shuffle=False),
            tmp_path / "out",
        )
        asked = sum(tries.values())
    assert results["profiles"]["aot"]["value"] == pytest.approx(4 / 12)
    assert results["profiles"]["sparring"]["value"] == 1.0  # the first trial
    assert asked == 36
    with serving(lambda image, body: {"text": "no"}) as server:
        evaluate(
            settings_of(path, f"{server.url}#toy", suite="vstar", profile="aot", trials=3), tmp_path / "wrong"
        )
        assert len(server.lines) == 12


def test_replies_are_drawn_as_the_defender_says(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 2)
    told: list[tuple[Any, ...]] = []

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        told.append(tuple(body.get(name) for name in ("temperature", "top_p", "top_k")))
        return {"text": "A"}

    with serving(answer) as server:
        given = {"temperature": 0.7, "defender__top_k": 20, "defender__top_p": 0.9}
        evaluate(settings_of(path, f"{server.url}#toy", **given), tmp_path / "out")
    assert told == [(0.7, 0.9, 20)] * 2


def test_a_later_trial_that_comes_to_nothing_is_an_error_and_asked_again(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 6)
    tries: Counter[str] = Counter()
    down = {1, 4}

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        number, again = told(body, tries)
        if again > 1 and number in down:
            raise ConnectionAbortedError
        return {"text": f"\\boxed{{{'AB'[number % 2]}}}"}

    with serving(answer) as server:
        settings = settings_of(
            path,
            f"{server.url}#toy",
            suite="vstar",
            trials=2,
            shuffle=False,
            defender__endpoint__retries=0,
        )
        results = evaluate(settings, tmp_path / "out")
        aot, first = results["profiles"]["aot"], results["profiles"]["sparring"]
        assert (results["api_errors"], aot["errors"], aot["value"]) == (2, 2, pytest.approx(4 / 6))
        assert (first["errors"], first["value"]) == (0, 1.0)  # reads the first trial
        assert [text.split(":")[0] for text in results["first_errors"]] == ["q1", "q4"]
        assert rescore(tmp_path / "out")["api_errors"] == 2
        down.clear()
        again = evaluate(settings, tmp_path / "out")
        assert (again["api_errors"], again["profiles"]["aot"]["value"]) == (0, 1.0)


def test_items_are_asked_again_by_the_profile_that_wants_every_trial(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 12)
    tries: Counter[str] = Counter()

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        number, again = told(body, tries)
        first, other = "AB"[number % 2], "BA"[number % 2]
        return {"text": f"\\boxed{{{first}}}, or \\boxed{{{other}}}" if again == 1 else "\\boxed{Z}"}

    with serving(answer) as server:
        settings = settings_of(path, f"{server.url}#toy", suite="vstar", trials=3, shuffle=False)
        assert settings.profile == "sparring"
        results = evaluate(settings, tmp_path / "out")
    assert results["profiles"]["sparring"]["value"] == 0.0  # which of the two?
    assert results["profiles"]["aot"]["value"] == 0.0  # the first box is right, the second reply is not
    assert set(tries.values()) == {2}


def test_figures_of_earlier_rules_are_scored_anew_before_they_are_compared(tmp_path: Path) -> None:
    path, out = write_custom(tmp_path / "q", 4), tmp_path / "out"
    with serving() as server:
        evaluate(settings_of(path, f"{server.url}#toy"), out)
    facts = json.loads((out / "results.json").read_text())
    assert facts["rules_version"] == RULES_VERSION
    (out / "results.json").write_text(json.dumps(facts | {"rules_version": RULES_VERSION - 1}))
    with pytest.raises(RunError, match=r"rules of another version.*sparring rescore"):
        compare(out, out, "sparring")
    rescore(out)
    assert compare(out, out, "sparring")["all"]["harmed"] == 0
    (out / "results.json").write_text(json.dumps(facts | {"profile": "aot-strict"}))
    with pytest.raises(RecipeError, match=r"profile aot-strict has no rule for custom\. There are sparring"):
        rescore(out)
    assert rescore(out, "vlmevalkit")["profile"] == "vlmevalkit"


def test_a_picture_that_cannot_be_read_is_no_wrong_answer_for_aot(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 6)
    (tmp_path / "q" / "2.png").write_bytes(b"no picture")
    with serving() as server:
        results = evaluate(settings_of(path, f"{server.url}#toy", suite="vstar"), tmp_path / "out")
        assert len(server.lines) == 5
    assert results["unreadable_pictures"] == 1
    assert (results["profiles"]["sparring"]["n"], results["profiles"]["sparring"]["errors"]) == (6, 1)
    assert (results["profiles"]["aot"]["n"], results["profiles"]["aot"]["left_out"]) == (5, 1)
    assert "2.png" in next(one for one in read_items(tmp_path / "out") if one.trouble).error


def test_pixel_limits_are_told(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 4)
    noise_pictures(1, size=(300, 400))[0].save(tmp_path / "q" / "1.png")
    tiny_qwen2_5_vl(tmp_path / "m")
    results = evaluate(settings_of(path, str(tmp_path / "m"), defender__max_pixels=10_000), tmp_path / "out")
    assert results["pixels"] == {
        "limits": {"min_area": 256, "max_area": 10_000},
        "largest_area": 120_000,
        "reduced": 1,
    }
    assert "1 of 4 pictures were made smaller" in (tmp_path / "out" / "results.md").read_text()
    assert was_reduced((300, 400), {"max_area_sent": None}) is False
    assert was_reduced((300, 400), {"size": {"height": 64, "width": 64}}) is True
    assert was_reduced((30, 40), {"size": {}}) is None


def test_results_items_and_rescoring_without_model_and_data(tmp_path: Path) -> None:
    path, out = write_custom(tmp_path / "q", 24), tmp_path / "out"
    with serving() as server:
        results = evaluate(settings_of(path, f"{server.url}#toy"), out)
    rows = parquet.read_table(out / "items.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"q{k}" for k in range(24)]
    assert sum(row["sparring_score"] for row in rows) / 24 == results["profiles"]["sparring"]["value"]
    assert rows[0]["replies"][0].endswith("}")
    table = (out / "results.md").read_text()
    assert all(f"| {profile} |" in table for profile in ("sparring", "vlmevalkit"))
    for file in path.parent.iterdir():
        file.unlink()
    again = rescore(out, "vlmevalkit")
    assert again == {**results, "profile": "vlmevalkit"}
    assert json.loads((out / "results.json").read_text()) == again
    with pytest.raises(RunError, match="holds no finished evaluation"):
        rescore(tmp_path)


def test_comparison_of_two_runs(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 24)

    def saying(wrong: set[int]) -> endpoint_server.Answer:
        def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
            number = int(question(body).split("?")[0].removeprefix("Colour "))
            return {"text": "AB"[(number % 2) ^ (number in wrong)]}

        return answer

    for name, wrong in (("a", {0, 1, 2, 3, 4, 5, 6, 7}), ("b", {7, 8})):
        with serving(saying(wrong)) as server:
            evaluate(settings_of(path, f"{server.url}#toy", shuffle=False), tmp_path / name)
    found = compare(tmp_path / "a", tmp_path / "b", "sparring")
    own = found["all"]
    assert (own["harmed"], own["rescued"], own["net_flips"]) == (1, 7, -6)
    assert own["difference"]["value"] == pytest.approx(6 / 24)
    assert own["difference"]["ci95"][0] > 0
    assert own["mcnemar"] == pytest.approx(2 * 9 / 2**8)
    assert set(found["categories"]) == {"warm", "cold"}
    assert all(part["mcnemar_holm"] >= part["mcnemar"] for part in found["categories"].values())
    assert found["differences_in_asking"] == []
    assert found["other_pictures"] == 0
    with serving() as server:
        for place, given in enumerate(({"max_pixels": 4096}, {"prompt": "Look. {question} {options}"})):
            own = {f"defender__{name}": value for name, value in given.items()}
            evaluate(
                settings_of(path, f"{server.url}#toy", shuffle=False, **own), tmp_path / f"other {place}"
            )
    asked = [compare(tmp_path / "a", tmp_path / f"other {place}", "sparring") for place in (0, 1)]
    assert [one["differences_in_asking"] for one in asked] == [["limits of pixels"], ["words of the prompt"]]
    same = compare(tmp_path / "a", tmp_path / "a", "vlmevalkit")
    assert same["all"]["difference"]["ci95"] == [0.0, 0.0]
    other = write_custom(tmp_path / "r", 3)
    other.write_text(other.read_text().replace("Colour", "Hue"))
    with serving() as server:
        evaluate(settings_of(other, f"{server.url}#toy"), tmp_path / "c")
    with pytest.raises(RunError, match='item "q0" asks "Colour 0\\?"'):
        compare(tmp_path / "a", tmp_path / "c", "sparring")


@pytest.mark.parametrize("family", [tiny_qwen2_5_vl, tiny_llava])
def test_what_a_local_model_does_not_take_is_named_and_the_rest_is_asked(family: Any, tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 6)
    vlm = LocalVLM.load(family(tmp_path / "vlm"))
    placeholder = vlm.takes.placeholders[0]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[1]["question"] = f"What is in {placeholder}?"
    records[4]["options"][0] += placeholder
    noise_pictures(1, size=(1, 500))[0].save(path.parent / "2.png")
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    results = evaluate(settings_of(path, str(tmp_path / "vlm"), batch=4), tmp_path / "out", vlm)
    troubles = {one.item.id: one.error for one in read_items(tmp_path / "out") if one.trouble == "refused"}
    narrow = {"q2"} if family is tiny_qwen2_5_vl else set()  # LLaVA's processor scales any picture
    assert set(troubles) == {"q1", "q4"} | narrow
    assert all(placeholder in troubles[name] for name in ("q1", "q4"))
    assert results["refused"] == len(troubles)
    assert results["first_errors"][0].startswith("q1: ")
    # The answers are those of the same questions by themselves.
    whole = {one.item.id: one.replies for one in read_items(tmp_path / "out")}
    assert all(len(replies) == (name not in troubles) for name, replies in whole.items())
    assert figures(
        evaluate(settings_of(path, str(tmp_path / "vlm"), batch=4), tmp_path / "out", vlm)
    ) == figures(results)


@pytest.mark.parametrize("field", ["question", "options", "id", "category"])
def test_half_a_surrogate_pair_anywhere_in_the_data_ends_nothing(field: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "id": "x",
        "kind": "choice",
        "question": "Which?",
        "answer": "A",
        "options": ("red", "blue"),
        "category": "c",
    }
    fields[field] = ("red \ud83d", "blue") if field == "options" else f"half \udfff {field}"
    items = [Item(**fields, pictures=(PictureInMemory(noise_pictures(1)[0]),))]
    out, screen = tmp_path / "out", Screen(Console(file=io.StringIO()))
    out.mkdir()
    with serving() as server:
        settings = settings_of(tmp_path / "questions.jsonl", f"{server.url}#toy")
        results = run_evaluation(settings, out, screen, engine_of(), load_vlm(f"{server.url}#toy"), items)
    assert (results["items"], results["api_errors"]) == (1, 0)
    (one,) = read_items(out)
    assert len(one.replies) == 1


def test_a_small_copy_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (picture,) = noise_pictures(1)
    encode = Image.Image.save

    def killed_half_way(self: Image.Image, to: Any, *arguments: Any, **options: Any) -> None:
        stream = io.BytesIO()
        encode(self, stream, *arguments, **options)
        half = stream.getvalue()[: len(stream.getvalue()) // 2]
        to.write(half) if hasattr(to, "write") else Path(to).write_bytes(half)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", killed_half_way)
        with pytest.raises(KeyboardInterrupt):
            Thumbnails(tmp_path, 1).keep(picture, "a")
    Thumbnails(tmp_path, 1).keep(picture, "a")
    with Image.open(tmp_path / "a.webp") as kept:
        kept.load()
