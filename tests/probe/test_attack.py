"""Attacks with an editor of the real class and a Defender behind real HTTP: figures, resuming, what is
refused.
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from endpoint_server import Server
from small_attack import attack, attack_of, attack_settings, figures_of
from small_vlms import tiny_qwen2_5_vl
from small_workers import use_hands
from sparring.asking.desk import Desk
from sparring.asking.prompts import render_prompt
from sparring.attackers.rollout import deterministic_edits
from sparring.config import EngineSettings, ProbeSettings
from sparring.data.errors import ModelError, RunError
from sparring.data.questions import read_questions
from sparring.engine.ledger import Ledger
from sparring.measures.statistics import wilson
from sparring.models.editors import load_editor
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.report.probe import write_probe_report
from sparring.seeds import derive_seed

Make = Callable[..., ProbeSettings]
Finished = tuple[Path, ProbeSettings, dict[str, Any]]


@pytest.fixture
def make(editor: Path, questions: Path, server: Server) -> Make:
    return partial(attack_of, editor, questions, server.url)


def rows(out: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        return db.execute(query).fetchall()


def everything(out: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(rows(out, f"SELECT * FROM {table}"), key=repr)
        for table in ("questions", "edits", "answers", "verdicts")
    }


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    victim = summary["defenders"]["victim"]
    steady = {key: value for key, value in victim.items() if key not in ("spending", "model", "identity")}
    own = {key: value for key, value in summary.items() if key not in ("wall_seconds", "peak_rss_mb")}
    return own | {"defenders": {"victim": steady}, "spending_of_judge": None}


def test_figures_are_those_of_the_ledger_counted_another_way(finished: Finished) -> None:
    out, _, summary = finished
    assert json.loads((out / "results.json").read_text()) == summary
    clean = dict(rows(out, "SELECT question_id, right FROM answers WHERE stage = 'clean'"))
    verdicts = {
        (q, s): rest
        for q, s, *rest in rows(
            out, "SELECT question_id, sample, intact, accepted, label_valid FROM verdicts"
        )
    }
    answers = {
        (q, s): r
        for q, s, r in rows(out, "SELECT question_id, sample, right FROM answers WHERE stage = 'attack/it'")
    }
    accepted = {key for key, (_, passed, _) in verdicts.items() if passed}
    assert (len(clean), len(verdicts), set(answers)) == (11, 22, accepted)
    assert 0 < len(accepted) < 22, "some edits should pass the checks and some should not"
    right = [name for name, value in clean.items() if value]
    victim, own = summary["defenders"]["victim"], figures_of(summary)
    for k in (1, 2):
        fooled = [q for q in right if any(answers.get((q, s)) == 0 for s in range(k))]
        valid = [
            q for q in right if any(answers.get((q, s)) == 0 and verdicts[q, s][2] == 1 for s in range(k))
        ]
        tried = own["asr_at_k"][k - 1]
        assert tried["asr"] == {
            "value": len(fooled) / len(right),
            "n": len(right),
            "ci95": list(wilson(len(fooled), len(right))),
        }
        assert tried["valid_asr"]["value"] == len(valid) / len(right)
    first = {q: answers.get((q, 0), value) for q, value in clean.items()}
    harmed, rescued = (sum(clean[q] == before and first[q] != before for q in clean) for before in (1, 0))
    assert (own["harmed"], own["rescued"], own["net_flips"]) == (harmed, rescued, harmed - rescued)
    assert own["asr"] == own["asr_at_k"][0]["asr"]
    assert own["asr_unconditional"]["value"] == sum(answers.get((q, 0)) == 0 for q in clean) / 11
    assert (
        victim["robustness"]["robust_accuracy"]["value"]
        == sum(clean[q] and all(answers.get((q, s), 1) for s in (0, 1)) for q in clean) / 11
    )
    assert own["edits"]["made"] == 22
    assert own["edits"]["accepted"]["value"] == len(accepted) / 22
    assert own["edits"]["intact"]["value"] == sum(intact for intact, *_ in verdicts.values()) / 22
    assert own["label_valid_rate"]["n"] == sum(v is not None for *_, v in verdicts.values())
    assert victim["by_category"]["light"]["clean_accuracy"]["value"] == len(right) / 11
    assert victim["by_category"]["light"]["asr"]["it"] == own["asr_at_k"][1]["asr"]
    assert victim["spending"]["requests"] == 11 + len(accepted)
    assert summary["spending_of_judge"]["requests"] > 0


def test_edits_are_the_editor_s_deterministic_ones_from_noise_of_their_own(
    finished: Finished, editor: Path, questions: Path
) -> None:
    out, settings, _ = finished
    by_id = {question.id: question for question in read_questions(questions)}
    seeds: set[int] = set()
    for name, sample, seed, picture in rows(out, "SELECT question_id, sample, seed, picture FROM edits"):
        base = 3 if sample == 0 else derive_seed(3, "sample", sample)
        assert seed == derive_seed(base, "evaluation", name)
        seeds.add(seed)
        if name == min(by_id):
            instruction = settings.attacker.instruction.replace("{question}", by_id[name].question)
            (expected,) = deterministic_edits(
                load_editor(editor), [Image.open(by_id[name].image)], [instruction], [seed], steps=2
            )
            gap = np.abs(np.asarray(Image.open(out / picture), dtype=int) - np.asarray(expected, dtype=int))
            assert gap.max() <= 1  # made in a batch of another size
    assert len(seeds) == 22


def test_the_data_set_opens_and_holds_what_the_ledger_holds(finished: Finished, tmp_path: Path) -> None:
    out, _, summary = finished
    data = datasets.load_dataset(str(out / "dataset"), split="test", cache_dir=str(tmp_path / "cache"))
    assert len(data) == 22
    found = {(row["id"], row["sample"]): row for row in data}
    for name, sample, picture in rows(out, "SELECT question_id, sample, picture FROM edits"):
        assert np.array_equal(
            np.asarray(found[name, sample]["edited_image"]), np.asarray(Image.open(out / picture))
        )
    for (name, sample), row in found.items():
        query = (
            f"SELECT text, choice FROM answers WHERE stage = 'attack/it' AND question_id = "
            f"'{name}' AND sample = {sample}"
        )
        assert rows(out, query) == ([(row["reply"], row["choice"])] if row["accepted"] else [])
        assert row["image"].size == (64, 64)
        assert row["targets"] == [{"name": "cup", "box": [8, 8, 40, 40]}]
        assert row["fooled"] == (row["clean_right"] and row["right"] is False)
        assert (row["options"], row["defender"], row["attacker"]) == (["no", "yes"], "toy", "editor")
    first = [row for (_, sample), row in found.items() if sample == 0]
    asr = figures_of(summary)["asr"]
    assert sum(row["fooled"] for row in first) == pytest.approx(asr["value"] * asr["n"])


def test_two_attacks_are_told_apart_by_datasets(finished: Finished, make: Make, tmp_path: Path) -> None:
    """Its cache does not know the folder: only the file that the card names."""
    out, settings, _ = finished
    attack(make(seed=8), tmp_path / "out")
    folders, cache = (out / "dataset", tmp_path / "out" / "dataset"), str(tmp_path / "cache")
    loaded = [datasets.load_dataset(str(folder), split="test", cache_dir=cache) for folder in folders]
    assert {row["seed"] for row in loaded[0]}.isdisjoint(row["seed"] for row in loaded[1])
    assert settings.seed == 3


def test_the_report_shows_figures_and_edits_and_loads_nothing(finished: Finished) -> None:
    out, _, summary = finished
    page = write_probe_report(out).read_text()
    shown = f"{100 * figures_of(summary)['asr_at_k'][-1]['valid_asr']['value']:.1f}"
    assert f"fools the Defender on {shown}" in page
    assert page.count('<article class="card exhibit') > 5
    assert "http-equiv" in page
    assert 'src="http' not in page
    assert "Valid attack success" in page
    assert "edits tried, k" in page


def test_several_attackers_on_several_defenders(
    editor: Path, questions: Path, server: Server, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "data": str(questions),
        "limit": 8,
        "controls": True,
        "attacker.evaluation_steps": 1,
        "judge.integrity_threshold": -1,
        "device": "cpu",
        "threads": 1,
    }
    defenders = [f"one={server.url}#toy", f"two={server.url}#other"]
    settings = attack_settings([*given.items()], defenders, [f"drawn={editor}", "jpeg:30"])
    results = attack(settings, tmp_path / "out")
    for own in results["defenders"].values():
        controls = {name: each["control"] for name, each in own["robustness"]["attackers"].items()}
        assert controls == {
            "asked again": True, "drawn": False, "jpeg:30": False, "roundtrip": True, "benign": True,
        }  # fmt: skip
    folder = str(tmp_path / "out" / "dataset")
    data = datasets.load_dataset(folder, split="test", cache_dir=str(tmp_path / "cache"))
    assert {(row["defender"], row["attacker"]) for row in data} == {
        (defender, attacker) for defender in ("toy", "other") for attacker in ("editor", "jpeg:30")
    }
    assert len(data) == 8 * 2 * 2
    gallery = write_probe_report(tmp_path / "out").read_text().partition('id="gallery"')[2]
    assert "two Defender" in gallery  # what the last one said, beside the first
    assert "jpeg:30" in gallery
    assert "benign" not in gallery.partition('id="settings"')[0]


@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [(Desk, "_answer", 1), (Ledger, "record_edits", 4), (Desk, "_answer", 2)],
    ids=["clean", "edits", "attacked"],
)
def test_cut_off_anywhere_it_goes_on_with_the_same_figures_and_asks_nothing_twice(
    make: Make,
    finished: Finished,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    call: int,
) -> None:
    class CutOffError(Exception):
        pass

    real, calls = getattr(owner, method), [0]

    def cut_off(self: Any, *arguments: Any, **named: Any) -> Any:
        result = real(self, *arguments, **named)
        calls[0] += 1
        if calls[0] == call:
            raise CutOffError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, cut_off)
        with pytest.raises(CutOffError):
            attack(make(), tmp_path)
    whole_out, _, whole = finished
    summary = attack(make(), tmp_path)
    assert set(server.tries.values()) == {1}, "a question was asked twice"
    assert figures(summary) == figures(whole)
    assert everything(tmp_path) == everything(whole_out)
    spent, whole_spent = (own["defenders"]["victim"]["spending"] for own in (summary, whole))
    assert spent == whole_spent
    before = len(server.lines)
    assert figures(attack(make(), tmp_path)) == figures(summary)  # a finished one is not done again
    assert len(server.lines) == before


def test_workers_edit_and_this_process_asks_endpoints(
    make: Make, finished: Finished, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crews = use_hands(monkeypatch)
    summary = attack(make(), tmp_path, EngineSettings(workers=3))
    assert crews == [3]  # for the edits alone
    assert set(server.tries.values()) == {1}
    out, _, whole = finished
    assert figures(summary) == figures(whole)
    assert everything(tmp_path) == everything(out)
    spent, whole_spent = (own["spending_of_judge"]["requests"] for own in (summary, whole))
    assert spent == whole_spent
    pictures = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
    assert pictures == {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.png")}


def test_a_budget_stops_it_and_a_higher_one_goes_on(make: Make, server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="budget of 6 requests is used up"):
        attack(make(defender__endpoint__budget=6), tmp_path)
    summary = attack(make(defender__endpoint__budget=100, defender__endpoint__concurrency=2), tmp_path)
    assert set(server.tries.values()) == {1}
    assert summary["questions"] == 11


def test_other_settings_or_questions_that_have_changed_are_refused(
    make: Make, questions: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    copied.mkdir()
    for file in questions.parent.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    own = {"data": str(copied / "questions.jsonl"), "samples": 1, "limit": 3}
    attack(make(**own), tmp_path / "out")
    with pytest.raises(RunError, match=r"another probe \(samples is 1 there and 4 here\)"):
        attack(make(**own | {"samples": 4}), tmp_path / "out")
    with (copied / "questions.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(RunError, match="changed since the probe"):
        attack(make(**own), tmp_path / "out")


def test_a_local_defender_and_no_judge(make: Make, questions: Path, tmp_path: Path) -> None:
    folder = tiny_qwen2_5_vl(tmp_path / "vlm")
    settings = make(
        "judge.model=null",
        "audit=null",
        defender=str(folder),
        defender__max_new_tokens=4,
        samples=1,
        limit=14,
    )
    summary = attack(settings, tmp_path / "out")
    asked = read_questions(questions).records[0]
    (reply,) = LocalVLM.load(folder).generate(
        [Image.open(asked.image)], [render_prompt(asked, settings.defender.prompt)], Sampling(4)
    )
    assert rows(
        tmp_path / "out", "SELECT text FROM answers WHERE stage = 'clean' AND question_id = 'q0'"
    ) == [(reply[0].text,)]
    assert (summary["questions"], summary["audited"]) == (14, False)
    assert (summary["defenders"]["victim"]["spending"], summary["spending_of_judge"]) == (None, None)
    tries = figures_of(summary)["asr_at_k"][0]
    assert tries["asr"] == tries["valid_asr"]
    assert any("names no option" in text for text in summary["warnings"])  # a model of random weights
    assert any("neither judge nor audit" in text for text in summary["warnings"])
    assert "Nobody audited" in write_probe_report(tmp_path / "out").read_text()


def test_a_report_of_what_is_no_finished_attack(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no finished probe: results\.json is not there"):
        write_probe_report(tmp_path)


def test_an_attacker_that_is_not_there(questions: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        attack(attack_of(tmp_path / "nothing", questions, server.url), tmp_path / "out")


def test_a_try_that_failed_before_anything_was_answered_leaves_the_folder_to_the_next(
    make: Make, tmp_path: Path
) -> None:
    with pytest.raises(ModelError):
        attack(make(defender=str(tmp_path / "nothing"), limit=3), tmp_path / "out")
    assert (tmp_path / "out" / "probe.yaml").is_file()
    summary = attack(make(limit=2), tmp_path / "out")
    assert summary["questions"] == 2
    with pytest.raises(RunError, match=r"another probe \(limit is 2 there and 3 here\)"):
        attack(make(limit=3), tmp_path / "out")
