"""What is used of transformers and diffusers beyond their public interface is still there, and stands in one file."""

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
PUBLIC_MODULES = ("transformers", "transformers.utils", "diffusers", "diffusers.utils")
WORKSHOP = SOURCE / "zoo"  # the scripts that made the bundled players: no part of what runs
OWNERS = {
    "_attn_implementation": transformers.Qwen2_5_VLConfig(),
    "_gradient_checkpointing_func": None,  # an attribute that blocks are given: see the test of it
}
"""Attribute -> something that has it."""


def deep_imports(file: Path) -> list[tuple[str, str]]:
    """(module, name) of what a file imports from modules of the two libraries that are not their public ones."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    from_modules = [(node.module or "", alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    whole = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    found = [*from_modules, *whole]
    return [one for one in found if one[0].split(".")[0] in ("transformers", "diffusers") and one[0] not in PUBLIC_MODULES]


def private_attributes(file: Path) -> list[str]:
    """Names with a leading underscore that a file uses of anything but itself."""
    own = ("self", "cls")
    return [
        node.attr
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
        and not (isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()")
    ]


@pytest.mark.parametrize(("module", "name"), deep_imports(PRIVATE))
def test_no_version_took_a_helper_away(module: str, name: str) -> None:
    library = module.split(".")[0]
    gone = f"{library} {version(library)} has no {module}.{name} any more: see who needs it in {PRIVATE.name}"
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        pytest.fail(f"{gone} ({error})")
    assert hasattr(found, name), gone


@pytest.mark.parametrize("name", sorted(set(private_attributes(PRIVATE))))
def test_no_version_took_an_attribute_away(name: str) -> None:
    assert name in OWNERS, f"{name}: say in this test what of transformers or diffusers has it"
    owner = OWNERS[name]
    assert owner is None or hasattr(owner, name), (
        f"transformers {version('transformers')}: a {type(owner).__name__} has no {name} any more: see who needs it in {PRIVATE.name}"
    )


def test_a_block_takes_the_function_that_checkpoints_its_gradients() -> None:
    class Block(transformers.GradientCheckpointingLayer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    block, called = Block(), []
    block.training = block.gradient_checkpointing = True
    private.checkpoint_block(block, lambda function, *inputs: called.append(inputs) or function(*inputs))
    one = torch.zeros(1)
    assert block(one) == 1
    assert called == [(one,)], f"transformers {version('transformers')}: a block does not ask its _gradient_checkpointing_func any more"


def test_a_model_attends_as_it_is_told() -> None:
    config = transformers.Qwen2_5_VLConfig().get_text_config()
    private.choose_attention(config, "eager")
    assert private.attention_of(config) == "eager"


def test_shifts_and_sizes_are_the_pipelines_own() -> None:
    """Hand-computed from the published formulas: a line through (256, 0.5) and (4096, 1.15); 384 x 384 pixels in multiples of 32."""
    config = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    assert private.linear_shift(256, config) == pytest.approx(0.5)
    assert private.linear_shift(4096, config) == pytest.approx(1.15)
    assert private.empirical_shift(5000, 7) == pytest.approx(0.00016927 * 5000 + 0.45666666)
    assert private.size_to_read(100, 100) == (384, 384)
    assert private.size_to_read(400, 100) == (768, 192)


def test_private_names_stand_in_one_file() -> None:
    for file in SOURCE.rglob("*.py"):
        if file != PRIVATE and not file.is_relative_to(WORKSHOP):
            found = [f"{module}.{name}" for module, name in deep_imports(file)]
            found += [name for name in private_attributes(file) if name != "_exit"]  # of os, and public
            assert not found, f"{file.relative_to(SOURCE)} uses {', '.join(found)}: put it into models/private.py, with the reason"
