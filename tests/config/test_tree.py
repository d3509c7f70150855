"""The tree of settings: every setting explains itself, and what stands below a field is found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from sparring.config import (
    AttackerSettings,
    AWMSettings,
    DAPOSettings,
    DefenderSettings,
    DiffusionNFTSettings,
    EvalSettings,
    FlowGRPOSettings,
    ForgeSettings,
    GSPOSettings,
    ImitationSettings,
    JudgeSettings,
    ModelSettings,
    OptimizerSettings,
    ProbeSettings,
    ProposeSettings,
    ReaderSettings,
    Recipe,
    SftSettings,
    WindowSettings,
)
from sparring.config.base import Kind, choices_of, field_at, kind_at, section_of

VERBS = (Recipe, EvalSettings, ProbeSettings, SftSettings, ForgeSettings)


def kinds_in(kind: Kind) -> Iterator[Kind]:
    yield kind
    for info in kind.model_fields.values():
        section = section_of(info)
        for inner in (*choices_of(info).values(), *((section,) if section is not None else ())):
            yield from kinds_in(inner)


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_says_what_it_is_in_one_line(verb: Kind) -> None:
    dumb = {
        f"{kind.__name__}.{name}"
        for kind in kinds_in(verb)
        for name, info in kind.model_fields.items()
        if not info.description or "\n" in info.description
    }
    assert dumb == set()


def test_a_bare_name_is_an_algorithm_with_its_defaults() -> None:
    for name, expected in (
        ("flow_grpo", FlowGRPOSettings()),
        ("diffusion_nft", DiffusionNFTSettings()),
        ("awm", AWMSettings()),
    ):
        for spelling in (name, {"type": name}):
            assert (
                AttackerSettings.model_validate({"model": "m", "algorithm": spelling}).algorithm == expected
            )
    for defender, settings in (("gspo", GSPOSettings()), ("sft", ImitationSettings())):
        assert DefenderSettings.model_validate({"model": "m", "algorithm": defender}).algorithm == settings
    assert AttackerSettings(model="m").algorithm == FlowGRPOSettings()
    assert DefenderSettings(model="m").algorithm == DAPOSettings()


def test_settings_without_a_type_are_the_defaults_own() -> None:
    attacker = AttackerSettings.model_validate({"model": "m", "algorithm": {"window": {"size": 1}}})
    assert attacker.algorithm == FlowGRPOSettings(window=WindowSettings(size=1))
    with pytest.raises(ValidationError, match="beta"):
        AttackerSettings.model_validate({"model": "m", "algorithm": {"beta": 0.2}})


def test_an_algorithm_takes_no_setting_of_another() -> None:
    for algorithm in (
        {"type": "awm", "beta": 0.1},
        {"type": "diffusion_nft", "power": 0.5},
        {"type": "awm", "window": {}},
    ):
        with pytest.raises(ValidationError, match="Extra inputs"):
            AttackerSettings.model_validate({"model": "m", "algorithm": algorithm})
    for algorithm in (
        {"type": "cispo", "dual_clip": 3.0},
        {"type": "dr_grpo", "advantage_epsilon": 1e-6},
        {"type": "sft", "clip_low": 0.1},
    ):
        with pytest.raises(ValidationError, match="Extra inputs"):
            DefenderSettings.model_validate({"model": "m", "algorithm": algorithm})


def test_what_is_dumped_loads_again() -> None:
    for algorithm in ("flow_grpo", "diffusion_nft", {"type": "awm", "power": 0.5}):
        attacker = AttackerSettings.model_validate({"model": "m", "algorithm": algorithm})
        assert AttackerSettings.model_validate(attacker.model_dump()) == attacker
        assert AttackerSettings.model_validate_json(attacker.model_dump_json(), strict=True) == attacker


def test_a_class_below_a_choice_is_that_of_the_type_that_is_written() -> None:
    names = ["attacker", "algorithm"]
    for written, expected in (
        ("awm", AWMSettings),
        ({"type": "diffusion_nft"}, DiffusionNFTSettings),
        (None, FlowGRPOSettings),
    ):
        data = {"attacker": {"algorithm": written}}
        assert kind_at(Recipe, names, data) is expected
    assert kind_at(Recipe, names, {"attacker": {"algorithm": "nothing"}}) is None
    assert kind_at(Recipe, [*names, "window"], {}) is WindowSettings
    assert kind_at(Recipe, [*names, "window"], {"attacker": {"algorithm": "awm"}}) is None
    found = field_at(Recipe, [*names, "clip_range"], {"attacker": {"algorithm": "awm"}})
    assert found is not None
    assert found.default == 1.0
    assert field_at(Recipe, ["attacker", "lora", "rank"], {}) is not None
    assert field_at(Recipe, ["attacker", "nothing"], {}) is None
    assert field_at(Recipe, [], {}) is None


def test_models_that_are_asked_and_players_that_learn_share_their_settings() -> None:
    assert all(
        issubclass(kind, ModelSettings)
        for kind in (DefenderSettings, JudgeSettings, ProposeSettings, ReaderSettings)
    )
    assert all(issubclass(kind, OptimizerSettings) for kind in (AttackerSettings, DefenderSettings))
    for kind in (DefenderSettings, ReaderSettings):  # a judge may be left out, these may not
        with pytest.raises(ValidationError, match="model"):
            kind.model_validate({"dtype": "float32"})
