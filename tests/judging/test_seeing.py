"""A judge model that is asked what is in a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from PIL import Image

from small_vlms import noise_pictures, tiny_llava
from sparring.config import KindSettings
from sparring.data.records import Target
from sparring.judging.kinds import classify
from sparring.judging.seeing import ModelLook, cut_out, parse_object
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM


@dataclass(frozen=True)
class Reply:
    text: str


class ByColor:
    """Calls a red middle a cup."""

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Reply]]:
        middles = [image.getpixel((image.width // 2, image.height // 2)) for image in images]
        assert all(prompt == KindSettings().object_prompt for prompt in prompts)
        return [[Reply("There is a red cup." if middle == (255, 0, 0) else "Nothing.")] for middle in middles]


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("A red cup.", "red cup"),
        ("there is the Blue bottle, on a table", "blue bottle"),
        ("nothing", None),
        ("There is nothing here", None),
        ("", None),
        ("only background", None),
        ("Empty.", None),
        ("It is an empty space.", None),
        ("The area is empty.", None),
        ("An empty bottle.", "empty bottle"),
        ("a bottle, empty", "bottle"),
        ("anemone\nand more", "anemone"),
    ],
)
def test_replies_are_read(reply: str, name: str | None) -> None:
    assert parse_object(reply) == name


def test_regions_are_cut_out_with_a_margin_within_the_picture() -> None:
    image = Image.new("RGB", (40, 30))
    assert cut_out(image, (10, 10, 20, 18), 0.25).size == (14, 12)
    assert cut_out(image, (0, 0, 40, 30), 0.5).size == (40, 30)


def test_an_added_object_is_named_by_the_model() -> None:
    clean = Image.new("RGB", (60, 60), (120, 120, 120))
    edited = clean.copy()
    edited.paste((255, 0, 0), (20, 20, 40, 40))
    (found,) = classify([clean], [edited], ModelLook(ByColor()))  # type: ignore[arg-type]
    assert (found.kind, found.added[0].name) == ("add", "red cup")
    assert classify([edited], [clean], ModelLook(ByColor()))[0].kind == "remove"  # type: ignore[arg-type]


def test_a_real_model_answers(tmp_path_factory: pytest.TempPathFactory) -> None:
    look = ModelLook(LocalVLM.load(tiny_llava(tmp_path_factory.mktemp("llava"))))
    first, second = look(noise_pictures(2), [(0, 0, 30, 30), (10, 10, 64, 64)]), look([], [])
    assert second == []
    assert all(
        own == [] or own == [Target(own[0].name, box)]
        for own, box in zip(first, [(0, 0, 30, 30), (10, 10, 64, 64)], strict=True)
    )
