"""From the command line to settings: what a recipe lends, what is wrong, where paths go."""

from pathlib import Path
from typing import Any

import pytest

from sparring.data.errors import RecipeError
from sparring.recipes import load_recipe
from sparring.recipes.paths import resolve_model
from sparring.redteam.settings import attack_settings

BASICS: dict[str, Any] = {
    "data": "q.jsonl",
    "attacker.model": "arena/editor",
    "defender.model": "http://127.0.0.1:8000/v1#m",
}


def test_models_and_files_become_absolute_and_endpoints_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora").mkdir()
    settings = attack_settings([*(BASICS | {"attacker.model": "arena/editor+lora"}).items()])
    assert settings.data == str(tmp_path / "q.jsonl")
    assert settings.attacker.model == f"{resolve_model('arena/editor')}+{tmp_path / 'lora'}"
    assert settings.defender.model == BASICS["defender.model"]
    assert (settings.samples, settings.limit, settings.seed, settings.judge.model) == (1, None, 0, None)


def test_a_recipe_lends_its_players_settings_and_not_its_data_or_seed() -> None:
    arena = load_recipe("arena")
    settings = attack_settings(
        [("data", "q.jsonl"), ("judge.integrity_threshold", 0.7)],
        recipe="arena",
        changes=["attacker.evaluation_steps=9"],
    )
    assert settings.defender == arena.defender
    assert settings.attacker == arena.attacker.model_copy(update={"evaluation_steps": 9})
    assert settings.judge == arena.judge.model_copy(update={"integrity_threshold": 0.7})
    assert settings.audit == arena.evaluation.audit
    assert settings.data.endswith("q.jsonl")
    against = attack_settings([*BASICS.items()], recipe="arena")
    assert against.defender == arena.defender.model_copy(update={"model": BASICS["defender.model"]})


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ({"attacker.model": None}, [], "--attacker is missing"),
        ({"defender.model": None}, [], "--defender is missing"),
        ({}, ["sample=4"], "attack: sample: no such setting; did you mean samples?"),
        (
            {},
            ["defender.endpoint.concurency=4"],
            r"defender.endpoint.concurency: no such setting; did you mean concurrency\?",
        ),
        ({}, ["samples=many"], "attack: samples: must be a valid integer"),
        (
            {"defender.model": "http://127.0.0.1:8000/v1"},
            [],
            "defender.model: endpoint http://127.0.0.1:8000/v1: which model",
        ),
        ({"audit": {"call": "nothing"}}, [], 'audit.call: must be "package.module:function"'),
        ({"attacker.model": "arena/editor+no/such"}, [], "the LoRA no/such is no folder"),
        ({"judge.model": BASICS["defender.model"]}, [], "judge.model: is the Defender's own checkpoint"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        attack_settings([*(BASICS | given).items()], changes=changes)
