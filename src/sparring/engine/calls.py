"""Functions of the user's own that a recipe or a command names as `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import yaml

from sparring.config import CallSettings
from sparring.data.errors import RecipeError

CALL = re.compile(r"([A-Za-z_]\w*(?:\.\w+)+:[A-Za-z_]\w*)((?::\w+=[^:]*)*)")


def import_call(settings: CallSettings, field: str) -> Callable[..., Any]:
    """The callable that a recipe names as `package.module:function`.

    Errors: RecipeError if it is not of that form, cannot be imported, is no callable or does not take the
    recipe's arguments.
    """
    module_name, _, name = settings.call.partition(":")
    if not module_name or not name:
        raise RecipeError(f'{field}.call: "{settings.call}" is not of the form package.module:function.')
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f'{field}.call: "{settings.call}" cannot be imported ({error}). Install the package or correct the name.'
        ) from error
    if not callable(function):
        raise RecipeError(f'{field}.call: "{settings.call}" is not a function.')
    try:
        inspect.signature(function).bind_partial(**settings.arguments)
    except TypeError as error:
        raise RecipeError(f'{field}.arguments do not fit "{settings.call}": {error}.') from error
    return function  # type: ignore[no-any-return]


def parse_call(text: str) -> CallSettings | None:
    """The call of `package.module:function`, with or without `:name=value:...`; None for any other text."""
    match = CALL.fullmatch(text)
    if match is None:
        return None
    pairs = (part.partition("=") for part in match[2].split(":") if part)
    return CallSettings(call=match[1], arguments={name: yaml.safe_load(value) for name, _, value in pairs})
