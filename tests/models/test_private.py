"""What is used of transformers and diffusers beyond what is public is there, and stands in one file."""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import version
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

import sparring
from sparring.models import private

SOURCE = Path(sparring.__file__).parent
PRIVATE = SOURCE / "models/private.py"
LIBRARIES = ("transformers", "diffusers")
PUBLIC = ("transformers", "transformers.utils", "diffusers", "diffusers.utils")
"""Modules whose names are promised."""
SET_BY_US = "_gradient_checkpointing_func"
"""An attribute that blocks are given, and have not before; whether they use it is tested below."""


def deep_imports(file: Path) -> set[tuple[str, str]]:
    """(module, name) of what a file imports from modules of the two libraries beside the public ones."""
    found = set[tuple[str, str]]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return {own for own in found if own[0].split(".")[0] in LIBRARIES and own[0] not in PUBLIC}


def private_attributes(file: Path) -> set[str]:
    """Names with a leading underscore that a file uses of anything but its own objects."""
    used = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)]
    foreign = [node.attr for node in used if ast.unparse(node.value) not in ("self", "cls", "super()")]
    return {name for name in foreign if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize(("module", "name"), sorted(deep_imports(PRIVATE)))
def test_no_version_took_a_helper_away(module: str, name: str) -> None:
    library = module.split(".")[0]
    gone = f"{library} {version(library)} has no {module}.{name} any more: models/private.py needs it"
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        pytest.fail(f"{gone} ({error})")
    if not hasattr(found, name):
        pytest.fail(gone)


def test_no_version_took_an_attribute_away() -> None:
    config = transformers.Qwen2_5_VLConfig().get_text_config()
    for name in private_attributes(PRIVATE) - {SET_BY_US}:
        if not hasattr(config, name):
            gone = f"transformers {version('transformers')} has no {name} any more"
            pytest.fail(f"{gone}: models/private.py needs it")
    private.choose_attention(config, "eager")
    assert private.attention_of(config) == "eager"


def test_a_block_takes_the_function_that_checkpoints_its_gradients() -> None:
    class Block(transformers.GradientCheckpointingLayer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    block, called = Block(), []
    block.training = block.gradient_checkpointing = True
    private.checkpoint_block(block, lambda function, *inputs: called.append(inputs) or function(*inputs))
    one = torch.zeros(1)
    assert block(one) == 1
    if called != [(one,)]:
        pytest.fail(f"transformers {version('transformers')}: a block does not call its {SET_BY_US} any more")


def test_shifts_and_sizes_are_the_pipelines_own() -> None:
    """By hand, from the published formulas: a line through (256, 0.5) and (4096, 1.15); 384 x 384 pixels."""
    config = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    assert private.linear_shift(256, config) == pytest.approx(0.5)
    assert private.linear_shift(4096, config) == pytest.approx(1.15)
    assert private.empirical_shift(5000, 7) == pytest.approx(0.00016927 * 5000 + 0.45666666)
    assert private.size_to_read(100, 100) == (384, 384)
    assert private.size_to_read(400, 100) == (768, 192)


def test_private_names_stand_in_one_file() -> None:
    for file in SOURCE.rglob("*.py"):
        if file != PRIVATE:
            found = {f"{module}.{name}" for module, name in deep_imports(file)}
            found |= private_attributes(file) - {"_exit"}  # of os, and public
            place, names = file.relative_to(SOURCE), ", ".join(sorted(found))
            assert not found, f"{place} uses {names}: put it into models/private.py, and say why"
