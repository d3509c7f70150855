"""What the package imports it also declares, in bounds that were tested."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHER_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "mlflow": "mlflow-skinny"}
"""Module -> distribution, where the names differ and the module may not be installed."""


def plain(name: str) -> str:
    """A distribution's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, Requirement]:
    """Distribution -> requirement, of the package itself and of its extras for those who use it."""
    extras = [text for name, own in PROJECT["optional-dependencies"].items() if name != "dev" for text in own]
    return {plain(own.name): own for own in map(Requirement, [*PROJECT["dependencies"], *extras])}


def imported(file: Path) -> Iterator[str]:
    """The top-level modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    users: dict[str, Path] = {}
    for file in sorted((ROOT / "src").rglob("*.py")):
        users.update(dict.fromkeys(imported(file), file.relative_to(ROOT)))
    outside = users.keys() - sys.stdlib_module_names - {"sparring"}
    assert len(outside) > 15, "the package's imports were not found"
    known, installed = set(declared()), packages_distributions()
    for module in sorted(outside):
        names = [plain(name) for name in installed.get(module, [OTHER_NAMES.get(module, module)])]
        wanted = f"{users[module]} imports {module}, and pyproject.toml declares no {' or '.join(names)}"
        assert known.intersection(names), wanted


@pytest.mark.parametrize("name", ["torch", "transformers", "diffusers"])
def test_libraries_whose_insides_matter_have_an_upper_bound_above_what_is_tested(name: str) -> None:
    requirement = declared()[name]
    assert any(bound.operator == "<" for bound in requirement.specifier), f"{requirement} has no upper bound"
    tested = version(name).split("+")[0]
    assert tested in requirement.specifier, f"{name} {tested} is installed, and {requirement} is declared"


def test_the_library_of_data_sets_is_new_enough_for_what_is_used_of_it() -> None:
    """`datasets.List` came with version 4."""
    assert not declared()["datasets"].specifier.contains("3.6.0")
    assert declared()["datasets"].specifier.contains("4.0.0")
