"""A study's file, its cells, and the time that is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparring.data.errors import RecipeError, RunError
from sparring.study.plan import DONE, Cell, Study, load_study
from sparring.study.run import expected, seconds_of, time_left

STUDY: dict[str, Any] = {
    "name": "small",
    "seeds": [3, 4],
    "arms": {
        "base": {"recipe": "arena", "round": 0},
        "arena": {"recipe": "arena"},
        "clean": {"recipe": "arena-clean"},
    },
    "changes": ["threads=1", "selfplay.rounds=2"],
    "baseline": "clean",
    "primary": {"arm": "arena", "opponents": ["light", "own"]},
    "opponents": {"own": "own", "other": "arena@next", "cut_out": "paste:add"},
    "shifts": {"light": ["light:0.75"], "corruptions": ["corruption:fog:3", "corruption:snow:3"]},
}

HOSTED = {
    "recipe": "arena",
    "round": 0,
    "changes": ["defender.model=https://host.test/v1#some-model", "defender.steps=0"],
}


def study(tmp_path: Path, **changes: Any) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return load_study(path)


def test_arms_whose_recipes_come_out_the_same_share_their_games(tmp_path: Path) -> None:
    plan = study(tmp_path)
    names = [str(cell) for cell in plan.cells()]
    assert names == [
        *("game base-4", "edits clean-3", "game base-3", "probe base-3", "probe arena-3"),
        *("game clean-3", "probe clean-3"),
        *("edits clean-4", "probe base-4", "probe arena-4", "game clean-4", "probe clean-4"),
    ]
    needs = {str(cell): {str(need) for need in cell.needs} for cell in plan.cells()}
    assert needs["probe clean-4"] == {"game clean-4", "game base-3", "edits clean-4"}
    assert needs["probe arena-3"] == {"game base-3", "game base-4", "edits clean-3"}
    assert needs["edits clean-3"] == {"game base-4"}
    assert plan.recipe("clean", 4).seed == 4


def test_a_game_that_nothing_needs_is_not_played(tmp_path: Path) -> None:
    arms = {"base": {"recipe": "arena", "round": 0}, "clean": {"recipe": "arena-clean"}}
    primary = {"arm": "base", "opponents": ["light"]}

    def games(**opponents: str) -> list[str]:
        plan = study(tmp_path, arms=arms, primary=primary, opponents=opponents)
        return [str(cell) for cell in plan.cells() if cell.kind == "game"]

    assert games() == ["game clean-3", "game clean-4"]
    assert games(other="clean@next") == ["game clean-4", "game clean-3"]
    assert set(games(own="own")) == {f"game {arm}-{seed}" for arm in arms for seed in (3, 4)}
    assert set(games(other="own@next")) == {f"game {arm}-{seed}" for arm in arms for seed in (3, 4)}


def test_the_games_that_the_primary_outcome_is_made_of_come_first(tmp_path: Path) -> None:
    arms = {
        "other": {"recipe": "arena", "changes": ["defender.steps=3"]},
        "base": {"recipe": "arena", "round": 0},
        "arena": {"recipe": "arena"},
        "clean": {"recipe": "arena-clean"},
    }

    def probes(**changes: Any) -> list[str]:
        cells = study(tmp_path, arms=arms, **changes).cells()
        return [str(cell).removeprefix("probe ") for cell in cells if cell.kind == "probe"]

    assert probes() == [
        *("base-3", "arena-3", "clean-3", "base-4", "arena-4", "clean-4"),
        *("other-3", "other-4"),
    ]
    assert probes(primary=None)[:4] == ["other-3", "base-3", "arena-3", "clean-3"]


def test_edits_that_were_deleted_are_made_again_only_when_a_probe_is_next(tmp_path: Path) -> None:
    plan, out = study(tmp_path), tmp_path / "out"
    for cell in plan.cells():
        if cell.kind == "game" or (
            cell.kind == "probe" and str(cell) not in ("probe arena-4", "probe clean-3")
        ):
            (cell.folder(out)).mkdir(parents=True)
            (cell.folder(out) / DONE[cell.kind]).touch()
    assert [str(cell) for cell in plan.to_do(out)] == [
        *("edits clean-3", "probe clean-3"),
        *("edits clean-4", "probe arena-4"),
    ]
    (plan.game("arena", 3).folder(out) / DONE["game"]).unlink()
    assert [str(cell) for cell in plan.to_do(out)] == [
        *("edits clean-3", "probe clean-3"),
        *("game base-3", "edits clean-4", "probe arena-4"),
    ]
    for cell in plan.cells():
        if cell.kind == "probe":
            cell.folder(out).mkdir(parents=True, exist_ok=True)
            (cell.folder(out) / DONE["probe"]).touch()
    assert [str(cell) for cell in plan.to_do(out)] == ["game base-3"]


def test_a_probe_takes_the_arms_defender_and_the_baselines_measures(tmp_path: Path) -> None:
    arms = STUDY["arms"] | {
        "ungated": {"recipe": "arena", "changes": ["judge.model=null", "defender.max_new_tokens=7"]}
    }
    plan, out = study(tmp_path, arms=arms), Path("/studies/a")
    settings = plan.probe(Cell("probe", "ungated", 3), out)
    assert settings.defenders == {"ungated": "/studies/a/games/ungated-3/round2/defender/model"}
    assert settings.defender.max_new_tokens == 7
    assert settings.judge == plan.recipes["clean"].judge
    assert settings.judge.model is not None
    editor = plan.recipes["arena"].attacker.model
    assert settings.attackers == {
        "own": f"{editor}+/studies/a/games/ungated-3/round2/attacker/editor",
        "other": f"{editor}+/studies/a/games/base-4/round2/attacker/editor",
        "cut_out": "paste:add",
        "light": "light:0.75",
        "corruptions corruption:fog:3": "corruption:fog:3",
        "corruptions corruption:snow:3": "corruption:snow:3",
    }
    shared = plan.probe(plan.edits(3), out)
    assert shared.data == settings.data == "/studies/a/edits/clean-3/data"
    assert shared.attackers == {name: spec for name, spec in settings.attackers.items() if name != "own"}
    base = plan.probe(Cell("probe", "base", 3), out)
    assert base.defenders == {"base": plan.recipes["arena"].defender.model}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "none"}, 'baseline: there is no arm "none"; there are base, arena, clean'),
        ({"primary": {"arm": "clean", "opponents": ["light"]}}, "primary.arm: is the baseline itself"),
        (
            {"primary": {"arm": "arena", "opponents": ["dark"]}},
            'primary.opponents: there is no opponent "dark"',
        ),
        ({"means": {"all": ["light", "dark"]}}, 'means.all: there is no opponent "dark"'),
        ({"means": {"all": ["light", "light"]}}, "means.all: one is named twice"),
        ({"seeds": [3, 3]}, "seeds: one is named twice"),
        ({"seeds": [3]}, "@next is the Attacker of another seed"),
        ({"shifts": {"light": ["ligt:0.75"]}}, 'shifts.light: rival "ligt:0.75": there is no "ligt"'),
        ({"shifts": {"own": ["light:0.75"]}}, '"own" is the name of two'),
        (
            {"opponents": STUDY["opponents"] | {"trip": "roundtrip"}},
            "opponents: trip: roundtrip needs an editor",
        ),
        (
            {"opponents": STUDY["opponents"] | {"x": "aren@next"}},
            'opponents.x: rival "aren@next": there is no',
        ),
        ({"arms": STUDY["arms"] | {"own": {"recipe": "arena"}}}, "arms: own stands for every arm's own"),
        ({"arms": STUDY["arms"] | {"x": {"recipe": "aren"}}}, "arms.x: aren: no such recipe; did you mean"),
        (
            {"arms": STUDY["arms"] | {"x": {"recipe": "arena", "round": 3}}},
            "arms.x.round: is 3, but its game has 2",
        ),
        ({"sedes": [1]}, "sedes"),
        ({"seeds": [3, -4]}, "seeds"),
        ({"shifts": STUDY["shifts"] | {"none": []}}, "shifts.none"),
        ({"arms": STUDY["arms"] | {"a" * 81: {"recipe": "arena"}}}, "arms"),
        (
            {"primary": {"arm": "arena", "opponents": ["light", "light"]}},
            "primary.opponents: one is named twice",
        ),
        ({"changes": ["seed=3"]}, "changes: seed: every arm is played with the study's seeds"),
        (
            {"arms": STUDY["arms"] | {"x": {"recipe": "arena", "changes": ["seed = 3"]}}},
            "arms.x.changes: seed: every arm",
        ),
        (
            {"arms": STUDY["arms"] | {"x": {"recipe": "arena", "changes": ["data.held_out=8"]}}},
            "arms.x: data.held_out is not that of clean",
        ),
        (
            {"arms": STUDY["arms"] | {"x": {"recipe": "arena", "changes": ["data.generator.call=a:b"]}}},
            "arms.x: data.generator is not that of clean",
        ),
        (
            {"arms": STUDY["arms"] | {"host": HOSTED | {"round": None}}},
            "arms.host: its Defender is an endpoint, which no game trains. Set round: 0.",
        ),
        (
            {"arms": STUDY["arms"] | {"host": HOSTED}, "shifts": STUDY["shifts"] | {"pgd": ["pgd:eps=4"]}},
            "arms.host: its Defender is an endpoint, which gives no gradients, and pgd takes them",
        ),
        (
            {"arms": STUDY["arms"] | {"host": HOSTED}, "opponents": {"own": "own", "white": "pgd:eps=4"}},
            "arms.host: its Defender is an endpoint, which gives no gradients, and white takes them",
        ),
        ({"opponents": {"benign": "paste:add"}}, '"benign" is the name of a control'),
        ({"opponents": {"x": "/no/such/editor"}}, "opponents.x: /no/such/editor: no folder, and no hub id"),
    ],
)
def test_a_wrong_study_says_which_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        study(tmp_path, **changes)
    assert message in str(error.value)
    assert "study.yaml: " in str(error.value)


@pytest.mark.parametrize("seconds", [-5.0, float("inf"), float("nan")])
def test_stated_seconds_are_finite_and_not_negative(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(RecipeError, match=r"seconds\.game"):
        study(tmp_path, seconds={"game": seconds})


@pytest.mark.parametrize(
    "text", [None, '{"wall_seco', "{}", "[]", '{"wall_seconds": []}', '{"wall_seconds": 3}']
)
def test_a_finished_cell_whose_file_is_cut_off_or_missing_is_named(tmp_path: Path, text: str | None) -> None:
    plan, cell = study(tmp_path), Cell("probe", "arena", 3)
    folder = cell.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "outcomes.json").write_text("{}")
    if text is not None:
        (folder / "results.json").write_text(text)
    if text and text.endswith("3}"):
        assert set(seconds_of(plan, tmp_path).values()) == {3.0}
        return
    with pytest.raises(RunError, match=r"probe arena-3: .*results\.json cannot be read"):
        seconds_of(plan, tmp_path)


def test_the_protocol_of_this_project_is_a_study() -> None:
    """Its arms have data of their own, from the same generator."""
    plan = load_study(Path(__file__).parents[2] / "examples/evidence.yaml")
    assert len({recipe.data.model_dump_json() for recipe in plan.recipes.values()}) > 1
    kinds = Counter(cell.kind for cell in plan.cells())
    assert kinds == {"game": 75, "edits": 5, "probe": 90}


def test_a_recipe_beside_the_studys_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: arena\nname: mine\n")
    arms = STUDY["arms"] | {"mine": {"recipe": "mine.yaml"}}
    assert study(tmp_path, arms=arms).recipes["mine"].name == "mine"


def test_the_time_left_is_told_from_finished_cells_alone() -> None:
    a3, a4, b3, probe = (
        Cell("game", "a", 3),
        Cell("game", "a", 4),
        Cell("game", "b", 3),
        Cell("probe", "a", 3),
    )
    assert expected(a4, {}) is None
    assert expected(a4, {}, {"game": 50}) == 50
    assert expected(a4, {b3: 300.0}, {"game": 50}) == 300
    assert time_left({}, {a3: 0.0, probe: 0.0}, 1, {"game": 50, "probe": 10}) == "some 1 min 00 s"
    assert expected(a4, {a3: 100.0, b3: 300.0}) == 100  # its arm's own
    assert expected(Cell("game", "c", 3), {a3: 100.0, b3: 300.0}) == 200
    assert time_left({}, {a3: 0.0, probe: 0.0}, 2) == "unknown until the first game and probe are done"
    assert time_left({a3: 100.0}, {probe: 0.0}, 1) == "unknown until the first probe is done"
    assert time_left({a3: 100.0, b3: 300.0}, {a4: 40.0, Cell("game", "b", 4): 0.0}, 1) == "some 6 min 00 s"
    assert time_left({a3: 100.0, b3: 300.0}, {a4: 40.0, Cell("game", "b", 4): 0.0}, 2) == "some 5 min 00 s"
    assert time_left({a3: 100.0}, {a4: 400.0}, 1) == "some 0 s"
    assert time_left({a3: 100.0}, {}, 1) == "nothing"
