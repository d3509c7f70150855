"""The files under examples/ are what their readers take them for, and the recipes in them can be played."""

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from sparring.recipes import load_recipe
from sparring.study.plan import load_study

EXAMPLES = Path(__file__).parents[1] / "examples"
STUDY = EXAMPLES / "evidence.yaml"


def commands(file: Path) -> list[list[str]]:
    """The calls of `sparring` in a script or a manifest."""
    text = file.read_text()
    if file.suffix == ".yaml":
        text = yaml.safe_load(text)["spec"]["entrypoint"]
    whole = text.replace("\\\n", " ").replace("$((8 * $#))", "16")
    return [
        shlex.split(line) for line in re.findall(r"^ *(?:.*-- +)?(sparring run .*)$", whole, re.MULTILINE)
    ]


@pytest.mark.parametrize("file", sorted({*EXAMPLES.iterdir()} - {STUDY}), ids=lambda file: file.name)
def test_the_recipe_of_an_example_loads_with_its_settings(file: Path) -> None:
    (command,) = commands(file)
    recipe = load_recipe(command[2], [value for name, value in pairwise(command) if name == "--set"])
    assert (recipe.engine.kind, recipe.engine.workers) == ("ray", 16)
    assert recipe.engine.sharded("attacker")
    assert recipe.engine.sharded("defender")
    assert recipe.engine.gpus_of("attacker", "cuda") == 1


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.sh")), ids=lambda file: file.name)
def test_scripts_are_bash(file: Path) -> None:
    subprocess.run(["bash", "-n", str(file)], check=True)


def test_the_protocols_study_is_of_equal_numbers_of_updates_and_one_ruler() -> None:
    study = load_study(STUDY)
    assert list(study.settings.seeds) == [200, 201, 202, 203, 204]
    updates = {recipe.selfplay.rounds * recipe.defender.steps for recipe in study.recipes.values()}
    assert updates == {216}
    assert study.settings.adapt == 3 * study.recipes["arena-clean"].attacker.steps
    protocol = (EXAMPLES.parent / "docs/evidence.md").read_text()
    for name in (*study.settings.arms, "216 updates", "30 updates", "320 held-out", "10,000 resamples"):
        assert name in protocol, name


def test_the_manifest_names_what_it_mounts() -> None:
    spec = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            own["name"] for own in pod["volumes"]
        }
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert sum(group.get("replicas", 1) for group in groups) * 8 == 16
