"""How an Attacker is named; apart from what loads it, because that takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from sparring.engine.calls import parse_call

# Opponents that nobody trains (`sparring.attackers.rivals`); those of `ON_EDITOR` edit with an editor, which is
# named behind an @. A function of the user's own is a rival too.
RIVALS = ("pgd", "paste", "corruption", "jpeg", "light", "roundtrip", "benign")
ON_EDITOR = ("roundtrip", "benign")


def split_rival(spec: str) -> tuple[str | None, str | None]:
    """(rival, editor) of `RIVAL`, `RIVAL@EDITOR` or `EDITOR`; None for what is not there. A folder of that name is an editor."""
    rival, at, editor = spec.partition("@")
    if Path(spec).expanduser().is_dir() or (rival.split(":")[0] not in RIVALS and parse_call(rival) is None):
        return None, spec
    return rival, editor if at else None


def split_lora(spec: str) -> tuple[str, str | None]:
    """(editor, LoRA folder or None) of `EDITOR+LORA`. A folder whose own name holds a plus sign is taken as it is."""
    if Path(spec).expanduser().is_dir() or "+" not in spec:
        return spec, None
    places = [place for place, sign in enumerate(spec) if sign == "+"]
    # The first plus sign whose left side is there: both halves may hold others.
    cut = next((place for place in places if Path(spec[:place]).expanduser().is_dir()), places[0])
    return spec[:cut], spec[cut + 1 :]
