"""An algorithm in recipes and on the command line: chosen by type, its settings below it, old spellings
refused.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sparring.config import (
    AWMSettings,
    CISPOSettings,
    DAPOSettings,
    DiffusionNFTSettings,
    FlowGRPOSettings,
    ImitationSettings,
    WindowSettings,
)
from sparring.data.errors import RecipeError
from sparring.recipes import load_recipe, load_stored_recipe
from sparring.recipes.borrow import forge_settings, sft_settings

SMALL = """
name: mine
data: {path: questions.jsonl}
attacker: {model: some/editor}
defender: {model: some/vlm}
"""
FLOW = "attacker: {algorithm: {type: flow_grpo, sampler: cps, clip_range: 1e-3}}"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # the recipe's type
        (["attacker.algorithm.beta=0.2"], DiffusionNFTSettings(forward_timesteps=1, beta=0.2)),
        (["attacker.algorithm.type=diffusion_nft"], DiffusionNFTSettings(forward_timesteps=1)),
        (["attacker.algorithm=diffusion_nft"], DiffusionNFTSettings()),  # a bare name: its defaults
        (["attacker.algorithm=awm", "attacker.algorithm.power=0.5"], AWMSettings(power=0.5)),
        (["attacker.algorithm={type: awm, power: 0.5}"], AWMSettings(power=0.5)),
        (["attacker.algorithm.type=awm"], AWMSettings()),  # nothing of the other algorithm's
        (
            ["attacker.algorithm=flow_grpo", "attacker.algorithm.window.size=1", "attacker.rollout_steps=4"],
            FlowGRPOSettings(window=WindowSettings(size=1)),
        ),
    ],
)
def test_changes_go_below_the_algorithm_that_the_recipe_names(changes: list[str], expected: object) -> None:
    assert load_recipe("arena", changes).attacker.algorithm == expected


def test_without_a_type_the_default_is_meant(small: Path) -> None:
    recipe = load_recipe(small, ["attacker.algorithm.noise_level=0.5", "defender.algorithm.clip_high=0.3"])
    assert recipe.attacker.algorithm == FlowGRPOSettings(noise_level=0.5)
    assert recipe.defender.algorithm == DAPOSettings(clip_high=0.3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "attacker: {algorithm: {window: {size: 1}}}",
            FlowGRPOSettings(sampler="cps", clip_range=1e-3, window=WindowSettings(size=1)),
        ),
        (
            "attacker: {algorithm: {type: flow_grpo, clip_range: 0.1}}",
            FlowGRPOSettings(sampler="cps", clip_range=0.1),
        ),
        ("attacker: {algorithm: flow_grpo}", FlowGRPOSettings()),
        # its own clip_range, not the base's
        ("attacker: {algorithm: {type: awm, power: 0.5}}", AWMSettings(power=0.5)),
        ("attacker: {steps: 3}", FlowGRPOSettings(sampler="cps", clip_range=1e-3)),
    ],
)
def test_a_recipe_that_extends_another_takes_over_of_the_same_algorithm_alone(
    small: Path, text: str, expected: object
) -> None:
    small.with_name("base.yaml").write_text(f"extends: mine.yaml\n{FLOW}\n")
    derived = small.with_name("derived.yaml")
    derived.write_text(f"extends: base.yaml\n{text}\n")
    assert load_recipe(derived).attacker.algorithm == expected


def test_a_bare_name_is_extended_by_settings_of_that_type(small: Path) -> None:
    small.with_name("base.yaml").write_text("extends: mine.yaml\nattacker: {algorithm: awm}\n")
    derived = small.with_name("derived.yaml")
    derived.write_text("extends: base.yaml\nattacker: {algorithm: {power: 0.5}}\n")
    assert load_recipe(derived).attacker.algorithm == AWMSettings(power=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["attacker.nft_beta=0.1"],
            "attacker.nft_beta: only an algorithm has it. Write attacker.algorithm: {type: diffusion_nft, "
            "beta: 0.1}.",
        ),
        (
            [
                "attacker.algorithm=awm",
                "attacker.awm_power=0.5",
                "attacker.awm_clip_range=0.3",
                "attacker.awm_old_weight=1.0",
            ],
            "Write attacker.algorithm: {type: awm, power: 0.5, clip_range: 0.3, old_weight: 1.0}.",
        ),
        (
            ["attacker.awm_power=0.5", "attacker.old_ema_max=0.1"],
            "Write attacker.algorithm: {type: awm, power: 0.5, old_ema_max: 0.1}.",
        ),
        (["attacker.window={size: 1}"], "Write attacker.algorithm: {type: flow_grpo, window: {size: 1}}."),
        (
            ["attacker.algorithm.sampler=cps", "attacker.clip_range=0.3"],
            "Write attacker.algorithm: {type: flow_grpo, sampler: cps, clip_range: 0.3}.",
        ),
        (
            ["attacker.algorithm=awm", "attacker.clip_range=0.0001"],  # it was Flow-GRPO's
            "Write attacker.algorithm: {type: awm}. Leave out clip_range, which awm does not read.",
        ),
        (
            ["defender.clip_low=0.1", "defender.clip_high=null"],
            "Write defender.algorithm: {type: dapo, clip_low: 0.1}.",
        ),
        (
            ["defender.algorithm=gspo", "defender.dual_clip=null"],
            "Write defender.algorithm: {type: gspo, dual_clip: null}.",
        ),
        (
            ["attacker.algorithm=awm", "attacker.algorithm.beta=0.1"],
            "attacker.algorithm.beta: awm has no such setting; of diffusion_nft it is one.",
        ),
        (
            ["attacker.algorithm.nose_level=0.1"],
            "attacker.algorithm.nose_level: no such setting; did you mean noise_level?",
        ),
        (
            ["attacker.algorithm.zzz=1"],
            "attacker.algorithm.zzz: no such setting; there are noise_level, sampler, window",
        ),
        (
            ["attacker.algorithm.clip_range=-1"],
            "attacker.algorithm.clip_range: must be greater than 0, not -1.",
        ),
        (
            ["attacker.algorithm.window.size=0"],
            "attacker.algorithm.window.size: must be greater than or equal to 1",
        ),
        (
            ["defender.algorithm=gsop"],
            "defender.algorithm: must be one of dapo, grpo, dr_grpo, gspo, cispo, sft, or settings",
        ),
        (["defender.algorithm={type: gsop}"], "not 'gsop'. Did you mean gspo?"),
        (
            ["attacker.algorithm=7"],
            "attacker.algorithm: must be one of flow_grpo, diffusion_nft, awm, or settings with such a "
            "type, not 7.",
        ),
        (["attacker.algorithm=null"], "or settings with such a type, not None."),
        (
            ["attacker.algorithm=nothing", "attacker.nft_beta=0.1"],
            "attacker.nft_beta: only an algorithm has it.",
        ),
    ],
)
def test_what_is_wrong_names_the_field_and_the_right_spelling(
    small: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, changes)
    assert message in str(caught.value)


BEFORE = {
    "attacker": {
        "model": "some/editor",
        "algorithm": "diffusion_nft",
        "noise_level": 0.7,
        "window": {"size": 2},
        "clip_range": 1e-4,
        "nft_beta": 0.1,
        "awm_clip_range": 1.0,
        "forward_timesteps": 1,
    },
    "defender": {
        "model": "some/vlm",
        "algorithm": "dapo",
        "reply": "{answer}",
        "clip_low": None,
        "dual_clip": 3.0,
    },
}


def test_a_run_of_an_earlier_version_is_told_what_to_write(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"name": "old", "data": {"path": "q.jsonl"}, **BEFORE}, sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        load_stored_recipe(tmp_path)
    attacker, defender, advice = str(caught.value).splitlines()
    assert "an earlier version" in advice
    assert attacker == (
        f"{file}: attacker.noise_level, attacker.window, attacker.clip_range, attacker.nft_beta, "
        f"attacker.awm_clip_range, "
        "attacker.forward_timesteps: only an algorithm has them. Write attacker.algorithm: {type: "
        "diffusion_nft, "
        "beta: 0.1, forward_timesteps: 1}. Leave out noise_level, window, clip_range, awm_clip_range, "
        "which diffusion_nft "
        "does not read."
    )
    assert defender == (
        f"{file}: defender.reply, defender.clip_low, defender.dual_clip: only an algorithm has them. Write "
        "defender.algorithm: {type: dapo, dual_clip: 3.0}. Leave out reply, which dapo does not read."
    )


def test_verbs_take_an_algorithm_over_with_its_settings() -> None:
    forge = forge_settings([("data", "q.jsonl")], recipe="arena", changes=["attacker.algorithm.beta=0.3"])
    assert forge.attacker.algorithm == DiffusionNFTSettings(forward_timesteps=1, beta=0.3)
    with pytest.raises(
        RecipeError, match=r"Write attacker\.algorithm: \{type: diffusion_nft, forward_timesteps: 1"
    ):
        forge_settings([("data", "q.jsonl")], recipe="arena", changes=["attacker.nft_beta=0.3"])


def test_fine_tuning_keeps_the_reply_of_a_recipe_that_fine_tunes(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: arena-sft\ndefender: {algorithm: {reply: '{answer}'}}\n")
    data = [("data", "q.jsonl")]
    assert sft_settings(data, recipe=str(recipe)).defender.algorithm == ImitationSettings(reply="{answer}")
    recipe.write_text("extends: arena\ndefender: {algorithm: cispo}\n")
    assert load_recipe(recipe).defender.algorithm == CISPOSettings()
    assert sft_settings(data, recipe=str(recipe)).defender.algorithm == ImitationSettings()
    changed = sft_settings(data, recipe=str(recipe), changes=["defender.algorithm.reply='{option}'"])
    assert changed.defender.algorithm == ImitationSettings(reply="{option}")
