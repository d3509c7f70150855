"""The extensions of docs/extend, which docs/extend.md shows, work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from PIL import Image
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

from small_checkpoints import byte_tokenizer, picture
from small_vlms import tiny_qwen2_5_vl
from sparring.attackers.rivals import load_rival
from sparring.attackers.rollout import roll_out
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, DefenderSettings, JudgeSettings
from sparring.data.errors import ModelError, RecipeError
from sparring.data.records import Target, VisualQuestion
from sparring.engine.screen import Screen
from sparring.judging.judge import AttackJudge
from sparring.models.editors import FlowEditor, check_editor, load_editor
from sparring.models.players import load_attacking_editor
from sparring.models.vlms.local import LocalVLM
from sparring.probe.attackers import load_attacker
from sparring.recipes import load_recipe
from sparring.selfplay.loop import open_game
from sparring.selfplay.turns import reward_means

DOCS = Path(__file__).parent.parent / "docs"
FAMILY = "extend.editor:Flux2Editor"
CPU = torch.device("cpu")
CUP = Target("cup", (8, 8, 40, 40))
QUESTION = VisualQuestion("q", Path("q.png"), "Where?", ("left", "right"), "A", (CUP,))
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
)


@pytest.fixture(autouse=True)
def docs_are_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)


def test_the_adapter_is_short() -> None:
    assert len((DOCS / "extend/editor.py").read_text().splitlines()) < 120


# ---- an editor of another family


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Flux2Pipeline of random weights: 4x VAE, 2 x 2 packing (8 pixels a token), embedded guidance."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    vae.bn.running_mean.normal_(0, 0.1)
    vae.bn.running_var.uniform_(0.5, 1.5)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=True,
    )
    tokenizer = byte_tokenizer(96)
    tokenizer.chat_template = TEMPLATE
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 8}
    text = MistralConfig(vocab_size=len(tokenizer), num_hidden_layers=4, num_key_value_heads=1, **sizes)
    vision = PixtralVisionConfig(num_hidden_layers=1, image_size=32, patch_size=8, **sizes)
    reader = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipeline = Flux2Pipeline(scheduler, vae.eval(), reader.eval(), tokenizer, transformer.eval())
    where = tmp_path_factory.mktemp("flux2")
    pipeline.save_pretrained(where, safe_serialization=True)
    return where


def settings(folder: Path | str, **changes: Any) -> AttackerSettings:
    own: dict[str, Any] = {"model": str(folder), "family": FAMILY, "instruction": "{question}"}
    small = {"group_size": 2, "rollout_steps": 3, "evaluation_steps": 3, "lora": {"rank": 2, "alpha": 4}}
    return AttackerSettings.model_validate(own | small | {"learning_rate": 1e-2} | changes)


def test_only_a_recipe_that_names_the_adapter_can_play_the_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"is Flux2Pipeline, known are .*attacker\.family"):
        check_editor(folder)
    check_editor(folder, family=FAMILY)
    assert type(load_editor(folder, family=FAMILY)).__name__ == "Flux2Editor"


@pytest.mark.parametrize("scale", [1.5, 4.0])
@pytest.mark.parametrize("size", [(96, 64), (64, 72)])
def test_its_edits_are_the_official_pipelines(folder: Path, size: tuple[int, int], scale: float) -> None:
    editor: Any = load_attacking_editor(str(folder), settings(folder, embedded_guidance=scale), CPU)
    texts, images = ["add a red cup", "remove the old clock"], [picture(*size, 0), picture(*size, 1)]
    conditions = editor.encode(images, texts)
    made = roll_out(editor, conditions, torch.arange(2), [7, 8], steps=3)
    edits = editor.decode(made.final_BTC, conditions)
    for row in range(2):
        expected = editor.pipeline(
            image=images[row],
            prompt=texts[row],
            guidance_scale=scale,
            num_inference_steps=3,
            output_type="pt",
            generator=torch.Generator().manual_seed(7 + row),
            **editor.text_options,
        ).images[0]
        assert expected.std() > 0.01
        assert (edits[row] - expected).abs().max() < 1e-4


def test_it_learns_and_its_lora_comes_back(folder: Path, tmp_path: Path) -> None:
    editor: FlowEditor = load_attacking_editor(str(folder), settings(folder), CPU)
    trainer = AttackerTrainer(editor, settings(folder), seed=0)
    images = [picture(), picture(72, 56)]
    asked = [VisualQuestion(text, Path("q.png"), text, ("a", "b"), "A") for text in ("cup?", "where is it?")]

    def darkness(edits: list[list[Image.Image]]) -> list[list[float]]:
        return [[1 - float(np.asarray(edit).mean()) / 255 for edit in group] for group in edits]

    metrics = [trainer.update(asked, images, darkness, step) for step in range(2)]
    assert all(own["grad_norm"] > 0 and own["skipped"] == 0 for own in metrics)
    assert all(own["ratio_first"] == pytest.approx(1, abs=1e-4) for own in metrics)
    editor.save_lora(tmp_path / "lora")
    check_editor(folder, tmp_path / "lora", FAMILY)
    specs = (f"{folder}+{tmp_path / 'lora'}", folder)
    attackers = [
        load_attacker(settings(spec), CPU, lambda: pytest.fail("needs no Defender")) for spec in specs
    ]
    (learned,), (base,) = (attacker.edit([QUESTION], [picture()], seed=1) for attacker in attackers)
    assert learned.image.size == (64, 64)
    assert learned.image.tobytes() != base.image.tobytes()


def test_a_pipeline_that_it_saves_is_read_again(folder: Path, tmp_path: Path) -> None:
    editor = load_editor(folder, family=FAMILY)
    editor.save_pipeline(tmp_path)
    again = load_editor(tmp_path, family=FAMILY)
    old, new = editor.transformer.state_dict(), again.transformer.state_dict()
    assert all(torch.equal(tensor, new[name]) for name, tensor in old.items())
    assert Flux2Pipeline.from_pretrained(tmp_path).text_encoder is not None


# ---- a reward of one's own


def test_the_reward_pays_edits_that_change_little(tmp_path: Path) -> None:
    clean = picture()
    dot, square = clean.copy(), clean.copy()
    dot.putpixel((60, 60), (0, 0, 0))
    square.paste((128, 128, 128), (41, 0, 64, 64))
    reward = {"call": "extend.reward:small_change", "weight": 0.5, "arguments": {"share": 0.5}}
    judge_settings = JudgeSettings.model_validate({"dense_weight": 0.0, "reward": reward})
    defender = LocalVLM.load(tiny_qwen2_5_vl(tmp_path))
    judge = AttackJudge(defender, None, judge_settings, DefenderSettings(model="tiny", max_new_tokens=3))
    ((small, large),) = judge.judge([QUESTION], [clean], [[dot, square]])
    assert small.accepted
    assert large.accepted
    assert small.efficacy == large.efficacy == 1  # a random Defender is never right
    assert small.notes["custom"] == pytest.approx(1 - 1 / 64**2 / 0.5)
    assert large.notes["custom"] == pytest.approx(1 - 23 / 64 / 0.5, abs=0.05)
    assert small.reward == pytest.approx(1 + 0.5 * small.notes["custom"])
    paid = [verdict.notes["reward_custom"] for verdict in (small, large)]
    assert reward_means([small, large])["reward_custom"] == pytest.approx(sum(paid) / 2)


# ---- a rival of one's own


def test_the_rival_spares_the_targets_and_follows_from_its_seed() -> None:
    rival = load_rival("extend.rival:lattice:lines=3")
    questions, images = [QUESTION] * 2, [picture(), picture(8, 8)]
    (edit, tiny), again = (rival.edit(questions, images, seed=4) for _ in range(2))
    assert (edit.instruction, tiny.instruction) == ("a lattice of 6 lines", "nothing")
    before, after = np.asarray(images[0]), np.asarray(edit.image)
    changed = (before != after).any(axis=2)
    assert 0.02 < changed.mean() < 0.15
    assert not changed[8:40, 8:40].any()
    assert edit.image.tobytes() == again[0].image.tobytes()
    assert rival.edit(questions, images, seed=5)[0].image.tobytes() != edit.image.tobytes()


# ---- all of them in a recipe


def recipe_with(tmp_path: Path, *changes: str) -> Any:
    return load_recipe("arena", [f"data.path={tmp_path / 'none.jsonl'}", *changes])


def test_a_recipe_names_all_three(tmp_path: Path) -> None:
    changes = [
        f"attacker.family={FAMILY}",
        "judge.reward={call: extend.reward:small_change, weight: 0.5}",
        "evaluation.rivals={lattice: extend.rival:lattice:lines=3}",
    ]
    recipe = recipe_with(tmp_path, *changes)
    assert recipe.attacker.family == FAMILY
    assert recipe.judge.reward.weight == 0.5


@pytest.mark.parametrize(
    "change",
    ["attacker.family=extend.editor:Flux3Editor", "judge.reward.call=extend.reward:large_change"],
)
def test_what_cannot_be_had_stops_a_run_before_it_begins(tmp_path: Path, change: str) -> None:
    recipe, out = recipe_with(tmp_path, change), tmp_path / "run"
    with pytest.raises(RecipeError, match="cannot be imported"), open_game(recipe, out, Screen()):
        pass
    assert not out.exists()
