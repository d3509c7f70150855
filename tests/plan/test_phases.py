"""Memory as a function of the number of GPUs and of how a player is trained on them; time and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparring.cli import app
from sparring.plan import Plan, make_plan
from sparring.plan.cost import Rates
from sparring.plan.memory import Training, base, state
from sparring.plan.models import tensor_shapes
from sparring.plan.phases import Setup, lora_parameters
from sparring.plan.shapes import PUBLISHED_EDITORS, PUBLISHED_VLMS, vlm_shape
from sparring.recipes import load_recipe

PAPER, KLEIN = "qwen2.5-vl-7b_qwen-image-edit", "qwen2.5-vl-3b_flux2-klein-4b"
RATES = Rates(989, 0.3, 0.03, 256, 2.5)


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparring.plan.models._in_hub_cache", lambda name: None)
    monkeypatch.chdir(tmp_path)


def plan(recipe: str, setup: Setup, changes: Sequence[str] = ()) -> Plan:
    return make_plan(load_recipe(recipe, list(changes)), setup)


def totals(found: Plan) -> dict[str, float]:
    return {phase.name: phase.load.total for phase in found.phases}


def test_state_of_a_weight_by_dtype() -> None:
    """16 bytes in float32; in 16 bits 2 + 2, and 12 of AdamW's copy and moments."""
    assert state(10, 4).total == 160
    assert state(10, 2).parts == {"weights": 20, "gradients": 20, "optimiser": 120}
    assert state(10, 2, 4).total == 40


def test_a_divided_base_brings_two_blocks_together() -> None:
    how = Training(2, 8, False, 4, "fsdp2")
    assert base(100, 10, how).total == pytest.approx(200 / 4 + 2 * 20)
    assert base(100, 10, replace(how, strategy="data_parallel")).total == 200


def test_the_papers_setting_fits_eight_gpus_where_weights_are_divided() -> None:
    divided = Setup(0, 8, "fsdp2", "fsdp2")
    assert plan(PAPER, divided).fits(80e9)
    least = plan(PAPER, divided).smallest(80e9)
    assert least is not None
    assert 2 <= least <= 8
    assert plan(PAPER, replace(divided, gpus=least)).fits(80e9)
    assert not plan(PAPER, replace(divided, gpus=least - 1)).fits(80e9)
    whole = plan(PAPER, Setup(0, 8))
    assert not whole.fits(80e9)
    assert whole.smallest(80e9) is None
    for phase, gigabytes in {"Attacker trains": 90, "Defender trains": 150}.items():
        assert totals(whole)[phase] > gigabytes * 1e9


def test_in_frozen_play_the_players_make_room_for_each_other() -> None:
    """By hand, in GB: libraries 1, transformer 40.9, encoders 16.6 and 0.3, Defender 16.6, judge 16.1."""
    kept, lent = (
        totals(plan(PAPER, Setup(0, 8), [f"attacker.offload={on}"]))["frozen players play"] / 1e9
        for on in ("false", "true")
    )
    assert kept == pytest.approx(1 + 40.9 + 16.6 + 0.3 + 16.6 + 16.1 + 6, abs=0.5)
    assert lent == pytest.approx(1 + 40.9 + 16.6 + 16.1, abs=0.2), "all but encoders and cache, between turns"
    # where the judge's pictures need more than that: while they answer
    crowded = ["attacker.offload=true", "judge.batch=64"]
    answers = totals(plan(PAPER, Setup(0, 8), crowded))["frozen players play"] / 1e9
    assert 1 + 16.6 + 16.1 + 50 < answers < 1 + 16.6 + 16.1 + 110


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        (["attacker.gradient_checkpointing=false"], "Attacker trains"),
        (["defender.gradient_checkpointing=false"], "Defender trains"),
        (["judge.batch=128"], "frozen players play"),
    ],
)
def test_what_the_papers_recipe_says_it_needs_for_that(changes: list[str], phase: str) -> None:
    found = plan(PAPER, Setup(0, 8, "fsdp2", "fsdp2"), changes)
    assert totals(found)[phase] > 80e9


def test_more_of_what_costs_memory_costs_more() -> None:
    setup = Setup(0, 8, "fsdp2", "fsdp2")
    usual = totals(plan(PAPER, setup))
    for change, phase in (
        ("attacker.micro_batch=4", "Attacker trains"),
        ("attacker.lora=null", "Attacker trains"),
        ("attacker.past_share=0.5", "Attacker trains"),
        ("defender.micro_batch=8", "Defender trains"),
        ("defender.kl_weight=0.1", "Defender trains"),
        ("defender.interpolation=0.5", "Defender trains"),
    ):
        assert totals(plan(PAPER, setup, [change]))[phase] > 1.02 * usual[phase], change
    larger = totals(plan(PAPER, replace(setup, pixels=1536 * 1536)))
    # the crop's area bounds the editor's, and the judge's have as many tokens whatever their size
    assert {name for name in usual if larger[name] != usual[name]} == {"Defender trains"}
    without_judge = totals(plan(PAPER, setup, ["judge.model=null"]))
    assert usual["Attacker trains"] - without_judge["Attacker trains"] == pytest.approx(8.03e9 * 2)


