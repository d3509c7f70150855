"""Which adapter a folder gets, and a family beside the known ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import pytest

from sparring.data.errors import ModelError, RecipeError
from sparring.models.editors.base import PackedEditor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.loading import family_of


class Mine(FluxKontextEditor):
    pipeline_class = diffusers.FluxPipeline


class Instead(Flux2KleinEditor):
    """Takes the place of a known family."""


class Unfinished(PackedEditor):
    pipeline_class = diffusers.FluxPipeline


@pytest.fixture(autouse=True)
def somebodys_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("somebodys_editors")
    module.Mine, module.Instead, module.Unfinished, module.load = Mine, Instead, Unfinished, lambda path: None
    monkeypatch.setitem(sys.modules, "somebodys_editors", module)


def folder_of(folder: Path, pipeline: str) -> Path:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


def test_a_folder_says_of_which_family_it_is(tmp_path: Path) -> None:
    assert family_of(folder_of(tmp_path, "FluxKontextPipeline")) is FluxKontextEditor
    mine = "somebodys_editors:Mine"
    assert family_of(folder_of(tmp_path, "FluxKontextPipeline"), mine) is FluxKontextEditor
    assert family_of(folder_of(tmp_path, "FluxPipeline"), mine) is Mine
    assert family_of(folder_of(tmp_path, "Flux2KleinPipeline"), "somebodys_editors:Instead") is Instead


def test_an_unknown_family_is_an_error_that_says_how_to_make_one_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is FluxPipeline, known are Flux2KleinPipeline.*attacker\.family"):
        family_of(folder_of(tmp_path, "FluxPipeline"))
    with pytest.raises(ModelError, match="is WanPipeline, known are FluxPipeline, Flux2KleinPipeline"):
        family_of(folder_of(tmp_path, "WanPipeline"), "somebodys_editors:Mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "is not of the form package.module:Class"),
        ("somebodys_editors:Yours", "cannot be imported"),
        ("no_such_package_here:Mine", "cannot be imported"),
        ("somebodys_editors:load", "is no subclass of sparring.models.editors.FlowEditor"),
        ("somebodys_editors:Unfinished", "lacks lora_targets, _decode_latents, _encode_pixels, _encode_text"),
    ],
)
def test_a_wrong_family_is_an_error_that_names_the_setting(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=r"attacker\.family.*" + message):
        family_of(folder_of(tmp_path, "FluxPipeline"), name)
