"""What all editors have in common, on small random checkpoints of the real classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from torch import Tensor

from small_checkpoints import picture
from sparring.data.errors import ModelError
from sparring.models.editors import Conditions, FlowEditor, load_editor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.qwen_image_edit import QwenImageEditEditor

INSTRUCTIONS = ["add a red cup", "remove the old clock"]


@torch.no_grad()
def ode(editor: FlowEditor, conditions: Conditions, latents: Tensor, steps: int = 3) -> Tensor:
    sigmas = editor.sigmas(steps, conditions)
    for sigma, after in pairwise(sigmas):
        latents = latents + (after - sigma) * editor.velocity(latents, sigma.item(), conditions)
    return editor.decode(latents, conditions)


def test_picture_instruction_guidance_and_noise_all_matter(editor: FlowEditor) -> None:
    image = picture()

    def make(image: Image.Image, text: str, seed: int, guidance: float = 1.0) -> Tensor:
        conditions = editor.encode([image], [text], guidance_scale=guidance)
        return editor.velocity(editor.noise(conditions, [seed]), 0.6, conditions).detach()

    first = make(image, "add a cup", 0)
    assert torch.equal(first, make(image, "add a cup", 0))
    for other in (
        make(picture(seed=5), "add a cup", 0),
        make(image, "remove it", 0),
        make(image, "add a cup", 1),
        make(image, "add a cup", 0, 2.0),
    ):
        assert (first - other).abs().max() > 1e-5


def test_sigmas_are_the_schedulers(editor: FlowEditor) -> None:
    conditions = editor.encode([picture()], ["x"])
    sigmas = editor.sigmas(5, conditions)
    assert sigmas.shape == (6,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] == pytest.approx(1)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert not torch.allclose(sigmas, torch.linspace(1, 0, 6), atol=0.02)  # shifted by the picture's size
    # its schedule is stretched to end at 0.02, which one step cannot do
    if isinstance(editor, QwenImageEditEditor):
        with pytest.raises(ModelError, match="more steps"):
            editor.sigmas(1, conditions)


def test_a_rows_noise_depends_on_its_seed_alone(editor: FlowEditor) -> None:
    two = editor.encode([picture()] * 2, INSTRUCTIONS)
    noise = editor.noise(two, [3, 4])
    torch.manual_seed(99)
    assert torch.equal(noise, editor.noise(two, [3, 4]))
    assert torch.equal(noise[1:], editor.noise(two.select(slice(0, 1)), [4]))
    assert not torch.equal(noise[0], noise[1])
    assert noise.dtype == torch.float32
    with pytest.raises(ModelError, match="one seed for every row"):
        editor.noise(two, [3])


def test_repeat_select_and_cat_give_the_right_rows(editor: FlowEditor) -> None:
    images = [picture(seed=1), picture(seed=2)]
    both = editor.encode(images, ["a", "remove the large old clock"])
    repeated = both.repeat(3)
    assert repeated.batch == 6
    assert (repeated.height, repeated.width) == (64, 64)
    latents = editor.noise(both, [0, 1])
    with torch.no_grad():
        expected = editor.velocity(latents, 0.5, both)
        wide = editor.velocity(latents.repeat_interleave(3, dim=0), 0.5, repeated)
        torch.testing.assert_close(wide, expected.repeat_interleave(3, dim=0), atol=1e-5, rtol=1e-5)
        picked = editor.velocity(latents[[1, 0, 1]], 0.5, both.select(torch.tensor([1, 0, 1])))
        torch.testing.assert_close(picked, expected[[1, 0, 1]], atol=1e-5, rtol=1e-5)
        # encoded apart, and put together although the texts have different lengths
        apart = Conditions.cat(
            [
                editor.encode([image], [text])
                for image, text in zip(images, ["a", "remove the large old clock"], strict=True)
            ]
        )
        torch.testing.assert_close(editor.velocity(latents, 0.5, apart), expected, atol=1e-5, rtol=1e-5)


def test_a_repeated_picture_or_text_is_encoded_once(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, int] = {"vae": 0, "text": 0}

    def counting(name: str, module: torch.nn.Module, argument: str) -> None:
        original = module.encode if name == "vae" else module.forward

        def wrapped(*args: Tensor, **kwargs: Tensor) -> object:
            rows[name] += len(kwargs[argument] if argument in kwargs else args[0])
            return original(*args, **kwargs)

        monkeypatch.setattr(module, "encode" if name == "vae" else "forward", wrapped)

    counting("vae", editor.pipeline.vae, "x")
    counting("text", getattr(editor.pipeline, editor.text_encoders[-1]), "input_ids")
    image = picture()
    conditions = editor.encode([image] * 4, ["a", "b", "a", "b"])
    assert conditions.batch == 4
    assert rows == {"vae": 1, "text": 2}
    latents = editor.noise(conditions, [0, 1, 2, 3])
    ode(editor, conditions, latents)
    assert rows == {"vae": 1, "text": 2}


def test_every_row_may_have_its_own_noise_level(editor: FlowEditor) -> None:
    conditions = editor.encode([picture()] * 2, INSTRUCTIONS)
    latents = editor.noise(conditions, [0, 1])
    with torch.no_grad():
        mixed = editor.velocity(latents, torch.tensor([0.9, 0.2]), conditions)
        torch.testing.assert_close(
            mixed[:1], editor.velocity(latents, 0.9, conditions)[:1], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            mixed[1:], editor.velocity(latents, 0.2, conditions)[1:], atol=1e-5, rtol=1e-5
        )


def test_clean_latents_decode_to_the_vaes_round_trip(editor: FlowEditor) -> None:
    images = [picture(seed=3), picture(seed=4)]
    conditions = editor.encode(images, INSTRUCTIONS)
    latents = editor.clean_latents(images, conditions)
    torch.testing.assert_close(latents, conditions.tensors["image"].float())
    vae = editor.pipeline.vae
    pixels = (
        torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]).float() / 127.5
        - 1
    )
    with torch.no_grad():
        if isinstance(editor, QwenImageEditEditor):
            expected = vae.decode(vae.encode(pixels[:, :, None]).latent_dist.mode()).sample[:, :, 0]
        else:
            expected = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    expected = (expected / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(editor.decode(latents, conditions), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(editor.reencode(images), expected, atol=1e-4, rtol=0)
    with pytest.raises(ModelError, match="do not fit"):
        editor.clean_latents([picture(72, 64)] * 2, conditions)


def test_an_edit_has_the_size_of_its_picture(editor: FlowEditor) -> None:
    odd = picture(61, 50)
    conditions = editor.encode([odd], ["x"])
    assert (conditions.height, conditions.width) == (50, 61)
    assert ode(editor, conditions, editor.noise(conditions, [0]), steps=2).shape == (1, 3, 50, 61)
    assert editor.reencode([odd]).shape == (1, 3, 50, 61)
    padded = np.asarray(editor.fit(odd))
    assert np.array_equal(padded[:50, :61], np.asarray(odd))
    assert np.array_equal(padded[:50, 63], np.asarray(odd)[:, 60])


def test_pictures_of_two_sizes_in_one_batch_are_an_error(editor: FlowEditor) -> None:
    with pytest.raises(ModelError, match="one size"):
        editor.encode([picture(64, 64), picture(72, 64)], INSTRUCTIONS)
    with pytest.raises(ModelError, match="as many"):
        editor.encode([picture()], INSTRUCTIONS)


def test_text_layers_of_a_full_size_encoder_are_the_pipelines_own(folders: dict[str, Path]) -> None:
    editor = load_editor(folders["flux2_klein"])
    assert isinstance(editor, Flux2KleinEditor)
    assert editor.text_layers == (1, 2, 3)
    editor.pipeline.text_encoder.config.num_hidden_layers = 36
    assert editor.text_layers == (9, 18, 27)
    editor.pipeline.tokenizer.model_max_length = 131072
    assert editor.text_length == 512


def broken_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")


def other_family(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


@pytest.mark.parametrize("spoil", [lambda folder: None, broken_index, other_family])
def test_a_folder_that_is_no_editor_is_an_error_with_its_name(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_editor(tmp_path)


def test_missing_weights_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    Flux2KleinPipeline.from_pretrained(folders["flux2_klein"]).save_pretrained(tmp_path)
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_editor(tmp_path)
