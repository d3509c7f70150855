"""Functions of the user's own that a recipe or a command names as `package.module:function`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sparring.config import CallSettings
from sparring.data.errors import DataError, RecipeError
from sparring.engine.files import make_folder

CALL = re.compile(r"([A-Za-z_]\w*(?:\.\w+)+:[A-Za-z_]\w*)((?::\w+=[^:]*)*)")


def import_call(settings: CallSettings, field: str) -> Callable[..., Any]:
    """The callable that a recipe names as `package.module:function`.

    Errors: as for `import_named`; RecipeError if it is no callable or does not take the recipe's arguments.
    """
    function = import_named(settings.call, f"{field}.call")
    if not callable(function):
        raise RecipeError(f'{field}.call: "{settings.call}" is not a function.')
    try:
        inspect.signature(function).bind_partial(**settings.arguments)
    except TypeError as error:
        raise RecipeError(f'{field}.arguments do not fit "{settings.call}": {error}.') from error
    return function  # type: ignore[no-any-return]


def import_named(text: str, field: str, *, form: str = "package.module:function") -> Any:
    """What a recipe names as `package.module:name`.

    Errors: RecipeError if it is not of that form or cannot be imported.
    """
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise RecipeError(f'{field}: "{text}" is not of the form {form}.')
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise RecipeError(
            f'{field}: "{text}" cannot be imported ({error}). Install the package or correct the name.'
        ) from error


def parse_call(text: str) -> CallSettings | None:
    """The call of `package.module:function`, with or without `:name=value:...`; None for any other text."""
    match = CALL.fullmatch(text)
    if match is None:
        return None
    pairs = (part.partition("=") for part in match[2].split(":") if part)
    return CallSettings(call=match[1], arguments={name: yaml.safe_load(value) for name, _, value in pairs})


def split_writer(data: str) -> CallSettings | None:
    """The call of `package.module:function` or `package.module:function:name=value:...`; None for what names
    a file or folder.
    """
    return None if Path(data).exists() else parse_call(data)


def absolute_data(data: str) -> str:
    """What `--data` names, as it may be kept: an absolute path, or a function that writes data."""
    return data if split_writer(data) is not None else str(Path(data).expanduser().absolute())


def written_data(data: str, out: Path) -> Path:
    """The file or folder that `--data` names. A function is called as f(folder, **arguments), with a folder
    of its own below `out`, and returns it.

    Errors: RecipeError where the function cannot be had or does not take the arguments; DataError where what
    it returns is no path below that folder.
    """
    call = split_writer(data)
    if call is None:
        return Path(data)
    function = import_call(call, "--data")
    folder = (out / f"data-{hashlib.sha256(data.encode()).hexdigest()[:8]}").resolve()
    make_folder(folder)
    written = function(folder, **call.arguments)
    if not isinstance(written, str | Path) or not Path(written).resolve().is_relative_to(folder):
        raise DataError(
            f'--data: "{call.call}" must return the path of what it wrote below {folder}; it returned '
            f"{written!r}."
        )
    return Path(written).resolve()
