"""`sparring fields`: everything that may be set, of every verb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from typer.testing import CliRunner

from sparring.cli import app
from sparring.fields_command import lines_of_verbs
from sparring.recipes import bundled_recipes, load_recipe

VERBS = ["run", "attack", "eval", "probe", "sft", "forge"]


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
        "suite: str; required; name of the benchmark",
        "judge.model: str; required; a folder, hub id or endpoint; it is shown no pictures",
        "stages: required; from a question to a pair; its settings as those of forge above",
        "judge: checks of edits; its settings as those of judge above",
        "adapt_queries",
        "epochs: int; default 1",
    ):
        assert line in result.stdout
    for verb in VERBS[1:]:
        assert f"\nOf `sparring {verb}`\n" in result.stdout
