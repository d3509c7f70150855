import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparring.config import AttackerSettings, Recipe
from sparring.data.errors import ModelError
from sparring.plan import Plan, find_model, make_plan, require_models
from sparring.plan.models import tensor_shapes
from sparring.recipes import load_recipe


@pytest.fixture(autouse=True)
def no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparring.plan.models._in_hub_cache", lambda name: None)
    monkeypatch.chdir(tmp_path)


def editor_folder(folder: Path) -> Path:
    """A pipeline folder by its files: a transformer of two attention linears (one with a bias), a norm and an
    MLP; a VAE.
    """
    for part in ("transformer", "vae"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    tensors = {
        "blocks.0.attn.to_q.weight": torch.zeros(6, 4),
        "blocks.0.attn.to_q.bias": torch.zeros(6),
        "blocks.0.attn.norm_q.weight": torch.zeros(3),
        "blocks.0.attn.to_out.0.weight": torch.zeros(4, 6),
        "blocks.0.ff.weight": torch.zeros(10, 4),
    }
    save_file(tensors, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(tensors, folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"conv": torch.zeros(2, 3, 3, 3)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    return folder


def vlm_folder(folder: Path) -> Path:
    """A model in two shards."""
    folder.mkdir()
    save_file({"a": torch.zeros(10, 10)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(50)}, folder / "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(
            {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        )
    )
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    editor, vlm = editor_folder(tmp_path / "editor"), vlm_folder(tmp_path / "vlm")
    return load_recipe(
        "arena",
        [
            f"attacker.model={editor}",
            f"defender.model={vlm}",
            "judge.model=null",
            "attacker.lora={rank: 8, alpha: 8}",
            "attacker.past_share=0",
        ],
    )


def test_parameters_come_from_the_headers(recipe: Recipe) -> None:
    attacker, defender = make_plan(recipe).models
    assert attacker.parts == {"transformer": 24 + 6 + 3 + 24 + 40, "vae": 54}
    assert attacker.parameters == 151
    assert attacker.lora == 8 * (6 + 4) * 2
    assert (defender.parts, defender.where) == ({"": 150}, "on this disk")


def test_sizes_of_the_large_models_are_known_without_them() -> None:
    plan = make_plan(load_recipe("qwen2.5-vl-3b_flux2-klein-4b"))
    assert {model.where for model in plan.models} == {"hub id, not on this disk"}
    assert all(model.published for model in plan.models)
    assert plan.fits(80e9)  # one GPU of 80 GB
    assert not plan.fits(40e9)
    assert "no such file" in (plan.missing or "")


@pytest.mark.parametrize(
    ("says", "algorithm", "warned"),
    [
        ({"is_distilled": True}, "diffusion_nft", True),
        ({"is_distilled": True}, "awm", True),
        ({"is_distilled": True}, "flow_grpo", False),
        ({"is_distilled": False}, "diffusion_nft", False),
        ({}, "diffusion_nft", False),
    ],
)
def test_an_editor_that_says_it_is_distilled_is_warned_of(
    recipe: Recipe, says: dict[str, bool], algorithm: str, warned: bool
) -> None:
    """By its configuration, whatever its name."""
    (Path(recipe.attacker.model) / "model_index.json").write_text(json.dumps(says))
    attacker = AttackerSettings.model_validate(recipe.attacker.model_dump() | {"algorithm": algorithm})
    plan = make_plan(recipe.model_copy(update={"attacker": attacker}))
    assert [algorithm in text and "step-distilled" in text for text in plan.warnings] == [True] * warned


@pytest.mark.parametrize(
    ("model", "algorithm", "warned"),
    [
        ("black-forest-labs/FLUX.2-klein-4B", "diffusion_nft", True),
        ("black-forest-labs/FLUX.2-klein-4B", "awm", True),
        ("black-forest-labs/FLUX.2-klein-4B", "flow_grpo", False),
        ("black-forest-labs/FLUX.2-klein-base-4B", "diffusion_nft", False),
        ("someone/editor", "diffusion_nft", False),
    ],
)
def test_an_editor_that_is_known_to_be_distilled_is_warned_of_where_it_is_not_here(
    model: str, algorithm: str, warned: bool
) -> None:
    plan = make_plan(
        load_recipe(
            "arena",
            [f"attacker.model={model}", f"attacker.algorithm={algorithm}", "attacker.rollout_steps=6"],
        )
    )
    assert ["step-distilled" in text for text in plan.warnings] == [True] * warned


def test_a_lora_of_a_vision_tower_is_more_than_servers_apply() -> None:
    server = "defender.rollout_server={address: 'http://127.0.0.1:8000/v1#m'}"
    whole = ["defender.interpolation=1", "defender.final_interpolation=1"]
    lora = ["defender.lora={rank: 8, alpha: 8}", *whole]
    (said,) = make_plan(load_recipe("arena", [*lora, server])).warnings
    assert "vision tower" in said
    assert make_plan(load_recipe("arena", [*lora, server, "defender.train_vision=false"])).warnings == ()
    assert make_plan(load_recipe("arena", [server])).warnings == ()


@pytest.mark.parametrize(
    ("model", "billions"),
    [("black-forest-labs/FLUX.1-Kontext-dev", 16.9), ("Qwen/Qwen-Image-Edit-2509", 28.9)],
)
def test_sizes_of_other_editors_are_known_too(model: str, billions: float) -> None:
    plan = make_plan(
        load_recipe("qwen2.5-vl-3b_flux2-klein-4b", [f"attacker.model={model}", "attacker.offload=true"])
    )
    assert plan.models[0].parameters == pytest.approx(billions * 1e9, rel=0.01)
    assert plan.models[0].lora == pytest.approx(64 * {16.9: 1_634_304, 28.9: 2_949_120}[billions])
    assert plan.phases
    assert not any(phase.unknown for phase in plan.phases)


def test_a_model_of_unknown_size_leaves_the_memory_open() -> None:
    recipe = load_recipe("arena", ["attacker.model=someone/editor"])
    plan = make_plan(recipe)
    assert plan.models[0].parameters is None
    assert plan.phases == ()
    assert not plan.fits(1e15)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "arena/nobody"])
def test_a_missing_folder_is_no_hub_id(name: str, recipe: Recipe) -> None:
    assert find_model("defender", name, "float32").where == "missing"
    with pytest.raises(ModelError, match=r"defender.model: .* is no folder and no hub id"):
        require_models(
            recipe.model_copy(update={"defender": recipe.defender.model_copy(update={"model": name})})
        )


def test_a_folder_without_weights(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        require_models(
            recipe.model_copy(
                update={"defender": recipe.defender.model_copy(update={"model": str(tmp_path / "empty")})}
            )
        )
    require_models(recipe)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x05\0\0\0\0\0\0\0{'a':"])
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is no safetensors file"):
        tensor_shapes(tmp_path)


def test_an_endpoint_takes_no_memory_here_and_is_not_looked_for(recipe: Recipe) -> None:
    url = "http://127.0.0.1:8000/v1#m"
    changed = recipe.model_copy(
        update={"defender": recipe.defender.model_copy(update={"model": url, "steps": 0})}
    )
    assert find_model("defender", url, "float32").where == "behind an endpoint"
    require_models(changed)
    names = [phase.name for phase in make_plan(changed).phases]
    assert "Attacker trains" in names
    assert "Defender trains" not in names


def test_models_of_the_forge_are_found_and_have_a_turn_of_their_own(recipe: Recipe) -> None:
    def forging_by(forge: dict[str, object], **bootstrap: int) -> Recipe:
        return Recipe.model_validate(recipe.model_dump() | {"forge": forge, "bootstrap": bootstrap})

    def plan(forge: dict[str, object], **bootstrap: int) -> Plan:
        return make_plan(forging_by(forge, **bootstrap))

    players = plan({})
    own = {
        "implant": "painter",
        "painter": {"model": recipe.attacker.model},
        "extend": {"painter": {"model": recipe.attacker.model}},
    }
    forging = plan(own | {"propose": {"model": recipe.defender.model}})
    assert [model.player for model in forging.models] == [
        "attacker",
        "defender",
        "forge.extend.painter",
        "forge.propose",
    ]
    (first, *others) = forging.phases
    assert first.name == "pairs are forged"
    assert first.load.parts["weights"] == 2 * 4 * (151 + 150)
    assert tuple(others) == players.phases
    assert plan(own, questions=0).models == players.models
    with pytest.raises(ModelError, match=r"forge\.painter\.model: ./nowhere is no folder"):
        require_models(forging_by({"implant": "painter", "painter": {"model": "./nowhere"}}))
