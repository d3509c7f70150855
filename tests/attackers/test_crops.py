"""Crops of large pictures: where they lie, and that nothing but the crop changes, without a seam."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from small_checkpoints import tiny_flux2_klein
from sparring.attackers.crops import Crop, choose_crop, cut_all
from sparring.attackers.rollout import deterministic_edits
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, CropSettings, EditorLoraSettings
from sparring.data.errors import ModelError
from sparring.data.records import Box, Target, VisualQuestion
from sparring.models.editors import FlowEditor, load_editor

SMALL = CropSettings(max_area=64 * 64, context=6, feather=4)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def array(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def inside(box: Box, whole: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((whole[1], whole[0]), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[Box]]:
    whole = draw(st.integers(20, 400)), draw(st.integers(20, 400))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        x0, y0 = draw(st.integers(0, whole[0] - 1)), draw(st.integers(0, whole[1] - 1))
        boxes.append((x0, y0, draw(st.integers(x0 + 1, whole[0])), draw(st.integers(y0 + 1, whole[1]))))
    return whole, boxes


@settings(max_examples=300, deadline=None)
@given(scenes(), st.integers(32 * 32, 128 * 128), st.integers(0, 40), st.sampled_from([1, 8, 16]))
def test_a_crop_holds_the_targets_and_fits_the_editor(
    scene: tuple[tuple[int, int], list[Box]], area: int, context: int, multiple: int
) -> None:
    whole, boxes = scene
    crop = choose_crop(whole, boxes, CropSettings(max_area=area, context=context), multiple)
    if whole[0] * whole[1] <= area:
        assert crop == Crop(whole, (0, 0, *whole), whole)
        return

    def around(pixels: int) -> Box:
        x0, y0 = min(box[0] for box in boxes) - pixels, min(box[1] for box in boxes) - pixels
        x1, y1 = max(box[2] for box in boxes) + pixels, max(box[3] for box in boxes) + pixels
        return max(0, x0), max(0, y0), min(whole[0], x1), min(whole[1], y1)

    def fits(box: Box) -> bool:
        return (
            math.prod(math.ceil((box[axis + 2] - box[axis]) / multiple) * multiple for axis in (0, 1)) <= area
        )

    x0, y0, x1, y1 = crop.box
    assert 0 <= x0 < x1 <= whole[0]
    assert 0 <= y0 < y1 <= whole[1]
    assert math.prod(math.ceil(side / multiple) * multiple for side in crop.size) <= area
    if crop.size == crop.extent:
        most = next(pixels for pixels in range(context, -1, -1) if fits(around(pixels)))
        needed = around(most)
        assert x0 <= needed[0] < needed[2] <= x1
        assert y0 <= needed[1] < needed[3] <= y1
        assert all(
            side % multiple == 0 or side == limit for side, limit in zip(crop.size, whole, strict=True)
        )
    else:
        assert not fits(around(0))
        assert crop.box == around(context)
        assert all(side % multiple == 0 for side in crop.size)
        scale = min(1, math.sqrt(area / math.prod(crop.extent)))
        if min(crop.extent) * scale >= multiple:
            assert all(
                e * scale - multiple < size <= e * scale
                for size, e in zip(crop.size, crop.extent, strict=True)
            )


@pytest.mark.parametrize(
    ("whole", "boxes", "expected"),
    [
        ((3840, 2160), [(1900, 1000, 2000, 1100)], (1438, 538, 2462, 1562)),  # in the middle
        ((3840, 2160), [(10, 20, 60, 70)], (0, 0, 1024, 1024)),  # pushed back from the corner
        # 1892 wide with its context: 1904 x 544
        ((3840, 2160), [(100, 1000, 1800, 1100)], (0, 778, 1904, 1322)),
        # the height is used up (608 with padding), the width gets the rest
        ((8000, 600), [(4000, 100, 4100, 200)], (3194, 0, 4906, 600)),
    ],
)
def test_crops_of_photographs(whole: tuple[int, int], boxes: list[Box], expected: Box) -> None:
    crop = choose_crop(whole, boxes, CropSettings(), 16)
    assert crop.box[0] <= boxes[0][0] - min(96, boxes[0][0])
    assert crop.box[2] >= boxes[0][2] + 96
    assert crop.size == crop.extent
    assert crop.box == expected


def test_a_picture_that_the_editor_takes_whole_is_left_alone() -> None:
    image, edit = picture(64, 64), picture(64, 64, 1)
    crop = choose_crop(image.size, [(1, 2, 30, 40)], SMALL, 8)
    assert crop.cut(image) is image
    assert crop.compose(image, edit) is edit


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(0, 12), st.integers(0, 2**31))
def test_outside_is_untouched_and_the_seam_is_no_step(
    scene: tuple[tuple[int, int], list[Box]], feather: int, seed: int
) -> None:
    whole, boxes = scene
    crop = choose_crop(whole, boxes, CropSettings(max_area=64 * 64, context=10, feather=feather), 8)
    image, cut_edit = picture(*whole, seed), picture(*crop.size, seed + 1)
    composed = crop.compose(image, cut_edit)
    assert composed.size == whole
    within = inside(crop.box, whole)
    assert np.array_equal(array(composed)[~within], array(image)[~within])
    if crop.size != crop.extent:
        return
    change = np.zeros((whole[1], whole[0], 3), dtype=np.int64)
    change[within] = (array(cut_edit) - array(crop.cut(image))).reshape(-1, 3)
    made = array(composed) - array(image)
    assert (np.abs(made) <= np.abs(change)).all()  # between the source and the edit
    limit = np.abs(change).max() / (feather + 1) + 1  # what the ramp may add, and the rounding
    for axis in (0, 1):
        same_side = np.diff(within.astype(int), axis=axis)[..., None] == 0
        own = np.where(same_side, np.abs(np.diff(change, axis=axis)), 0)
        assert (np.abs(np.diff(made, axis=axis)) <= own + limit).all()


def test_the_rim_fades_and_the_middle_is_the_edit_itself() -> None:
    image = Image.new("RGB", (200, 160), (100, 100, 100))
    crop = Crop((200, 160), (40, 0, 104, 64), (64, 64), 4)
    composed = array(crop.compose(image, Image.new("RGB", (64, 64), (150, 100, 50))))
    assert composed[30, 38:48, 0].tolist() == [100, 100, 110, 120, 130, 140, 150, 150, 150, 150]
    assert composed[0, 72].tolist() == [150, 100, 50]  # the picture's own border is no seam
    assert composed[30, 98:106, 2].tolist() == [50, 50, 60, 70, 80, 90, 100, 100]
    assert composed[63, 42, 0] == pytest.approx(100 + 50 * 0.6 * 0.2, abs=0.5)  # a corner fades both ways


@pytest.mark.parametrize("boxes", [[(10, 20, 30, 40)], [(5, 5, 190, 140)], []])
def test_an_edit_that_changes_nothing_gives_back_the_picture_scaled_or_not(boxes: list[Box]) -> None:
    image = picture(200, 150)
    crop = choose_crop(image.size, boxes, SMALL, 8)
    assert (crop.size == crop.extent) == (boxes == [(10, 20, 30, 40)])
    assert np.array_equal(array(crop.compose(image, crop.cut(image))), array(image))


def test_a_scaled_crop_brings_the_change_back_to_its_place() -> None:
    rows, columns = np.mgrid[0:240, 0:320]
    image = Image.fromarray(
        np.stack([rows % 200, columns % 200, (rows + columns) % 200], axis=-1).astype(np.uint8)
    )
    crop = choose_crop(image.size, [], SMALL, 8)
    assert crop.box == (0, 0, 320, 240)
    assert math.prod(crop.size) <= 64 * 64
    cut = array(crop.cut(image))
    cut[10:20, 30:40] += 40
    made = array(crop.compose(image, Image.fromarray(cut.clip(0, 255).astype(np.uint8)))) - array(image)
    y, x = (
        slice(round(a * e / s) + 6, round(b * e / s) - 6)
        for a, b, e, s in ((10, 20, 240, crop.size[1]), (30, 40, 320, crop.size[0]))
    )
    assert np.abs(made[y, x] - 40).max() <= 6
    assert np.abs(made[:, :100]).max() == 0


def test_sizes_that_do_not_belong_together_are_errors() -> None:
    crop = choose_crop((200, 150), [(10, 20, 30, 40)], SMALL, 8)
    with pytest.raises(ModelError, match="200 x 150"):
        crop.cut(picture(150, 200))
    with pytest.raises(ModelError, match="64 x 64"):
        crop.compose(picture(200, 150), picture(200, 150))


def test_the_same_crop_of_the_same_picture_is_cut_once() -> None:
    one, two = picture(200, 150), picture(200, 150, 1)
    here, there = (
        choose_crop((200, 150), [box], SMALL, 8) for box in ((10, 20, 30, 40), (150, 100, 170, 120))
    )
    cuts = cut_all([one, one, one, two], [here, here, there, here])
    assert cuts[0] is cuts[1]
    assert len({id(cut) for cut in cuts}) == 3


def test_composing_holds_no_more_than_the_picture() -> None:
    def peak(scale: int) -> int:
        image = picture(600 * scale, 400 * scale)
        crop = choose_crop(image.size, [(100, 100, 120, 120)], SMALL, 8)
        edit = picture(*crop.size, 1)
        tracemalloc.start()
        crop.compose(image, edit)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    # the result, and the copy that it is made from
    assert peak(4) - peak(1) <= 2.2 * 3 * 600 * 400 * (16 - 1)


# ---- in the game


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> FlowEditor:
    torch.set_num_threads(1)
    return load_editor(tiny_flux2_klein(tmp_path_factory.mktemp("flux"), text_tokens=24))


def test_deterministic_edits_change_the_crop_alone_and_show_the_editor_no_more(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    original = editor.pixels
    monkeypatch.setattr(
        editor, "pixels", lambda images: seen.append(original(images).shape) or original(images)
    )
    images = [picture(200, 150), picture(500, 400, 1), picture(64, 64, 2)]
    boxes = [[(10, 20, 30, 40)], [(300, 300, 320, 330)], [(0, 0, 9, 9)]]
    crops = [
        choose_crop(image.size, own, SMALL, editor.multiple) for image, own in zip(images, boxes, strict=True)
    ]
    edits = deterministic_edits(editor, images, ["a", "b", "c"], [1, 2, 3], steps=2, crops=crops)
    assert seen == [(3, 3, 64, 64)]  # pictures of all sizes, one batch
    for image, edit, crop, own, text, seed in zip(images, edits, crops, boxes, "abc", (1, 2, 3), strict=True):
        assert edit.size == image.size
        within = inside(crop.box, image.size)
        assert np.array_equal(array(edit)[~within], array(image)[~within])
        (alone,) = deterministic_edits(editor, [crop.cut(image)], [text], [seed], steps=2)
        x0, y0, x1, y1 = own[0]
        corner = crop.box[0], crop.box[1]
        part = alone.crop((x0 - corner[0], y0 - corner[1], x1 - corner[0], y1 - corner[1]))
        assert np.abs(array(edit.crop(own[0])) - array(part)).max() <= 1


def test_without_crops_a_large_picture_is_scaled_as_a_whole(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparring.attackers.rollout.CropSettings", lambda: SMALL)
    (edit,) = deterministic_edits(editor, [picture(200, 150)], ["a"], [1], steps=2)
    assert edit.size == (200, 150)


@pytest.mark.parametrize("algorithm", ["flow_grpo", "diffusion_nft"])
def test_an_attacker_learns_on_crops_and_is_judged_on_whole_pictures(
    editor: FlowEditor, algorithm: str
) -> None:
    chosen = AttackerSettings.model_validate(
        {
            "model": "tiny",
            "algorithm": algorithm,
            "group_size": 3,
            "rollout_steps": 3,
            "learning_rate": 1e-2,
            "lora": EditorLoraSettings(rank=2, alpha=4),
            "crop": SMALL,
        }
    )
    trainer = AttackerTrainer(editor, chosen, seed=1)
    images = [picture(200, 150), picture(90, 300, 1)]
    boxes: list[Box] = [(100, 50, 130, 70), (10, 200, 30, 220)]
    questions = [
        VisualQuestion(
            f"q{i}", Path("none.png"), f"Where is thing {i}?", ("left", "right"), "A", (Target("cup", box),)
        )
        for i, box in enumerate(boxes)
    ]
    crops = [
        choose_crop(image.size, [box], SMALL, editor.multiple)
        for image, box in zip(images, boxes, strict=True)
    ]
    seen: list[list[Image.Image]] = []

    def reward(edits: list[list[Image.Image]]) -> torch.Tensor:
        seen.extend(edits)
        return torch.tensor([[float(array(edit)[..., 0].mean()) for edit in group] for group in edits])

    metrics = trainer.update(questions, images, reward, 0)
    assert metrics["grad_norm"] > 0
    assert metrics["dead_groups"] == 0
    assert abs(metrics.get("ratio_first", 1.0) - 1) < 1e-4
    for image, crop, group in zip(images, crops, seen, strict=True):
        within = inside(crop.box, image.size)
        for edit in group:
            assert np.array_equal(array(edit)[~within], array(image)[~within])
            assert not np.array_equal(array(edit)[within], array(image)[within])
    editor.remove_lora()
