"""What is wrong with settings, in words: the dotted name of a field, what is wrong, what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sparring.config.base import Kind, choices_of, field_at, kind_at, section_of, type_in

FORMERLY = {
    "clip_range": ("flow_grpo", "clip_range"),
    "nft_beta": ("diffusion_nft", "beta"),
    "awm_power": ("awm", "power"),
    "awm_clip_range": ("awm", "clip_range"),
    "awm_old_weight": ("awm", "old_weight"),
}
"""Names that settings had while they stood beside the algorithm -> whose they are, their names there."""
Names = tuple[str, ...]


def in_words(error: ValidationError, data: Mapping[str, Any], kind: Kind) -> list[str]:
    """A line for every wrong field of `data`, settings of `kind`; those that an algorithm reads share one."""
    lines: dict[Names, str] = {}
    misplaced: dict[Names, list[str]] = {}
    for detail in error.errors():
        names = _names(detail["loc"], kind)
        section = names[:-1]
        if detail["type"] == "extra_forbidden" and _owners(names[-1], kind_at(kind, section, data)):
            misplaced.setdefault(section, []).append(names[-1])
            lines[section] = _spelling(section, misplaced[section], data, kind)
        else:
            lines[names] = _line(detail, names, data, kind)
    return list(lines.values())


def _names(loc: Sequence[int | str], kind: Kind | None) -> Names:
    """The place of an error, without the types that pydantic puts before the settings of an algorithm."""
    if not loc:
        return ()
    first, *rest = loc
    info = kind.model_fields.get(str(first)) if kind is not None else None
    choices = choices_of(info) if info is not None else {}
    if rest and rest[0] in choices:
        return (str(first), *_names(rest[1:], choices[str(rest[0])]))
    return (str(first), *_names(rest, section_of(info) if info is not None else None))


def _line(detail: ErrorDetails, names: Names, data: Mapping[str, Any], kind: Kind) -> str:
    """What pydantic says, in our words."""
    path, given = ".".join(names), detail["input"]
    if detail["type"] == "extra_forbidden":
        return f"{path}: {_no_such_setting(names, data, kind)}"
    if detail["type"] == "missing":
        return f"{path}: is missing, and has no default."
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    info = field_at(kind, names, data)
    types = list(choices_of(info)) if info is not None else []
    if types:
        given = given["type"] if isinstance(given, dict) else given
        message = f"one of {', '.join(types)}, or settings with such a type"
    elif detail["type"] in ("model_type", "model_attributes_type"):
        message = "a mapping of settings"
    known = types or (re.findall(r"'([^']+)'", message) if detail["type"] == "literal_error" else [])
    return f"{path}: must be {message}, not {given!r}.{_did_you_mean(given, known)}"


def _did_you_mean(given: Any, known: Sequence[str]) -> str:
    near = get_close_matches(given, known, n=1) if isinstance(given, str) else []
    return f" Did you mean {near[0]}?" if near else ""


def _no_such_setting(names: Names, data: Mapping[str, Any], kind: Kind) -> str:
    holder, info = kind_at(kind, names[:-1], data), field_at(kind, names[:-1], data)
    there = [name for name in holder.model_fields if name != "type"] if holder is not None else []
    choices = choices_of(info) if info is not None else {}
    owners = [algorithm for algorithm, own in choices.items() if names[-1] in own.model_fields]
    if info is not None and owners:
        return (
            f"{type_in(info, _at(data, names[:-1]))} has no such setting; of {', '.join(owners)} it is one."
        )
    near = get_close_matches(names[-1], there, n=1)
    return "no such setting; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}.")


def _at(data: Mapping[str, Any], names: Names) -> Any:
    found: Any = data
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _owners(name: str, holder: Kind | None) -> dict[str, str]:
    """Algorithm -> name there, of a setting that stands beside the algorithm; empty for any other name."""
    for info in holder.model_fields.values() if holder is not None else ():
        choices = choices_of(info)
        if name in FORMERLY and FORMERLY[name][0] in choices:
            return dict([FORMERLY[name]])
        if owners := {algorithm: name for algorithm, own in choices.items() if name in own.model_fields}:
            return owners
    return {}


def _spelling(section: Names, names: Sequence[str], data: Mapping[str, Any], kind: Kind) -> str:
    """How settings that stand beside the algorithm are written."""
    holder, given = kind_at(kind, section, data), _at(data, section)
    assert holder is not None  # the algorithm is one of its fields
    choice, info = next((name, info) for name, info in holder.model_fields.items() if choices_of(info))
    owners = {name: _owners(name, holder) for name in names}
    chosen = type_in(info, given.get(choice))
    if choice not in given and not any(chosen in own for own in owners.values()):
        chosen = next(iter(owners[names[0]]))
    written = given[choice] if isinstance(given.get(choice), dict) else {}
    moved = {own[chosen]: given[name] for name, own in owners.items() if chosen in own}
    fields = choices_of(info)[chosen].model_fields if chosen in choices_of(info) else {}
    # null once stood for the algorithm's own value, which is its default now.
    kept = {name: value for name, value in moved.items() if value is not None or _takes_null(fields[name])}
    settings = {"type": chosen, **written, **kept}
    flow = yaml.safe_dump(
        settings, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    )
    where, others = ".".join(section), [name for name in names if chosen not in owners[name]]
    fields_named = ", ".join(f"{where}.{name}" for name in names)
    these = "it" if len(names) == 1 else "them"
    text = f"{fields_named}: only an algorithm has {these}. Write {where}.{choice}: {flow.strip()}."
    return text + (f" Leave out {', '.join(others)}, which {chosen} does not read." if others else "")


def _takes_null(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)
