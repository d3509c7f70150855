"""The scripts that made the bundled players run, resume, and leave ordinary checkpoints behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
from PIL import Image

from sparring.models.editors import load_editor
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.scenes.questions import ask
from sparring.scenes.world import SIZE, render
from sparring.zoo import doubt, train_autoencoder, train_editor, train_vlm
from sparring.zoo import pool as pool_script
from sparring.zoo.architectures import QwenDefender
from sparring.zoo.pool import Pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool"
    pool_script.main(path, scenes=80, seed=3)
    return path


def test_pool_holds_what_it_describes(pool: Path) -> None:
    data = Pool(pool)
    assert len(data) == 80
    assert np.array_equal(data.pixels[17], render(data.scenes[17]))
    images = data.images(np.array([17]))
    assert images.shape == (1, 3, SIZE, SIZE)
    assert torch.allclose(
        (images[0, :, 5, 9] + 1) * 127.5, torch.tensor(data.pixels[17, 5, 9]).float(), atol=1e-3
    )


@pytest.mark.parametrize("player", ["defender", "judge"])
def test_vlm_is_trained_resumed_and_loads(pool: Path, tmp_path: Path, player: str) -> None:
    out = tmp_path / player
    own = {"drill": 8, "language": 8} if player == "defender" else {"drill": 0, "language": 0}
    sizes = {**own, "dense": 8, "joint": 8, "batch": 4, "threads": 1}
    train_vlm.main(player, pool, out, **sizes)
    assert json.loads((out / "progress.json").read_text()) == {
        "phase": "language" if player == "defender" else "joint",
        "step": 2,
    }
    weights = (out / "model.safetensors").read_bytes()
    train_vlm.main(player, pool, out, **sizes)  # finished: nothing changes
    assert (out / "model.safetensors").read_bytes() == weights
    vlm = LocalVLM.load(out)
    (replies,) = vlm.generate(
        [Image.fromarray(Pool(pool).pixels[0])], ["How many cup objects are there?"], Sampling(3)
    )
    assert replies[0].token_ids


def test_training_sees_what_the_processor_makes(pool: Path, tmp_path: Path) -> None:
    """The training code cuts pictures into patches by itself; positions too are its own."""
    torch.manual_seed(0)
    net = QwenDefender()
    net.save(tmp_path)
    vlm = LocalVLM.load(tmp_path)
    picture = Image.fromarray(Pool(pool).pixels[3])
    text = "Is there a cup in the picture?\nA. yes\nB. no"
    batch = vlm.encode([picture], [text])
    head = net.tokenizer(net.chat(text, picture=True), add_special_tokens=False, return_tensors="pt")[
        "input_ids"
    ]
    assert torch.equal(batch["input_ids"], head)
    net.model.eval()
    with torch.no_grad():
        _, hidden = net.hidden(head, net.features(Pool(pool).images(np.array([3]))))
        ours = net.logits(hidden)[0, -1]
        theirs = vlm.forward(
            batch,
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
        ).logits[0, -1]
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_first_heads_look_one_two_and_three_tokens_back() -> None:
    torch.manual_seed(0)
    net = QwenDefender()
    net.model.model.language_model.config._attn_implementation = "eager"
    text = "A. cup\nB. red\nC. two\nD. left"
    tokens = torch.tensor(
        [net.tokenizer(net.chat(text, picture=False), add_special_tokens=False)["input_ids"]]
    )
    attention = net.model.model.language_model(input_ids=tokens, output_attentions=True).attentions[0][0]
    here = torch.arange(6, tokens.shape[1])
    for head, distance in enumerate((1, 2, 3)):
        # What the tokens are pulls at the attention too, at random: most, not all.
        assert (attention[head].argmax(-1)[here] == here - distance).float().mean() > 0.6


def test_autoencoder_then_editor(pool: Path, tmp_path: Path) -> None:
    vae, out = tmp_path / "vae", tmp_path / "editor"
    train_autoencoder.main(pool, vae, images=24, batch=8, crops=2, threads=1)
    before = AutoencoderKLFlux2.from_pretrained(vae)
    assert json.loads((vae / "progress.json").read_text()) == {"step": 3}
    assert before.bn.running_var.min() > 0
    assert before.config.latent_channels == train_autoencoder.LATENT_CHANNELS
    # goes on: now the decoder alone learns
    train_autoencoder.main(pool, vae, images=32, batch=8, crops=2, threads=1)
    after = AutoencoderKLFlux2.from_pretrained(vae)
    moved = {
        name.split(".")[0]
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert moved == {"decoder", "post_quant_conv"}
    train_editor.main(pool, vae, out, pairs=8, batch=4, threads=1)
    Flux2KleinPipeline.from_pretrained(out)
    editor = load_editor(out)
    assert editor.multiple == 8
    train_editor.main(pool, vae, out, pairs=12, batch=4, threads=1)  # goes on where it stopped
    assert json.loads((out / "progress.json").read_text()) == {"step": 3}
    train_editor.main(
        pool, vae, tmp_path / "next", start=out, pairs=8, batch=8, window=4, learning_rate=1e-9, threads=1
    )
    old, new = (load_editor(folder).transformer.state_dict() for folder in (out, tmp_path / "next"))
    assert all(torch.allclose(value, new[name], atol=1e-6) for name, value in old.items())


def test_replies_are_right_by_the_scene(pool: Path) -> None:
    rng = np.random.default_rng(1)
    for scene in Pool(pool).scenes[:30]:
        asked = train_vlm.draw_question(scene, rng)
        assert ask(scene, asked.kind, rng) is not None
        reply = train_vlm.reasoning(scene, asked)
        assert reply.endswith(f"{asked.answer} \\boxed{{{chr(65 + asked.right)}}}")
        for thing in asked.about:
            assert f"{thing.name} {thing.color} {thing.cell[0]} {thing.cell[1]}" in reply


def test_doubtful_questions_are_hardly_ever_answered_by_yes(pool: Path) -> None:
    rng, scenes = np.random.default_rng(2), Pool(pool).scenes
    answers = [doubt.draw_doubtful(scenes[i % len(scenes)], rng, 0.1).answer for i in range(1500)]
    assert 0 < answers.count("yes") < 0.25 * answers.count("no")


def test_doubt_trains_the_language_model_alone(pool: Path, tmp_path: Path) -> None:
    whole, out = Path(doubt.__file__).parent / "defender", tmp_path / "doubtful"
    doubt.main(pool, whole, out, steps=2, batch=4)
    before, after = (LocalVLM.load(folder).model.state_dict() for folder in (whole, out))
    moved = {"visual" in name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {False}
