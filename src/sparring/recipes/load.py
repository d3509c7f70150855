"""From a recipe's name or file to checked settings.

A recipe is a YAML file of the settings in `sparring.config`. `extends: other` takes another recipe as its
base and changes only what is said: mappings are merged, everything else is replaced, an algorithm by another
too. Files named in it are looked for from the current directory, then from the recipe's folder.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from sparring.config import Recipe, Settings
from sparring.config.base import below, opened, type_in
from sparring.data.errors import RecipeError
from sparring.engine.folder import PACE
from sparring.recipes.check import problems_between_fields
from sparring.recipes.paths import with_absolute_paths
from sparring.recipes.wording import in_words

Kind = TypeVar("Kind", bound=Settings)
FOLDER = Path(__file__).parent


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name and in its order."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem)}


def describe(name: str) -> str:
    """What a bundled recipe says of itself."""
    return " ".join(str(read_yaml(bundled_recipes()[name]).get("description", "")).split())


def copy_recipe(name: str, file: Path) -> None:
    """Copy a bundled recipe to a file, comments and all. Raises RecipeError where there is no such recipe,
    or a file of that name already."""
    source = bundled_recipes().get(name)
    if source is None:
        raise RecipeError(f"{name}: no such recipe; bundled are {', '.join(bundled_recipes())}.")
    if file.exists():
        raise RecipeError(f"{file} is there already, and is not written over. Name another file.")
    if file.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"{file}: the name of a recipe's file ends in .yaml.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source.read_bytes())
    except OSError as error:
        raise RecipeError(f"{file}: cannot be written ({error.strerror}).") from error


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The settings of a bundled recipe (`arena`) or a YAML file, with overrides such as
    `defender.learning_rate=1e-4` put in.

    Models and data files are resolved to absolute paths where they are on this disk, so that a run can be
    resumed from any directory. Raises RecipeError, naming every wrong field by its dotted path, if the file
    cannot be read or says something that is not allowed.
    """
    path = _find(str(name_or_path), Path.cwd())
    data = _read_with_base(path, ())
    for override in overrides:
        put(data, override, Recipe)
    recipe = _validate(data, path.name)
    return with_absolute_paths(recipe, path.parent)


