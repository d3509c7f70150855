"""Models that are not there, and checkpoints whose classes lack a package: said in this project's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from small_vlms import tiny_qwen2_5_vl
from sparring.data.errors import ModelError
from sparring.models.editors import load_editor
from sparring.models.names import require_there
from sparring.models.vlms import local, processors
from sparring.models.vlms.base import load_vlm
from sparring.models.vlms.processors import Takes, load_processor


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/folder",
        "runs/a/round3/defender/model",
        "./here",
        "../there",
        "~nobody/x",
        "C:\\models\\x",
        "a b",
    ],
)
def test_a_name_that_can_only_be_a_folder(name: str) -> None:
    for load in (load_vlm, load_editor):
        with pytest.raises(ModelError, match="there is no such folder") as refused:
            load(name)
        assert name in str(refused.value)
        assert "repo_name" not in str(refused.value)


def test_names_at_the_hub_and_files(tmp_path: Path) -> None:
    for name in ("Qwen/Qwen2.5-VL-7B-Instruct", "gpt2", "black-forest-labs/FLUX.2-klein-4B", str(tmp_path)):
        require_there(name, "model")
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(ModelError, match="it is a file, and a model is a folder"):
        load_vlm(str(tmp_path / "x.safetensors"))


MISSING = {
    "SmolVLMProcessor requires the num2words library: Package `num2words` is required to run "
    "SmolVLM processor.": "Install num2words beside",
    "InternVLVideoProcessor requires the Torchvision library but it was not found in your "
    "environment.": "torchvision in the version that goes with",
    "This modeling file requires timm": "Install timm beside",
    "cannot import name 'x'": "Install what it names",
}


@pytest.mark.parametrize("said", MISSING)
@pytest.mark.parametrize("where", ["processor", "model"])
def test_a_class_that_lacks_a_package(
    said: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_qwen2_5_vl(tmp_path / "vlm")

    def lacks(*_: Any, **__: Any) -> Any:
        raise ImportError(said)

    owner = processors.Qwen2_5_VLProcessor if where == "processor" else local.AutoModelForImageTextToText
    monkeypatch.setattr(owner, "from_pretrained", lacks)
    with pytest.raises(ModelError, match=MISSING[said]) as refused:
        load_vlm(str(folder))
    assert said[:30] in str(refused.value)
    assert "transformers 5" in str(refused.value)


@pytest.mark.parametrize("size", [(300, 1), (1, 201), (8, 4000)])
def test_what_a_processor_takes_is_known_without_its_model(size: tuple[int, int], tmp_path: Path) -> None:
    takes = Takes(load_processor(tiny_qwen2_5_vl(tmp_path / "vlm")))
    assert f"{size[0]} x {size[1]} pixels" in takes.picture(size)
    assert takes.picture((64, 64)) == takes.picture((1, 1)) == takes.text("Where?", "a < b <image>") == ""
    assert "<|image_pad|>" in takes.text("Where?", "I look at <|image_pad|>.")
