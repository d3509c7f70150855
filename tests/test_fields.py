"""`sparring fields`: everything that may be set, of every verb."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from typer.testing import CliRunner

from sparring.cli import app
from sparring.fields_command import lines_of_verbs
from sparring.recipes import bundled_recipes, load_recipe

VERBS = ["run", "eval", "probe", "sft", "forge", "study"]


def leaves(value: Mapping[str, Any], where: str = "", algorithm: str = "") -> Iterator[str]:
    """The titles of all settings in resolved ones, as `sparring fields` has them."""
    algorithm = value.get("type", algorithm)
    for name, inner in value.items():
        path = f"{where}{name}"
        if name == "type":
            continue
        yield f"{path} ({algorithm})" if algorithm else path
        if isinstance(inner, Mapping) and name not in ("arguments", "extra_body", "rivals"):
            yield from leaves(inner, f"{path}.", algorithm)


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_everything_that_a_recipe_holds_is_explained(name: str) -> None:
    shown = {line.title for line in dict(lines_of_verbs())["run"]}
    recipe = load_recipe(name).model_dump(mode="json")
    assert set(leaves(recipe)) <= shown


def test_every_verb_shows_its_settings_with_what_they_mean() -> None:
    verbs = dict(lines_of_verbs())
    assert list(verbs) == VERBS
    for verb, lines in verbs.items():
        assert lines
        assert all(line.description and "\n" not in line.description for line in lines), verb
        titles = [(line.title, line.kind) for line in lines]
        assert len(set(titles)) == len(titles)


def test_every_algorithm_is_shown_with_its_settings_and_their_defaults() -> None:
    lines = {line.title: str(line) for line in dict(lines_of_verbs())["run"]}
    for expected in (
        "attacker.algorithm.window.size (flow_grpo): int | null; default 2; ",
        "attacker.algorithm.clip_range (flow_grpo): float; default 0.0001; ",
        "attacker.algorithm.clip_range (awm): float; default 1.0; ",
        "attacker.algorithm.beta (diffusion_nft): float; default 0.1; ",
        "defender.algorithm.clip_high (dapo): float; default 0.28; ",
        "defender.algorithm.clip_high (gspo): float; default 0.0004; ",
        "defender.algorithm.reply (sft): str; default ",
    ):
        assert lines[expected.partition(":")[0]].startswith(expected)
    assert "attacker.algorithm.beta (awm)" not in lines
    assert "defender.algorithm.dual_clip (cispo)" not in lines
    assert "attacker.algorithm.type (awm)" not in lines


def test_the_command_prints_a_line_a_setting() -> None:
    result = CliRunner().invoke(app, ["fields"])
    assert result.exit_code == 0
    for line in (
        "name: str; required; ",
        "attacker.algorithm: one of flow_grpo, diffusion_nft, awm; default flow_grpo; how the editor "
        "learns from rewards",
        "attacker.algorithm: awm; flow matching of pictures, weighted by their advantages",
        "defender.learning_rate: float; default 1e-06",
        "defender.dtype: float32 | bfloat16 | float16; default 'float32'; ",
        "attacker.lora.rank: int; default 64",
        "data.generator.call: str; required",
        "data.generator.arguments: dict[str, Any]; default {}; ",
        "seed: int; default 0",
        "evaluation.rivals: dict[str, str]; default {}; ",
        "suite: str; required; name of the benchmark",
        "judge.model: str; required; a folder, hub id or endpoint; it is shown no pictures",
        "stages: required; from a question to a pair; its settings as those of forge above",
        "judge: checks of edits; its settings as those of judge above",
        "adapt_queries",
        "epochs: int; default 1",
    ):
        assert line in result.stdout
    for verb in VERBS[1:]:
        assert f"\nOf `sparring {verb}`" in result.stdout
    assert "\nOf `sparring probe` and `sparring attack`, its preset\n" in result.stdout


@pytest.mark.parametrize(
    ("word", "titles"),
    [
        ("defender.lora", ["defender.lora", "defender.lora.rank", "defender.lora.alpha"]),
        ("engine.peak_tflops", ["engine.peak_tflops"]),
        ("Engine.Peak", ["engine.peak_tflops"]),
        ("TFLOP/s", ["engine.peak_tflops"]),
    ],
)
def test_a_section_a_name_or_a_word_alone(word: str, titles: list[str]) -> None:
    said = CliRunner().invoke(app, ["fields", word])
    assert said.exit_code == 0
    assert [line.partition(":")[0] for line in said.stdout.split("\nOf `")[0].splitlines()] == titles


def test_every_verb_that_has_such_settings_is_named() -> None:
    said = CliRunner().invoke(app, ["fields", "epochs"]).stdout
    assert said.startswith("\nOf `sparring sft`\nepochs: int; default 1")
    (verb,) = json.loads(CliRunner().invoke(app, ["fields", "epochs", "--json"]).stdout)
    assert verb == "sft"


@pytest.mark.parametrize(
    ("word", "near"), [("defendr", "defender"), ("atacker.lora.rank", "attacker.lora.rank"), ("qqq", None)]
)
def test_where_nothing_fits_the_nearest_is_named(word: str, near: str | None) -> None:
    said = CliRunner().invoke(app, ["fields", word])
    assert said.exit_code == 2
    told = " ".join(said.stderr.split())
    assert f'no setting is named "{word}"' in told
    assert (f"near are: {near}" in told) if near else ("near" not in told)