def test_offload_takes_the_encoders_off_a_gpu_that_learns() -> None:
    setup = Setup(0, 8, "fsdp2", "fsdp2")
    usual, frugal = (totals(plan(PAPER, setup, [f"attacker.offload={on}"])) for on in ("false", "true"))
    assert usual["Attacker trains"] - frugal["Attacker trains"] == pytest.approx(8.42e9 * 2)


def test_parameters_of_a_lora_are_those_of_its_layers() -> None:
    shape = PUBLISHED_VLMS["Qwen/Qwen2.5-VL-7B-Instruct"].text
    layers = [(3584, 3584), (512, 3584), (512, 3584), (3584, 3584)]
    layers += [(18944, 3584), (18944, 3584), (3584, 18944)]
    assert lora_parameters(shape, 8) == 28 * 8 * sum(a + b for a, b in layers)


def test_weights_that_a_token_meets_are_those_of_the_files() -> None:
    """The bundled Defender's blocks, whose norms and biases are left out, and its published relative's."""
    found = plan("arena", Setup(0)).models[1]
    blocks = {
        name: shape
        for name, shape in tensor_shapes(Path(found.name)).items()
        if ".layers.0." in name and len(shape) == 2
    }
    assert found.shape is not None
    assert sum(a * b for a, b in blocks.values()) == found.shape.text.weights  # type: ignore[union-attr]
    text = PUBLISHED_VLMS["Qwen/Qwen2.5-VL-7B-Instruct"].text
    head = 2 * 152064 * 3584  # embeddings and output head
    assert text.count * text.weights + head == pytest.approx(7.62e9, rel=0.01)
    (blocks_of_qwen,) = PUBLISHED_EDITORS["Qwen/Qwen-Image-Edit"].blocks
    assert 2 * blocks_of_qwen.count * blocks_of_qwen.weights == pytest.approx(13.6e9, rel=0.01)


def test_time_and_cost() -> None:
    setup = Setup(0, 8, "fsdp2", "fsdp2")
    four, eight, many = (plan(PAPER, replace(setup, gpus=gpus)).duration(RATES) for gpus in (4, 8, 64))
    assert four is not None
    assert eight is not None
    assert many is not None
    assert four.attacker_update == pytest.approx(2 * eight.attacker_update)
    assert many.attacker_update == eight.attacker_update, "eight questions are no more than eight shares"
    assert many.defender_update == pytest.approx(eight.defender_update / 8)
    assert eight.cost == pytest.approx(eight.run / 3600 * 8 * 2.5)
    rounds = 3 * 100 * (eight.attacker_update + eight.defender_update)
    assert rounds < eight.run < 1.6 * rounds
    # by hand: 128 edits of 10 guided steps and 9 that are learned from (forward, recomputed, backward by the
    # LoRA alone), 9592 tokens that meet 6.8 B weights and attend to each other in 60 blocks
    step = 2 * 9592 * (2 * 6.795e9 + 60 * 4 * 3072 * 9592)
    by_hand = 128 * (10 + 9 * 3) * step / (8 * 989e12 * 0.3)
    assert eight.attacker_update == pytest.approx(by_hand, rel=0.03)
    slower = plan(PAPER, setup).duration(replace(RATES, sampling=0.003))
    assert slower is not None
    assert slower.defender_update > 2 * eight.defender_update
    fewer = plan(PAPER, setup, ["evaluation.questions=32"]).duration(RATES)
    assert fewer is not None
    assert fewer.run < eight.run
    one = plan(PAPER, setup, ["data.held_out=1"]).duration(RATES)
    assert one is not None
    assert one.run < fewer.run, "rounds' own edits are shared out however few questions are held out"
    assert (fewer.attacker_update, fewer.defender_update) == (eight.attacker_update, eight.defender_update)


def onevision(folder: Path) -> Path:
    """A configuration of the kind and size of llava-hf/llava-onevision-qwen2-7b-ov-hf's."""
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    vision |= {"num_attention_heads": 16, "image_size": 384, "patch_size": 14}
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152000}
    config = {"model_type": "llava_onevision", "text_config": text, "vision_config": vision}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_pictures_in_tiles_count_alike_wherever_the_model_lies(tmp_path: Path) -> None:
    name = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    here, published = vlm_shape(name, onevision(tmp_path / "judge")), PUBLISHED_VLMS[name]
    assert here == replace(published, side=14)
    assert here.visual_tokens(1024**2) == published.visual_tokens(1024**2) == 7371


