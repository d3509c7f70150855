"""How an Attacker is named; apart from what loads it, because that takes seconds to import."""

from __future__ import annotations

from pathlib import Path


def split_lora(spec: str) -> tuple[str, str | None]:
    """(editor, LoRA folder or None) of `EDITOR+LORA`. A folder whose own name holds a plus sign is taken as it is."""
    if Path(spec).expanduser().is_dir() or "+" not in spec:
        return spec, None
    places = [place for place, sign in enumerate(spec) if sign == "+"]
    # The first plus sign whose left side is there: both halves may hold others.
    cut = next((place for place in places if Path(spec[:place]).expanduser().is_dir()), places[0])
    return spec[:cut], spec[cut + 1 :]
