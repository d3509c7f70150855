"""A whole probe: of a model on this machine and one behind an endpoint, resumed wherever it is cut, nothing
asked twice.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from endpoint_server import dice, serving
from small_benchmarks import hr_rows, write_tsv
from small_checkpoints import tiny_flux2_klein
from small_eval import engine_of
from small_game import write_game_questions
from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from small_workers import Hand, contents, use_hands
from sparring.asking.desk import Desk
from sparring.config import EngineSettings, ProbeSettings
from sparring.data.errors import DataError, RecipeError, RunError
from sparring.data.images import image_sha256
from sparring.data.questions import read_questions
from sparring.engine.ledger import Ledger
from sparring.engine.pool import WorkersLostError
from sparring.engine.screen import Screen
from sparring.models.vlms.answer_cache import AnswerCache, answer_key
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.traits import folder_sha256
from sparring.probe import asking
from sparring.probe.asking import Asker
from sparring.probe.attackers import attackers_of, check_attackers
from sparring.probe.questions import read_asked
from sparring.probe.run import run_probe
from sparring.probe.settings import slug


@pytest.fixture(scope="module")
def players(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("players")
    tiny_flux2_klein(folder / "editor")
    tiny_qwen2_5_vl(folder / "one")
    tiny_qwen2_5_vl(folder / "two", seed=1)
    tiny_llava(folder / "judge")
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_game_questions(tmp_path_factory.mktemp("questions"), 4)


def settings_of(questions: Path, defenders: dict[str, str], **changes: Any) -> ProbeSettings:
    data: dict[str, Any] = {
        "data": str(questions),
        "seed": 3,
        "device": "cpu",
        "threads": 1,
        "batch": 3,
        "resamples": 100,
        "defenders": defenders,
        "defender": {
            "model": next(iter(defenders.values())),
            "prompt": "{question} {options}",
            "max_new_tokens": 4,
        },
        "attackers": {"fog": "corruption:fog:3"},
        "judge": {"integrity_threshold": 0.5},
    }
    return ProbeSettings.model_validate(data | changes)


def probe(settings: ProbeSettings, out: Path, engine: EngineSettings | None = None) -> dict[str, Any]:
    return run_probe(settings, out, Screen(Console(file=io.StringIO())), engine=engine)


def steady(results: dict[str, Any]) -> str:
    return json.dumps(
        {name: value for name, value in results.items() if name not in ("wall_seconds", "peak_rss_mb")}
    )


def everything(players: Path, questions: Path) -> ProbeSettings:
    return settings_of(
        questions,
        {"one": str(players / "one"), "two": str(players / "two")},
        attackers={"fog": "corruption:fog:3", "pgd": "pgd:eps=8:steps=1", "wide": "paste:insert"},
        attacker={"model": str(players / "editor"), "evaluation_steps": 1},
        audit={"call": "small_game:audit"},
        reasoning_judges=(str(players / "judge"),),
    )


@pytest.fixture(scope="module")
def finished(
    players: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("finished")
    return out, probe(everything(players, questions), out)


def test_every_measure_is_there_for_every_defender(finished: tuple[Path, dict[str, Any]]) -> None:
    out, results = finished
    assert results == json.loads((out / "results.json").read_text())
    table = (out / "table.md").read_text()
    for name in ("one", "two"):
        own = results["defenders"][name]
        assert own["clean_accuracy"]["n"] == 4
        assert len(own["conditions"]) == 8
        attackers = own["robustness"]["attackers"]
        assert {name for name, one in attackers.items() if one["control"]} == {
            "asked again",
            "roundtrip",
            "benign",
        }
        assert {name for name, one in attackers.items() if not one["control"]} == {"fog", "pgd", "wide"}
        assert own["pixels"] == {"min_pixels": 256, "max_pixels": 65536}
    assert results["defenders"]["one"]["identity"] != results["defenders"]["two"]["identity"]
    assert set(results["transfer"]) == {"pgd"}
    assert results["transfer"]["pgd"]["made_against"] == ["one", "two"]
    assert all(cell is not None for row in results["transfer"]["pgd"]["asr"] for cell in row)
    assert results["differences"]["less"] == "one"
    assert {"plain", "wrong_caption", "fog", "pgd", "robust"} <= set(results["differences"]["of"]["two"])
    assert table.startswith("4 questions about 4 pictures.")
    assert "| measure | one | two |" in table
    for row in (
        "clean accuracy",
        "valid ASR of pgd",
        "accuracy: wrong thought",
        "consistency: plain",
        "ECE, 15 bins",
        "robust accuracy",
    ):
        assert row in table or row.startswith("ECE")


def test_the_same_pictures_asked_again_get_the_same_answers(finished: tuple[Path, dict[str, Any]]) -> None:
    for own in finished[1]["defenders"].values():
        again = own["robustness"]["attackers"]["asked again"]
        assert (again["harmed"], again["rescued"]) == (0, 0)


def test_edits_are_judged_and_audited(finished: tuple[Path, dict[str, Any]]) -> None:
    out, results = finished
    ledger = Ledger(out)
    for stage in ("attack/fog", "attack/wide", "attack/pgd/one", "attack/pgd/two", "attack/roundtrip"):
        assert len(ledger.keys("verdicts", stage)) == 4, stage
    words = {verdict.question_id: verdict.label_valid for verdict in ledger.verdicts("attack/wide")}
    assert words["q3"] is None  # the auditor cannot tell
    valid = results["defenders"]["one"]["robustness"]["attackers"]["wide"]["valid"]
    assert valid == {**valid, "value": 3 / 4, "n": 4}


def test_answers_are_the_models_own(
    finished: tuple[Path, dict[str, Any]], players: Path, questions: Path
) -> None:
    from PIL import Image

    out, _ = finished
    vlm = LocalVLM.load(players / "one")
    record = read_questions(questions).records[2]
    rows = AnswerCache(out / "answers.sqlite")._db.execute("SELECT asked, answer FROM answers").fetchall()
    asked = [(json.loads(asked), json.loads(answer)) for asked, answer in rows]
    picture = Image.open(record.image).convert("RGB")
    own = [
        (a, b)
        for a, b in asked
        if a["images"] == [image_sha256(picture)]
        and a["revision"] == folder_sha256(players / "one")
        and "letters_of" in a
    ]
    assert len(own) == 8
    for a, b in own:
        (reply,) = vlm.generate([picture], [a["prompt"]], Sampling(4), starts=[a.get("start", "")])[0]
        assert b["text"] == reply.text


class Cut(Exception):
    pass


@pytest.mark.parametrize("at", [7, pytest.param(29, marks=pytest.mark.slow)])
def test_cut_anywhere_and_resumed_it_ends_the_same_and_asks_nothing_twice(
    at: int,
    finished: tuple[Path, dict[str, Any]],
    players: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[str] = Counter()
    plain = Desk._answer
    calls = 0

    def counted(self: Desk, batch: Any, found: Any, errors: Any) -> Any:
        nonlocal calls
        calls += bool(found)
        if calls == at:
            calls += 1
            raise Cut
        seen.update(json.dumps(batch.asked[place], sort_keys=True) for place in found)
        return plain(self, batch, found, errors)

    monkeypatch.setattr(Desk, "_answer", counted)
    settings = everything(players, questions)
    with pytest.raises(Cut):
        probe(settings, tmp_path)
    results = probe(settings, tmp_path)
    assert steady(results) == steady(finished[1])
    assert set(seen.values()) == {1}
    assert probe(settings, tmp_path) == {
        **results,
        "wall_seconds": pytest.approx(results["wall_seconds"], abs=60),
        "peak_rss_mb": pytest.approx(results["peak_rss_mb"], rel=1),
    }
    assert set(seen.values()) == {1}


def test_workers_find_what_one_process_finds(
    finished: tuple[Path, dict[str, Any]],
    players: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crews = use_hands(monkeypatch)
    whole, real, calls = contents(finished[0]), Desk._answer, 0

    def cut(self: Desk, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise Cut
        return real(self, *given)

    settings = everything(players, questions)
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "_answer", cut)
        with pytest.raises(Cut):
            probe(settings, tmp_path, EngineSettings(workers=3))
    probe(settings, tmp_path, EngineSettings(workers=2))
    assert set(crews) == {3, 2}
    assert contents(tmp_path) == whole


def test_lost_workers_are_replaced_as_often_as_they_may(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(questions, {"one": str(players / "one")}, text=False, letters=False)
    probe(settings, tmp_path / "whole")
    use_hands(monkeypatch)
    real, calls, said = Hand.submit, 0, io.StringIO()

    def dies(self: Hand, *given: Any) -> Future[Any]:
        nonlocal calls
        calls += 1
        if calls not in (4, 10):
            return real(self, *given)
        lost = Future[Any]()
        lost.set_exception(WorkersLostError("a worker process has died"))
        return lost

    monkeypatch.setattr(Hand, "submit", dies)
    screen = Screen(Console(file=said, width=200))
    run_probe(settings, tmp_path / "out", screen, engine=EngineSettings(workers=2, restarts=2))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert said.getvalue().count("a worker process has died. It goes on") == 2
    calls = 0
    with pytest.raises(WorkersLostError):
        probe(settings, tmp_path / "once", EngineSettings(workers=2, restarts=1))


def test_answers_that_earlier_probes_kept_are_refused(players: Path, questions: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    cache = AnswerCache(path)
    asked = {"probed": "0" * 64, "image": "1" * 64, "prompt": "?", "letters": None, "trial": 0}
    cache.put(answer_key(asked), "0" * 64, asked, {"text": "left", "tokens": 1})
    cache.close()
    settings = settings_of(questions, {"one": str(players / "one")})
    with pytest.raises(RunError, match="an earlier version of this program kept the answers"):
        Asker("one", str(players / "one"), settings, engine_of(), path, {})
    served = Asker("toy", "http://127.0.0.1:9/v1#toy", settings, engine_of(), path, {})
    served.close()  # what endpoints answered is read as before


def test_a_defender_behind_an_endpoint(questions: Path, tmp_path: Path) -> None:
    with serving(dice) as server:
        settings = settings_of(
            questions,
            {"toy": f"{server.url}#toy"},
            letters=False,
            samples=2,
            attackers={"noise": "corruption:gaussian_noise:3"},
        )
        results = probe(settings, tmp_path)
        asked = len(server.lines)
        # Eight conditions, the unchanged pictures again, and two samples of noise.
        assert asked == 4 * (8 + 1 + 2)
        assert set(server.tries.values()) == {1, 2}  # the unchanged picture alone is asked again
        assert (
            probe(settings, tmp_path)["defenders"]["toy"]["clean_accuracy"]
            == results["defenders"]["toy"]["clean_accuracy"]
        )
        assert len(server.lines) == asked
    own = results["defenders"]["toy"]
    assert (own["calibration"], own["spending"]["requests"]) == (None, 44)
    assert not any("left out" in text for text in results["warnings"])
    # Dice: "xxxxxx \boxed{A}" has a reasoning that says nothing.
    assert own["conditions"]["plain"]["consistency"]["readable"]["value"] == 0
    assert results["transfer"] == {}
    assert [tries["k"] for tries in own["robustness"]["attackers"]["noise"]["asr_at_k"]] == [1, 2]
    with pytest.raises(RunError, match="holds the run of another probe"):
        probe(settings.model_copy(update={"seed": 4}), tmp_path)


def test_gradients_are_taken_of_whoever_has_any(players: Path, questions: Path) -> None:
    defenders = {"toy": "http://127.0.0.1:9/v1#toy", "one": str(players / "one")}
    settings = settings_of(questions, defenders, attackers={"pgd": "pgd:eps=8"})
    check_attackers(settings)
    attackers, warnings = attackers_of(settings)
    assert [(own.name, own.against) for own in attackers] == [("pgd", "one")]
    assert warnings == ["pgd against toy: left out, because an endpoint gives no gradients"]
    del defenders["one"]
    with pytest.raises(RecipeError, match='attacker "pgd" takes the gradients'):
        check_attackers(settings_of(questions, defenders, attackers={"pgd": "pgd:eps=8"}))


def test_a_benchmark_in_its_own_layout(tmp_path: Path) -> None:
    """HR-Bench's TSV, and a question that a probe cannot put; attackers, words and controls as with questions
    of one's own.
    """
    free = hr_rows()[0] | {
        "index": 9,
        "question": "How many?",
        "A": "",
        "B": "",
        "C": "",
        "D": "",
        "answer": "3",
    }
    path = write_tsv(tmp_path / "hr.tsv", [*hr_rows(), free])
    with serving(dice) as server:
        given = {
            "suite": "custom",
            "letters": False,
            "attackers": {"fog": "corruption:fog:3", "wide": "paste:insert"},
            "samples": 2,
        }
        settings = settings_of(path, {"toy": f"{server.url}#toy", "other": f"{server.url}#other"}, **given)
        results = probe(settings, tmp_path / "out")
        asked = len(server.lines)
        assert steady(probe(settings, tmp_path / "out")) == steady(results)
        assert len(server.lines) == asked
        path.write_text(path.read_text().replace("three", "seven"))
        with pytest.raises(RunError, match="changed since the probe"):
            probe(settings, tmp_path / "out")
    own = results["defenders"]["toy"]
    assert (results["suite"], results["questions"], results["pictures"], results["without_boxes"]) == (
        "custom",
        8,
        2,
        8,
    )
    assert results["left_out"] == {"the answer is free, without options": 1}
    assert "8 of 8 questions without boxes: integrity is not checked there" in " ".join(results["warnings"])
    assert "Note: 8 of 8 questions without boxes" in (tmp_path / "out" / "table.md").read_text()
    assert len(own["conditions"]) == 8
    assert [tries["k"] for tries in own["robustness"]["attackers"]["fog"]["asr_at_k"]] == [1, 2]
    # Nothing is protected, so nothing fails the check.
    assert own["robustness"]["attackers"]["fog"]["valid"]["value"] == 1.0
    assert {"plain", "fog", "wide", "robust"} <= set(results["differences"]["of"]["other"])
    assert len(list((tmp_path / "out" / "questions").iterdir())) == 2


def test_adaptive_attackers_train_on_other_pictures_of_the_suite(players: Path, tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "hr.tsv", hr_rows())
    given = {"suite": "hrbench-4k", "adapt": 1, "attacker": {"model": str(players / "editor")}}
    asked = read_asked(
        settings_of(path, {"one": str(players / "one")}, **given),
        tmp_path / "out",
        Screen(Console(file=io.StringIO())),
    )
    assert (len(asked.probed), len(asked.practice)) == (4, 4)
    assert not {question.image for question in asked.probed} & {question.image for question in asked.practice}


def test_bad_records_of_a_suite_and_of_the_data_to_train_on_are_told(players: Path, tmp_path: Path) -> None:
    bad = [hr_rows()[0] | {"index": 90 + k, "answer": "Z"} for k in range(2)]
    path = write_tsv(tmp_path / "hr.tsv", [*hr_rows(), *bad])
    other = json.dumps({"id": "n", "question": "?", "options": ["x", "y"], "answer": "A", "image": "n.png"})
    noise_pictures(1, size=(90, 80))[0].save(tmp_path / "n.png")
    practice = tmp_path / "practice.jsonl"
    practice.write_text(other + "\n" + other.replace('"n"', '"m"').replace("n.png", "none.png"))
    given = {"suite": "hrbench-4k", "adapt": 1, "attacker": {"model": str(players / "editor")}}
    said, defenders = io.StringIO(), {"one": str(players / "one")}
    screen = Screen(Console(file=said, width=400))
    with pytest.raises(DataError, match="2 records"):
        read_asked(settings_of(path, defenders, **given), tmp_path / "out", screen)
    given |= {"skip_bad_records": True, "adapt_data": str(practice)}
    asked = read_asked(settings_of(path, defenders, **given), tmp_path / "out", screen)
    assert (len(asked.probed), len(asked.practice)) == (8, 1)
    assert "hr.tsv: 2 bad records dropped (answer is no option: 2)" in said.getvalue()
    assert "practice.jsonl: 1 bad record dropped (image missing: 1)" in said.getvalue()


def test_data_that_cannot_be_split_are_told_in_the_words_of_a_probe(players: Path, tmp_path: Path) -> None:
    path, screen = write_tsv(tmp_path / "hr.tsv", hr_rows()[:4]), Screen(Console(file=io.StringIO()))
    given = {"suite": "custom", "adapt": 1, "attacker": {"model": str(players / "editor")}}
    other = write_tsv(tmp_path / "other.tsv", [row | {"index": f"n{row['index']}"} for row in hr_rows()[:1]])
    for more, words in (({}, "on with --adapt-data"), ({"adapt_data": str(other)}, "leave --adapt-data out")):
        with pytest.raises(DataError, match=words) as caught:
            read_asked(
                settings_of(path, {"one": str(players / "one")}, **given, **more), tmp_path / "o", screen
            )
        assert "held_out_path" not in str(caught.value)


def test_the_presence_suite_has_popes_figures_of_every_split(tmp_path: Path) -> None:
    with serving(lambda image, body: {"text": "\\boxed{A}"}) as server:
        given = {"suite": "pope", "letters": False, "text": False, "attackers": {}}
        results = probe(
            settings_of(
                Path("sparring_arena.benchmarks:pope:number=3"), {"toy": f"{server.url}#toy"}, **given
            ),
            tmp_path,
        )
    found = results["defenders"]["toy"]["hallucination"]["presence"]
    assert set(found) == {"all", "random", "popular", "adversarial"}
    assert all(own["yes_rate"]["value"] == own["recall"] == 1.0 for own in found.values())
    assert found["random"]["accuracy"]["n"] == 12
    assert 0 < results["without_boxes"] < results["questions"]  # what is not there has no box


def test_an_attacker_is_trained_against_the_defender_on_other_pictures(players: Path, tmp_path: Path) -> None:
    questions = write_game_questions(tmp_path / "questions", 16, seed=1)
    settings = settings_of(
        questions,
        {"one": str(players / "one")},
        attackers={},
        controls=False,
        text=False,
        letters=False,
        judge={"integrity_threshold": -1.0, "dense_weight": 1.0},
        attacker={
            "model": str(players / "editor"),
            "algorithm": "diffusion_nft",
            "questions_per_step": 2,
            "group_size": 2,
            "rollout_steps": 1,
            "evaluation_steps": 1,
            "learning_rate": 3e-2,
            "lora": {"rank": 2, "alpha": 4},
        },
        adapt=9,
        adapt_queries=11,
    )
    # A random model is right about nothing; whatever it says is taken for right here, so that there is
    # something to attack.
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "parse_answer", lambda text, options: ("A", "boxed"))
        results = probe(settings, out)
    trained = results["defenders"]["one"]["adaptive_training"]
    assert trained["updates"] == 2  # 11 pictures allow for two updates of four
    assert trained["trained_on"] == 4  # two questions each; no more are looked for
    assert 0 < trained["edits_shown"] <= 8
    assert results["questions"] == 8
    assert (out / "adaptive" / "one" / "editor").is_dir()
    assert results["transfer"]["adaptive"]["made_against"] == ["one"]
    assert len(Ledger(out).keys("verdicts", "attack/adaptive/one")) == 8


def test_slugs_are_folders_and_tell_names_apart() -> None:
    assert slug("round3") == "round3"
    assert slug("pgd:eps=8") != slug("pgd:eps_8")
    assert "/" not in slug("a/b")