def test_each_player_is_given_no_more_of_a_picture_than_the_recipe_lets_it() -> None:
    setup = Setup(0, 8, "fsdp2", "fsdp2")
    large = replace(setup, pixels=3840 * 2160)
    usual, larger = plan(PAPER, setup), plan(PAPER, large)
    assert totals(larger)["Attacker trains"] == totals(usual)["Attacker trains"], "the crop's area bounds it"
    assert totals(larger)["Defender trains"] > totals(usual)["Defender trains"]
    whole = ["attacker.crop.max_area=16777216", "defender.max_pixels=16777216"]
    assert totals(plan(PAPER, large, whole))["Attacker trains"] > 2 * totals(usual)["Attacker trains"]
    bounded = ["defender.max_pixels=1048576"]
    assert totals(plan(PAPER, large, bounded))["Defender trains"] == totals(usual)["Defender trains"]
    times = [plan(PAPER, own, bounded).duration(RATES) for own in (setup, large)]
    assert times[0] == times[1]


def test_a_phase_has_its_own_number_of_gpus() -> None:
    setup = Setup(0, 16, own={"attacker": 1, "play": 1})
    mixed, one, sixteen = (plan(PAPER, own) for own in (setup, Setup(0, 1), Setup(0, 16)))
    for phase, like in (("Attacker trains", one), ("Defender trains", sixteen)):
        assert totals(mixed)[phase] == totals(like)[phase]
    times = [own.duration(RATES) for own in (mixed, one, sixteen)]
    own, alone, many = times
    assert own is not None
    assert alone is not None
    assert many is not None
    assert (own.attacker_update, own.defender_update) == (alone.attacker_update, many.defender_update)
    assert many.run < own.run < alone.run
    assert own.cost == pytest.approx(own.run / 3600 * 16 * 2.5), "the largest number is held throughout"
    command = ["plan", PAPER, "--set", "engine.workers=1", "--set", "engine.defender.workers=16"]
    assert "16 (attacker 1, defender 16, play 1)" in CliRunner().invoke(app, command).stderr
    told = CliRunner().invoke(app, [*command, "--gpus", "4"]).stderr
    assert "of 4;" in told


def test_a_saved_state_holds_weights_and_what_adamw_keeps() -> None:
    """By hand: 14 bytes of a weight in 16 bits, 12 of one in float32."""
    sizes = plan(PAPER, Setup(0, 8, "fsdp2", "fsdp2")).saved
    assert sizes["defender"] == pytest.approx(14 * 8.29e9)
    assert sizes["attacker"] == pytest.approx(12 * 64 * 60 * 8 * 2 * 3072)
    assert plan(KLEIN, Setup(0)).saved["defender"] == pytest.approx(14 * 3.75e9)
    fixed = ["defender.model=http://127.0.0.1:1/v1#none", "defender.min_pixels=null"]
    assert set(plan(KLEIN, Setup(0), [*fixed, "defender.max_pixels=null", "defender.steps=0"]).saved) == {
        "attacker"
    }
    assert (
        "a saved state: attacker 2.26 GB, defender 116.06 GB"
        in CliRunner().invoke(app, ["plan", PAPER]).stderr
    )


def test_fine_tuning_has_the_encoders_beside_it_while_pairs_are_encoded() -> None:
    """By hand, in GB: libraries, transformer, LoRA with AdamW's, encoders; pairs lie in the CPU's memory."""
    found = totals(plan(PAPER, Setup(0, 8)))["editor is fine-tuned"] / 1e9
    assert found == pytest.approx(1 + 40.9 + 0.75 + 1.5 + 16.6, abs=0.1)


def test_the_forges_edits_take_time() -> None:
    setup = Setup(0, 8, "fsdp2", "fsdp2")

    def run(*changes: str) -> float:
        found = plan(PAPER, setup, changes).duration(RATES)
        assert found is not None
        return found.run

    once, twice = run("bootstrap.attempts=1"), run("bootstrap.attempts=2")
    step = 2 * 9592 * (2 * 6.795e9 + 60 * 4 * 3072 * 9592)
    edits = 2048 * 40 * step / (8 * 989e12 * 0.3)
    assert edits < twice - once < 1.3 * edits, "and the judging of them"
    painted = ["bootstrap.implant=painter", "forge.painter.model=flat"]
    assert run(*painted) < once
    assert run("bootstrap.questions=0") < run(*painted)


def test_the_command_says_all_of_it() -> None:
    command = ["plan", PAPER, "--gpus", "8", "--gpu-memory", "80", "--price", "2.5"]
    said = CliRunner().invoke(app, [*command, "--fsdp2", "attacker", "--fsdp2", "defender"]).stderr
    for text in (
        "Attacker trains",
        "activations",
        "8 x 80 GB: every phase fits",
        "smallest number that does: ",
    ):
        assert text in said
    assert "at 2.5 a GPU hour" in said
    # The recipe itself divides the two that learn, and says how many GPUs.
    by_recipe = CliRunner().invoke(app, command[:2]).stderr
    assert "of 8;" in by_recipe
    assert "8 x 80 GB: every phase fits" in by_recipe
    whole = [*command, "--set", "engine.attacker.strategy=data_parallel"]
    assert "too small for: Attacker trains\n" in CliRunner().invoke(app, whole).stderr
    for wrong in (["--picture", "1024"], ["--fsdp2", "judge"]):
        result = CliRunner().invoke(app, ["plan", "arena", *wrong])
        assert result.exit_code == 2
        assert wrong[0] in result.stderr
