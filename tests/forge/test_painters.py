"""Painters: what is outside the mask stays as it is, to the bit, at any size; what is inside follows from
seed and prompt.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinInpaintPipeline
from PIL import Image

from small_checkpoints import picture, tiny_flux2_klein, tiny_flux_fill, tiny_qwen_image
from sparring.config import CropSettings, PainterSettings
from sparring.data.errors import DataError, ModelError
from sparring.forge.painter_models import FAMILIES
from sparring.forge.painters import Painter, bounds, box_mask, load_painter

MAKERS: dict[str, Callable[[Path], Path]] = {
    "flux_fill": tiny_flux_fill,
    "flux2_klein": tiny_flux2_klein,
    "qwen_image": tiny_qwen_image,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


def settings(model: Path | str, **changes: object) -> PainterSettings:
    return PainterSettings.model_validate({"model": str(model), "steps": 2, "guidance_scale": 2.0, **changes})


@pytest.fixture(scope="module", params=[*MAKERS, "edges", "paste"])
def painter(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Painter:
    return load_painter(settings(folders.get(request.param, request.param)), CPU)


def test_only_the_mask_is_painted_and_the_seed_decides_how(painter: Painter) -> None:
    images = [picture(64, 48), picture(61, 45, seed=1)]
    masks = [box_mask(image.size, [(30, 8, 54, 40)]) for image in images]
    made = painter.fill(images, masks, ["ball"] * 2, [1, 2])
    for image, mask, edit in zip(images, masks, made, strict=True):
        assert edit.size == image.size
        changed = (np.asarray(edit) != np.asarray(image)).any(-1)
        assert changed.any()
        assert not changed[~mask].any()
    (alone,) = painter.fill(images[1:], masks[1:], ["ball"], [2])
    assert alone.tobytes() == made[1].tobytes()


def test_a_model_paints_by_its_seed_and_prompt(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        painter = load_painter(settings(folder, prompt="a {object}, please"), CPU)
        image = picture(64, 48)
        mask = box_mask(image.size, [(8, 8, 40, 40)])
        made = {
            (wanted, seed): painter.fill([image], [mask], [wanted], [seed])[0].tobytes()
            for wanted in ("cat", "dog")
            for seed in (1, 2)
        }
        assert len(set(made.values())) == 4, name


def test_all_around_a_picture_can_be_painted(painter: Painter) -> None:
    image, mask = picture(80, 64), np.ones((64, 80), dtype=bool)
    mask[20:44, 24:56] = False
    if not painter.outpaints:
        return
    (made,) = painter.fill([image], [mask], ["a street"], [3])
    np.testing.assert_array_equal(np.asarray(made)[20:44, 24:56], np.asarray(image)[20:44, 24:56])


def test_large_pictures_are_painted_in_a_crop_or_scaled(folders: dict[str, Path]) -> None:
    painter = load_painter(
        settings(folders["flux2_klein"], crop=CropSettings(max_area=48 * 48, context=8, feather=4)), CPU
    )
    image = picture(200, 150)
    near = box_mask(image.size, [(90, 60, 110, 80)])
    around = ~box_mask(image.size, [(60, 40, 140, 110)])
    for mask in (near, around):
        (made,) = painter.fill([image], [mask], ["ball"], [0])
        assert made.size == image.size
        changed = (np.asarray(made) != np.asarray(image)).any(-1)
        assert changed[mask].mean() > 0.5
        assert not changed[~mask].any()


def test_without_a_crop_a_model_is_the_official_pipeline(folders: dict[str, Path]) -> None:
    own = settings(folders["flux2_klein"])
    image = picture(64, 48)
    mask = box_mask(image.size, [(8, 8, 40, 40)])
    (made,) = load_painter(own, CPU).fill([image], [mask], ["cat"], [7])
    pipeline = Flux2KleinInpaintPipeline.from_pretrained(folders["flux2_klein"])
    pipeline.set_progress_bar_config(disable=True)
    (official,) = pipeline(
        prompt="cat", image=image, mask_image=Image.fromarray(mask.astype(np.uint8) * 255), width=64, height=48, strength=1.0,
        num_inference_steps=2, guidance_scale=2.0, generator=torch.Generator().manual_seed(7), max_sequence_length=48, text_encoder_out_layers=(1, 2, 3),
    ).images  # fmt: skip
    np.testing.assert_array_equal(np.asarray(made)[mask], np.asarray(official)[mask])


def test_another_transformer_takes_the_place_of_fluxs_own(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_flux_fill(tmp_path / "other", seed=1)
    image, mask = picture(), box_mask((64, 64), [(8, 8, 40, 40)])
    own = [
        load_painter(settings(folders["flux_fill"], transformer=transformer), CPU)
        .fill([image], [mask], ["cat"], [0])[0]
        .tobytes()
        for transformer in (None, str(other / "transformer"), f"{folders['flux_fill']}:transformer")
    ]
    assert own[0] != own[1]
    with pytest.raises(ModelError, match=r"FLUX\.1-Fill only"):
        load_painter(settings(folders["qwen_image"], transformer=str(other / "transformer")), CPU)


def test_what_is_no_painter_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no readable model_index"):
        load_painter(settings(tmp_path), CPU)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ModelError, match="StableDiffusionPipeline, known are Flux2Klein"):
        load_painter(settings(tmp_path), CPU)
    with pytest.raises(DataError, match="no cut-outs there"):
        load_painter(settings(f"paste:{tmp_path}"), CPU)
    assert len({name for family in FAMILIES for name in family.made_for}) == 6


def test_masks_that_do_not_fit_are_refused() -> None:
    painter = load_painter(settings("edges"), CPU)
    for mask in (np.ones((10, 10), dtype=bool), np.zeros((64, 64), dtype=bool)):
        with pytest.raises(DataError, match="a mask of"):
            painter.fill([picture()], [mask], ["x"], [0])
    with pytest.raises(DataError, match="whole picture"):
        painter.fill([picture()], [np.ones((64, 64), dtype=bool)], ["x"], [0])


def test_paste_lays_the_named_cut_out_into_the_box() -> None:
    painter = load_painter(settings("paste"), CPU)
    assert painter.objects is not None
    assert {"ball", "teapot"} <= set(painter.objects)
    grey = Image.new("RGB", (64, 64), (120, 120, 120))
    mask = box_mask(grey.size, [(10, 20, 34, 44)])
    (made,) = painter.fill([grey], [mask], ["a small red ball"], [0])
    x0, y0, x1, y1 = bounds((np.asarray(made) != np.asarray(grey)).any(-1))
    assert 10 <= x0 < x1 <= 34
    assert 20 <= y0 < y1 <= 44
    assert max(x1 - x0, y1 - y0) >= 22
    with pytest.raises(DataError, match='no cut-out of "zeppelin"'):
        painter.fill([grey], [mask], ["zeppelin"], [0])


def test_edges_go_on_where_they_end_and_add_nothing_new() -> None:
    left, right = Image.new("RGB", (20, 40), (200, 40, 40)), Image.new("RGB", (20, 40), (40, 40, 200))
    canvas = Image.new("RGB", (80, 40))
    canvas.paste(left, (20, 0))
    canvas.paste(right, (40, 0))
    mask = ~box_mask(canvas.size, [(20, 0, 60, 40)])
    (made,) = load_painter(settings("edges"), CPU).fill([canvas], [mask], [""], [0])
    pixels = np.asarray(made).astype(int)
    assert np.abs(pixels[:, :18] - (200, 40, 40)).max() <= 1
    assert np.abs(pixels[:, 62:] - (40, 40, 200)).max() <= 1
