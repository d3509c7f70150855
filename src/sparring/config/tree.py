"""The tree of settings from outside: what stands below a field, and of which class it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic.fields import FieldInfo

from sparring.config.base import Settings

Kind = type[Settings]


def default_of(info: FieldInfo) -> Any:
    """The default of a field that is not required."""
    return info.get_default(call_default_factory=True, validated_data={})


def section_of(info: FieldInfo) -> Kind | None:
    """The settings class below a field; None where it holds a value, or one of several classes."""
    if info.discriminator is not None:
        return None
    kinds = (info.annotation, *get_args(info.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)), None)


def choices_of(info: FieldInfo) -> dict[str, Kind]:
    """Type -> settings class, of a field that holds one of several classes; empty for every other field."""
    if info.discriminator is None:
        return {}
    return {kind.model_fields["type"].default: kind for kind in get_args(info.annotation)}


def type_in(info: FieldInfo, value: Any) -> str:
    """The type that is written: a bare name, the `type` of settings, or the default where none is said."""
    named = value.get("type") if isinstance(value, dict) else value
    return named if isinstance(named, str) else str(default_of(info).type)


def opened(info: FieldInfo | None, value: Any) -> Any:
    """What is written in a field, with settings in place of a bare name."""
    return {"type": value} if info is not None and info.discriminator and isinstance(value, str) else value


def below(info: FieldInfo | None, value: Any) -> Kind | None:
    """The settings class below a field that holds `value`; None where it holds no settings."""
    if info is None:
        return None
    return choices_of(info).get(type_in(info, value)) if info.discriminator else section_of(info)


def kind_at(kind: Kind, names: Sequence[str], data: Any) -> Kind | None:
    """The settings class below `names` in `data`, mappings of settings `kind`; None where there is none."""
    found: Kind | None = kind
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
        found = below(found.model_fields.get(name), data) if found is not None else None
    return found


def field_at(kind: Kind, names: Sequence[str], data: Any) -> FieldInfo | None:
    """The field of these names in `data`, mappings of the settings `kind`; None where there is none."""
    found = kind_at(kind, names[:-1], data)
    return found.model_fields.get(names[-1]) if found is not None and names else None
