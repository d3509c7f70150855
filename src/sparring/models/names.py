"""What a name says of where a model is: a folder on this disk, or a repository at the hub."""

from __future__ import annotations

import re
from pathlib import Path

from sparring.data.errors import ModelError

AT_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")


def require_there(name: str | Path, player: str) -> None:
    """Raises ModelError for a name that can only be a folder and is none: the hub need not be asked about
    it, and says nothing that would help.
    """
    text = str(name)
    if not Path(name).is_dir() and not AT_HUB.fullmatch(text):
        what = "it is a file, and a model is a folder" if Path(name).exists() else "there is no such folder"
        raise ModelError(
            f"{player} {text}: {what}, and no repository at the hub has such a name. Name a folder, or "
            f"OWNER/NAME."
        )
