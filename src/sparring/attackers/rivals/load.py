"""From a few words to a rival: "corruption:fog:3", "pgd:eps=8:restarts=4", "light:0.75", "paste:add",
"editor".

A specification is a name and options, separated by colons. An option is `key=value`, or a value alone at its
place. In the place of a name may stand a function of the user's own, `package.module:function:key=value`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from sparring.attackers.rivals.base import Called, Light, Rival
from sparring.attackers.rivals.corruptions import CORRUPTIONS, SEVERITIES, Corruption, Jpeg
from sparring.attackers.rivals.paste import Paste
from sparring.config import AttackerSettings, CropSettings, PasteSettings, PgdSettings, Settings
from sparring.data.errors import RecipeError
from sparring.engine.calls import parse_call

if TYPE_CHECKING:
    from sparring.attackers.rivals.editors import EditorRival
    from sparring.attackers.rivals.pgd import Victim
    from sparring.models.editors import FlowEditor

Model = TypeVar("Model", bound=Settings)


@dataclass(frozen=True, slots=True)
class Means:
    """What rivals may need: a victim whose gradients are taken, an editor, and the settings it edits with.
    None: there is none.
    """

    victim: Victim | None = None
    editor: FlowEditor | None = None
    attacker: AttackerSettings | None = None


def load_rival(
    spec: str,
    *,
    victim: Victim | None = None,
    editor: FlowEditor | None = None,
    attacker: AttackerSettings | None = None,
    name: str | None = None,
) -> Rival:
    """The rival of a specification. RecipeError for an unknown name, option or value, naming the nearest
    right one, and for a missing means.

    victim: for "pgd". editor: for "roundtrip"; with `attacker` (instruction, steps, guidance) also for
    "benign" and "editor". name: what its edits are signed with, the specification if left out.
    """
    kind, _, rest = spec.strip().partition(":")
    if (call := parse_call(spec.strip())) is not None:
        return Called(call, name or spec.strip())
    if kind not in RIVALS:
        raise RecipeError(
            f'rival "{spec}": there is no "{kind}"{_nearest(kind, RIVALS)} Known are {", ".join(RIVALS)}.'
        )
    rival = RIVALS[kind](spec.strip(), rest.split(":") if rest else [], Means(victim, editor, attacker))
    rival.name = name or rival.name
    return rival


class MissingError(RecipeError):
    """A rival is named rightly and lacks what it needs."""


def check_rival(spec: str) -> None:
    """Is a specification right, as far as its words go? Errors as for `load_rival`, but for what the rival
    would need.
    """
    with suppress(MissingError):
        load_rival(spec)


def all_corruptions(severities: Sequence[int] = SEVERITIES) -> list[Rival]:
    """Every corruption at these severities, in the published order."""
    return [Corruption(kind, severity) for kind in CORRUPTIONS for severity in severities]


def _corruption(spec: str, words: list[str], means: Means) -> Rival:
    options = _options(spec, words, ("kind", "severity"))
    kind = options.get("kind", "")
    if kind not in CORRUPTIONS:
        # "jpeg", "defocus", "gaussian"
        found = [known for known in CORRUPTIONS if known.split("_")[0] == kind]
        if len(found) != 1:
            raise RecipeError(
                f'rival "{spec}": there is no corruption "{kind}"{_nearest(kind, CORRUPTIONS)} Known are '
                f"{', '.join(CORRUPTIONS)}."
            )
        kind = found[0]
    return Corruption(kind, _whole(spec, options.get("severity", ""), "severity", 1, 5))


def _jpeg(spec: str, words: list[str], means: Means) -> Rival:
    return Jpeg(_whole(spec, _options(spec, words, ("quality",)).get("quality", ""), "quality", 1, 100))


def _light(spec: str, words: list[str], means: Means) -> Rival:
    word = _options(spec, words, ("gain",)).get("gain", "")
    try:
        return Light(float(word))
    except ValueError as error:
        raise RecipeError(
            f'rival "{spec}": gain must be a number above 0, such as 0.75, not "{word}".'
        ) from error


def _pgd(spec: str, words: list[str], means: Means) -> Rival:
    # torch, which nobody who only checks a specification should wait for
    from sparring.attackers.rivals.pgd import Pgd

    settings = _settings(spec, PgdSettings, _options(spec, words, tuple(PgdSettings.model_fields)))
    return Pgd(_needed(spec, means.victim, "the Defender's weights (victim)"), settings, spec)


def _paste(spec: str, words: list[str], means: Means) -> Rival:
    return Paste(
        _settings(spec, PasteSettings, _options(spec, words, tuple(PasteSettings.model_fields))), spec
    )


def _roundtrip(spec: str, words: list[str], means: Means) -> Rival:
    from sparring.attackers.rivals.editors import RoundTrip

    _options(spec, words, ())
    crop = means.attacker.crop if means.attacker else CropSettings()
    return RoundTrip(_needed(spec, means.editor, "an editor"), name=spec, crop=crop)


def _benign(spec: str, words: list[str], means: Means) -> Rival:
    from sparring.attackers.rivals.editors import Benign

    return _edits(Benign, spec, words, means)


def _editor(spec: str, words: list[str], means: Means) -> Rival:
    from sparring.attackers.rivals.editors import EditorRival

    return _edits(EditorRival, spec, words, means)


def _edits(kind: type[EditorRival], spec: str, words: list[str], means: Means) -> Rival:
    _options(spec, words, ())
    editor = _needed(spec, means.editor, "an editor")
    return kind(editor, _needed(spec, means.attacker, "the attacker's settings"), name=spec)


RIVALS: dict[str, Callable[[str, list[str], Means], Rival]] = {
    "pgd": _pgd,
    "paste": _paste,
    "corruption": _corruption,
    "jpeg": _jpeg,
    "light": _light,
    "roundtrip": _roundtrip,
    "benign": _benign,
    "editor": _editor,
}


def _options(spec: str, words: list[str], names: tuple[str, ...]) -> dict[str, str]:
    """Options by name; those without one are taken in the order of `names`."""
    options: dict[str, str] = {}
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals:
            if place >= len(names):
                raise RecipeError(
                    f'rival "{spec}": "{word}" is one option too many; it takes {", ".join(names) or "none"}.'
                )
            key, value = names[place], word
        elif key not in names:
            raise RecipeError(
                f'rival "{spec}": there is no option "{key}"{_nearest(key, names)} It takes '
                f"{', '.join(names) or 'none'}."
            )
        if key in options:
            raise RecipeError(f'rival "{spec}": {key} is given twice.')
        options[key] = value
    return options


def _settings(spec: str, model: type[Model], options: dict[str, str]) -> Model:
    try:
        return model.model_validate(
            {key: None if value == "null" else value for key, value in options.items()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        field, value = str(first["loc"][-1]), first["input"]
        choices = first.get("ctx", {}).get("expected", "") if first["type"] == "literal_error" else ""
        hint = _nearest(
            str(value), [choice.strip("' ") for choice in str(choices).replace(" or ", ",").split(",")]
        )
        raise RecipeError(f'rival "{spec}": {field}={value}: {first["msg"]}{hint}') from error


def _whole(spec: str, word: str, name: str, low: int, high: int) -> int:
    if not word.isdecimal() or not low <= int(word) <= high:
        given = f'"{word}"' if word else "nothing"
        raise RecipeError(f'rival "{spec}": {name} must be a whole number from {low} to {high}, not {given}.')
    return int(word)


def _needed(spec: str, means: Any, what: str) -> Any:
    if means is None:
        raise MissingError(f'rival "{spec}" needs {what}, and there is none.')
    return means


def _nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    """The end of a sentence about an unknown word: what was probably meant, or a full stop."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{near[0]}"?' if near else "."


ON_EDITOR = ("roundtrip", "benign")


def split_rival(spec: str) -> tuple[str | None, str | None]:
    """(rival, editor) of `RIVAL`, `RIVAL@EDITOR` or `EDITOR`; None for what is not there. A folder of that
    name is an editor.
    """
    rival, at, editor = spec.partition("@")
    if Path(spec).expanduser().is_dir() or (
        rival.split(":")[0] not in {*RIVALS} - {"editor"} and parse_call(rival) is None
    ):
        return None, spec
    return rival, editor if at else None


def split_lora(spec: str) -> tuple[str, str | None]:
    """(editor, LoRA folder or None) of `EDITOR+LORA`. A folder whose own name holds a plus sign is taken as
    it is.
    """
    if Path(spec).expanduser().is_dir() or "+" not in spec:
        return spec, None
    places = [place for place, sign in enumerate(spec) if sign == "+"]
    # The first plus sign whose left side is there: both halves may hold others.
    cut = next((place for place in places if Path(spec[:place]).expanduser().is_dir()), places[0])
    return spec[:cut], spec[cut + 1 :]
