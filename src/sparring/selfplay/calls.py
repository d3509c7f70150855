"""Functions of the user's own that write data, named by `--data`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sparring.config import CallSettings
from sparring.data.errors import DataError
from sparring.engine.calls import import_call, parse_call


def split_writer(data: str) -> CallSettings | None:
    """The call of `package.module:function` or `package.module:function:name=value:...`; None for what names a file or folder."""
    return None if Path(data).exists() else parse_call(data)


def absolute_data(data: str) -> str:
    """What `--data` names, as it may be kept: an absolute path, or a function that writes data."""
    return data if split_writer(data) is not None else str(Path(data).expanduser().absolute())


def written_data(data: str, out: Path) -> Path:
    """The file or folder that `--data` names. A function is called as f(folder, **arguments), with a folder of its own below `out`, and returns it.

    Errors: RecipeError where the function cannot be had or does not take the arguments; DataError where what it returns is no path below that folder.
    """
    call = split_writer(data)
    if call is None:
        return Path(data)
    function = import_call(call, "--data")
    folder = (out / f"data-{hashlib.sha256(data.encode()).hexdigest()[:8]}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    written = function(folder, **call.arguments)
    if not isinstance(written, str | Path) or not Path(written).resolve().is_relative_to(folder):
        raise DataError(f'--data: "{call.call}" must return the path of what it wrote below {folder}; it returned {written!r}.')
    return Path(written).resolve()