def load_stored_recipe(folder: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved recipe that a run keeps in its folder as `recipe.yaml`, with overrides of its engine,
    trackers and endpoints' pace put in. Raises RecipeError if there is none, it is not whole, or something
    else is to be changed.
    """
    free = re.compile(rf"engine\.|track=|[\w.]*\bendpoint\.({'|'.join(sorted(PACE))})(=|\.)")
    if other := [override for override in overrides if not free.match(override)]:
        raise RecipeError(
            f"--resume goes on with the recipe that {folder} holds, of which only engine.*, track, and of "
            f"endpoints {', '.join(sorted(PACE))} may be changed; leave out --set {other[0]}."
        )
    path = Path(folder) / "recipe.yaml"
    if not path.is_file():
        raise RecipeError(
            f"{folder} holds no run: there is no recipe.yaml in it. Start one with `sparring run RECIPE "
            f"--out {folder}`."
        )
    data = read_yaml(path)
    for override in overrides:
        put(data, override, Recipe)
    try:
        return _validate(data, str(path))
    except RecipeError as error:
        raise RecipeError(
            f"{error}\nIf an earlier version began it, go on with that one; or begin another run."
        ) from error


def _find(name: str, folder: Path) -> Path:
    bundled = bundled_recipes()
    if name in bundled:
        return bundled[name]
    path = folder / Path(name).expanduser()
    if path.is_file():
        return path
    if name.endswith((".yaml", ".yml")) or "/" in name:
        raise RecipeError(f"{name}: no such file. Bundled recipes are {', '.join(bundled)}.")
    near = get_close_matches(name, bundled, n=1)
    hint = f"did you mean {near[0]}?" if near else f"bundled are {', '.join(bundled)}."
    raise RecipeError(
        f"{name}: no such recipe; {hint} A recipe of your own is named by its file, for example "
        f"./{name}.yaml."
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number and a key may be given only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"line {key.start_mark.line + 1}: a key must be a single word.")
            if key.value in seen:
                raise RecipeError(f"line {key.start_mark.line + 1}: {key.value} is given twice.")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes 1e-4 for a text: it wants 1.0e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds. Raises RecipeError where it cannot be read, or is none."""
    try:
        data = _parse(path.read_text(encoding="utf-8"))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where, problem = f" line {mark.line + 1}" if mark else "", str(getattr(error, "problem", error))
        hint = " Put a text that holds a colon or braces into quotes." if "mapping values" in problem else ""
        raise RecipeError(f"{path}{where}: no valid YAML: {problem}.{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping of settings; this file holds "
            f"{'nothing' if data is None else type(data).__name__}."
        )
    return data


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise RecipeError(f"{path}: extends itself, by way of {seen[-1].name}.")
    data = read_yaml(path)
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise RecipeError(f"{path}: extends: must be the name or file of another recipe.")
    return _merged(_read_with_base(_find(base, path.parent), (*seen, path.resolve())), data, Recipe)


def _merged(base: dict[str, Any], change: dict[str, Any], kind: type[Settings] | None) -> dict[str, Any]:
    """`base`, settings of `kind`, with `change` put in; another algorithm takes nothing over from the
    base's.
    """
    result = dict(base)
    for key, value in change.items():
        info = kind.model_fields.get(key) if kind is not None else None
        old = opened(info, result.get(key))
        goes_on = isinstance(old, dict) and isinstance(value, dict)
        if goes_on and info is not None and info.discriminator and "type" in value:
            goes_on = type_in(info, value) == type_in(info, old)
        result[key] = _merged(old, value, below(info, old)) if goes_on else value
    return result


def put(data: dict[str, Any], override: str, kind: type[Settings]) -> None:
    """Put `a.b=value` into nested mappings of the settings `kind`. The value is read as YAML.

    Raises RecipeError where it is not of that form.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            f'--set {override}: must be of the form a.b=value, for example "defender.learning_rate=1e-4".'
        )
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--set {override}: the value is no valid YAML. Put text with : or [ in it into quotes."
        ) from error
    here: type[Settings] | None = kind
    info = None
    for depth, key in enumerate(keys[:-1], start=1):
        info = here.model_fields.get(key) if here is not None else None
        data[key] = {} if data.get(key) is None else opened(info, data[key])
        if not isinstance(data[key], dict):
            raise RecipeError(
                f"--set {override}: {'.'.join(keys[:depth])} is a single value ({data[key]!r}); there are no "
                f"settings below it."
            )
        data, here = data[key], below(info, data[key])
    if info is not None and info.discriminator == keys[-1] and value != type_in(info, data):
        data.clear()  # another algorithm: nothing of this one's is its own
    data[keys[-1]] = value


def put_given(data: dict[str, Any], given: Sequence[tuple[str, Any]]) -> None:
    """Put values of dotted fields into nested mappings; None means not given."""
    for field, value in given:
        if value is not None:
            *above, last = field.split(".")
            place = data
            for name in above:
                place = place.setdefault(name, {})
            place[last] = value


def _validate(data: dict[str, Any], source: str) -> Recipe:
    recipe = validate(data, source, Recipe)
    problems = list(problems_between_fields(recipe))
    if problems:
        raise RecipeError("\n".join(f"{source}: {problem}" for problem in problems))
    return recipe


def validate(data: dict[str, Any], source: str, kind: type[Kind]) -> Kind:
    """Nested mappings as settings. Raises RecipeError, naming every wrong field by its dotted path and
    `source`.
    """
    try:
        leaves = list(_leaves(data))
    except RecursionError as error:
        raise RecipeError(
            f"{source}: a part of it holds itself (a YAML anchor), or it is too deep."
        ) from error
    for path, value in leaves:
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{source}: {path}: must be a finite number, not {value}.")
    try:
        # Strict: a text is no number and a truth value is no count. By way of JSON, because that is where
        # lists may stand for tuples.
        return kind.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{source}: {line}" for line in in_words(error, data, kind))) from error
    except TypeError as error:
        raise RecipeError(
            f"{source}: holds a value of a kind that no setting takes ({error}). Put dates into quotes."
        ) from error


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if children is None:
        yield where, value
    else:
        for key, child in children:
            yield from _leaves(child, f"{where}.{key}" if where else str(key))
