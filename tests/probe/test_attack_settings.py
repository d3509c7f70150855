"""From the command line of `sparring attack` to settings: what a recipe lends, what is wrong, where paths go."""

from pathlib import Path
from typing import Any

import pytest

from small_attack import PRESET, attack_settings
from sparring.data.errors import RecipeError
from sparring.recipes import load_recipe
from sparring.recipes.paths import resolve_model

ENDPOINT = "http://127.0.0.1:8000/v1#m"
DATA = [("data", "q.jsonl")]


def test_models_and_files_become_absolute_and_endpoints_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora").mkdir()
    settings = attack_settings(DATA, [ENDPOINT], ["arena/editor+lora"])
    editor = resolve_model("arena/editor")
    assert settings.data == str(tmp_path / "q.jsonl")
    assert settings.attackers == {"lora": f"{editor}+{tmp_path / 'lora'}"}
    assert settings.attacker is not None
    assert settings.attacker.model == editor
    assert settings.defenders == {"m": ENDPOINT}
    assert (settings.samples, settings.limit, settings.seed, settings.judge.model) == (1, None, 0, None)
    assert {name: getattr(settings, name) for name in PRESET} == PRESET


def test_a_recipe_lends_its_players_settings_and_not_its_data_or_seed() -> None:
    arena = load_recipe("arena")
    settings = attack_settings(
        [*DATA, ("judge.integrity_threshold", 0.7)],
        recipe="arena",
        changes=["attacker.evaluation_steps=9"],
    )
    assert settings.defender == arena.defender
    assert settings.defenders == {"defender": arena.defender.model}
    assert settings.attacker == arena.attacker.model_copy(update={"evaluation_steps": 9})
    assert settings.attackers == {"editor": arena.attacker.model}
    assert settings.judge == arena.judge.model_copy(update={"integrity_threshold": 0.7})
    assert settings.audit == arena.evaluation.audit
    assert settings.data.endswith("q.jsonl")
    against = attack_settings(DATA, [ENDPOINT], ["jpeg:30"], recipe="arena")
    assert against.defender == arena.defender.model_copy(update={"model": ENDPOINT})
    assert against.attackers == {"jpeg:30": "jpeg:30"}
    other = attack_settings(DATA, [ENDPOINT], recipe="arena", changes=["attacker.model=paste:add"])
    assert other.attackers == {"paste:add": "paste:add"}


@pytest.mark.parametrize(
    ("given", "attacker", "defender", "changes", "message"),
    [
        ({}, [], [ENDPOINT], [], "--attacker is missing"),
        ({}, ["arena/editor"], [], [], "--defender is missing"),
        ({}, ["jpeg:30"], [ENDPOINT], ["sample=4"], "attack: sample: no such setting; did you mean samples?"),
        (
            {},
            ["jpeg:30"],
            [ENDPOINT],
            ["defender.endpoint.concurency=4"],
            r"defender.endpoint.concurency: no such setting; did you mean concurrency\?",
        ),
        ({}, ["jpeg:30"], [ENDPOINT], ["samples=many"], "attack: samples: must be a valid integer"),
        ({}, ["jpeg:30"], ["http://127.0.0.1:8000/v1"], [], "endpoint http://127.0.0.1:8000/v1: which model"),
        ({"audit": {"call": "nothing"}}, ["jpeg:30"], [ENDPOINT], [], 'audit.call: must be "package.module'),
        ({}, ["arena/editor+no/such"], [ENDPOINT], [], "the LoRA no/such is no folder and no file"),
        ({"judge.model": ENDPOINT}, ["jpeg:30"], [ENDPOINT], [], "judge: is the Defender m's own checkpoint"),
    ],
)
def test_what_is_wrong_is_named(
    given: dict[str, Any], attacker: list[str], defender: list[str], changes: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        attack_settings([*DATA, *given.items()], defender, attacker, changes=changes)
