"""From the command line to a probe's settings: names, what a recipe lends, what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from small_game import write_game_questions
from sparring.cli import app
from sparring.config import EngineSettings, ProbeSettings
from sparring.data.errors import RecipeError
from sparring.data.records import LONGEST_REPLY
from sparring.engine.screen import Screen
from sparring.probe.questions import Asked
from sparring.probe.settings import probe_settings, telling_name
from sparring.probe.table import table
from sparring.recipes import load_recipe
from sparring.recipes.paths import resolve_model

HERE = "http://127.0.0.1:8000/v1#m"
DATA = [("data", "q.jsonl")]


def test_a_recipe_lends_all_but_data_and_seed_and_players_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arena = load_recipe("arena")
    settings = probe_settings(
        [*DATA, ("seed", 7)],
        ["base=arena/defender", HERE],
        ["pgd:eps=8", "old=arena/editor", "benign@arena/editor"],
        recipe="arena",
    )
    assert settings.defenders == {"base": resolve_model("arena/defender"), "m": HERE}
    assert settings.attackers == {
        "pgd:eps=8": "pgd:eps=8",
        "old": resolve_model("arena/editor"),
        "benign": f"benign@{resolve_model('arena/editor')}",
    }
    assert settings.defender == arena.defender
    assert settings.attacker == arena.attacker
    assert (settings.judge, settings.audit, settings.conditions) == (
        arena.judge,
        arena.evaluation.audit,
        arena.evaluation.conditions,
    )
    assert (settings.seed, settings.data) == (7, str(tmp_path / "q.jsonl"))
    alone = probe_settings(
        DATA, [], [], recipe="arena", changes=["conditions.thought=so {option}", "adapt=3"]
    )
    assert alone.defenders == {"defender": resolve_model("arena/defender")}
    assert (alone.conditions.thought, alone.adapt) == ("so {option}", 3)


def test_a_reply_may_be_long_where_no_recipe_says_otherwise() -> None:
    assert probe_settings(DATA, [HERE], []).defender.max_new_tokens == LONGEST_REPLY
    named = [*DATA, ("defender.max_new_tokens", 64)]
    assert probe_settings(named, [HERE], []).defender.max_new_tokens == 64
    own = load_recipe("arena").defender.max_new_tokens
    assert probe_settings(DATA, [HERE], [], recipe="arena").defender.max_new_tokens == own


def test_a_lora_is_a_folder_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("it.safetensors").touch()
    settings = probe_settings(DATA, [HERE], ["a=arena/editor+folder", "b=arena/editor+it.safetensors"])
    editor = resolve_model("arena/editor")
    assert settings.attackers == {
        "a": f"{editor}+{tmp_path}/folder",
        "b": f"{editor}+{tmp_path}/it.safetensors",
    }


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("runs/a/round3/defender/model", "round3"),
        ("arena/editor+runs/a/round2/attacker/editor", "round2"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B-Instruct"),
        (HERE, "m"),
        ("corruption:fog:3", "corruption:fog:3"),
        ("/somewhere/arena/defender", "defender"),
    ],
)
def test_telling_names(spec: str, name: str) -> None:
    assert telling_name(spec) == name


@pytest.mark.parametrize(
    ("given", "defenders", "attackers", "message"),
    [
        ([], [], [], "--defender is missing"),
        ([], [HERE, HERE], [], 'two are called "m"'),
        ([], [HERE], ["roundtrip"], "attackers.roundtrip: roundtrip needs an editor"),
        ([], [HERE], ["arena/editor+no/such"], "the LoRA no/such is no folder and no file"),
        ([("adapt", 3)], [HERE], [], "adapt: an Attacker can only be trained on an editor"),
        ([("reasoning_judges", [HERE])], [HERE], [], "judge: is the Defender m's own checkpoint"),
        ([("adapt_queries", 9)], [HERE], [], "adapt_queries: is for an Attacker that is trained"),
        ([("adapt_data", "q.jsonl")], [HERE], [], "adapt_data: is for an Attacker that is trained"),
        (
            [("conditions.caption", "{answer}")],
            [HERE],
            [],
            "conditions.caption '{answer}' cannot be filled in",
        ),
        ([("samples", 0)], [HERE], [], "samples: must be greater than or equal to 1"),
        ([("defender.prompt", "{question}")], [HERE], [], "defender.prompt: must hold {options}"),
        ([], ["http://127.0.0.1:8000/v1"], [], "which model"),
    ],
)
def test_what_is_wrong_is_named(
    given: list[tuple[str, Any]], defenders: list[str], attackers: list[str], message: str
) -> None:
    with pytest.raises(RecipeError) as error:
        probe_settings([*DATA, *given], defenders, attackers)
    assert message in str(error.value)


def test_the_command_hands_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[ProbeSettings, Path]] = []
    engines: list[tuple[str, int]] = []

    write_game_questions(tmp_path, 3)

    def run_probe(
        settings: ProbeSettings, out: Path, screen: Screen, *, asked: Asked, engine: EngineSettings
    ) -> dict[str, Any]:
        assert len(asked.probed) == 3
        engines.append((engine.kind, engine.workers_of("play")))
        calls.append((settings, out))
        (out / "table.md").write_text("| a table |\n")
        spent = {"requests": 12, "cost": 0.5}
        defenders = {"toy": {"spending": spent}, "here": {"spending": None}}
        return {"warnings": ["mind [this]"], "defenders": defenders, "spending_of_judge": None}

    run, page = ModuleType("sparring.probe.run"), ModuleType("sparring.report.probe")
    run.run_probe = run_probe  # type: ignore[attr-defined]
    page.write_probe_report = lambda out: out / "report.html"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparring.probe.run", run)
    monkeypatch.setitem(sys.modules, "sparring.report.probe", page)
    options = [
        "--defender",
        f"toy={HERE}",
        "--attacker",
        "jpeg:30",
        "--samples",
        "2",
        "--no-letters",
        "--no-controls",
    ]
    crew = ["--engine", "ray", "--workers", "3"]
    result = CliRunner().invoke(
        app,
        ["probe", "--data", "questions.jsonl", "--out", "there", *crew, *options, "--set", "resamples=500"],
    )
    assert result.exit_code == 0, result.output
    ((settings, out),) = calls
    assert out == Path("there")
    assert (settings.defenders, settings.attackers) == ({"toy": HERE}, {"jpeg:30": "jpeg:30"})
    assert (settings.samples, settings.letters, settings.controls, settings.text) == (2, False, False, True)
    assert settings.resamples == 500
    assert "| a table |" in result.stdout
    assert "mind [this]" in result.stderr
    assert "toy: 12 requests, 0.5 cost" in result.stdout
    assert engines == [("ray", 3)]
    preset = CliRunner().invoke(app, ["attack", "--data", "questions.jsonl", "--out", "there", *options[:6]])
    assert preset.exit_code == 0, preset.output
    settings = calls[1][0]
    assert (settings.text, settings.letters, settings.controls) == (False, False, False)
    assert (settings.shown, settings.dataset, settings.samples) == ("accepted", True, 2)
    assert f"Data set: {Path('there/dataset')}" in preset.stdout
    run.run_probe = lambda *given, **more: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    stopped = CliRunner().invoke(app, ["attack", "--data", "questions.jsonl", "--out", "there", *options[:4]])
    assert stopped.exit_code == 130
    assert "The same command goes on from here" in stopped.stderr
    missing = CliRunner().invoke(app, ["probe", "--data", "q.jsonl", "--out", "x"])
    assert missing.exit_code == 2
    assert "--defender is missing" in missing.stderr


def test_the_table_shows_values_intervals_and_n() -> None:
    rate = {"value": 0.25, "n": 8, "ci95": [0.1, 0.5]}
    nothing = {"value": None, "n": 0, "ci95": [0.0, 1.0]}
    own = {
        "clean_accuracy": rate,
        "unparsed": rate,
        "conditions": {
            "plain": {"consistency": {"consistent": nothing, "quadrants": {"right_consistent": 3}}}
        },
        "calibration": None,
        "hallucination": None,
        "robustness": {"attackers": {}, "robust_accuracy": None, "valid_robust_accuracy": None},
    }
    results = {
        "questions": 8,
        "pictures": 4,
        "defenders": {"a|b": own},
        "transfer": {"pgd": {"made_against": ["a"], "answered_by": ["a"], "asr": [[{"asr": rate}]]}},
        "differences": {"less": "a", "of": {"b": {"plain": rate | {"mcnemar_holm": 0.031}}}},
        "baselines": {"first": rate, "majority": rate},
        "warnings": ["a warning"],
    }
    text = table(json.loads(json.dumps(results)))
    assert "| measure | a\\|b |" in text
    assert "| clean accuracy | 0.250 (0.100 to 0.500) 8 |" in text
    assert "| consistency: plain | nothing to count |" in text
    assert "| replies right, consistent | 3 |" in text
    assert "| a | 0.250 (0.100 to 0.500) 8 |" in text
    assert "p 0.031" in text
    assert "ECE" not in text
    assert "Note: a warning." in text
