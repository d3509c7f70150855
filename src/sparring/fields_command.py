"""`sparring fields`."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from rich.text import Text

from sparring.console import clean_errors, out_console, result
from sparring.data.errors import RecipeError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from sparring.config.base import Kind


@dataclass(frozen=True)
class Line:
    """A setting: its dotted name, the algorithm that alone reads it, and what there is to say of it."""

    name: str
    algorithm: str | None
    kind: str
    default: str
    description: str
    again: str = ""

    def __str__(self) -> str:
        notes = "; ".join(part for part in (self.kind, self.default, self.description, self.again) if part)
        return f"{self.title}: {notes}"

    @property
    def title(self) -> str:
        """The name, with the algorithm where it is one's own."""
        return f"{self.name} ({self.algorithm})" if self.algorithm else self.name


def fields(
    wanted: Annotated[
        str | None,
        typer.Argument(
            metavar="WORD",
            help="Settings of this section or name alone (defender, attacker.lora); where there is none, "
            "those that speak of this word. Left out: all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Explain every setting of recipes and of each verb, or some of them.

    One line a setting: its name as `--set` takes it, its kind, its default, what it means. Where an algorithm
    alone reads it, that stands in brackets: `--set attacker.algorithm=awm` takes one with its defaults, then
    `--set attacker.algorithm.power=0.5` changes them.

    \b
    sparring fields defender.algorithm
    sparring fields clip
    """
    with clean_errors():
        verbs = dict(lines_of_verbs())
        if wanted is not None:
            verbs = chosen(verbs, wanted)
        for verb, lines in verbs.items():
            if verb != "run":
                also = " and `sparring attack`, its preset" if verb == "probe" else ""
                out_console.print(f"\nOf `sparring {verb}`{also}", style="bold")
            for line in lines:
                text = Text(str(line))
                text.stylize("bold", 0, len(line.title))
                out_console.print(text)
        result({verb: [asdict(line) for line in lines] for verb, lines in verbs.items()})


def chosen(verbs: Mapping[str, list[Line]], wanted: str) -> dict[str, list[Line]]:
    """The settings of a section or of a name; if there are none, those in whose line the word stands. Raises
    RecipeError with the nearest where there are none either.
    """
    word = wanted.lower()
    kinds: tuple[Callable[[Line], bool], ...] = (
        lambda line: f"{line.name}.".lower().startswith(f"{word.rstrip('.')}."),
        lambda line: word in str(line).lower(),
    )
    for fits in kinds:
        found = {verb: own for verb, lines in verbs.items() if (own := [one for one in lines if fits(one)])}
        if found:
            return found
    names = {line.name for lines in verbs.values() for line in lines}
    parts = {part for name in names for part in name.split(".")}
    near = get_close_matches(word, sorted(names | parts), n=3, cutoff=0.5)
    advice = f"; near are: {', '.join(near)}" if near else ""
    raise RecipeError(f'no setting is named "{wanted}" or speaks of it{advice}.')


def lines_of_verbs() -> Iterator[tuple[str, list[Line]]]:
    """Every verb with its settings; of sections that an earlier verb has shown the name alone."""
    from sparring.config import EvalSettings, ForgeSettings, ProbeSettings, Recipe, SftSettings, StudySettings

    known: dict[Kind, str] = {}
    verbs: dict[str, Kind] = {
        "run": Recipe,
        "eval": EvalSettings,
        "probe": ProbeSettings,
        "sft": SftSettings,
        "forge": ForgeSettings,
        "study": StudySettings,
    }
    for verb, settings in verbs.items():
        yield verb, list(_lines(settings, "", None, known))


def _lines(kind: Kind, where: str, algorithm: str | None, known: dict[Kind, str]) -> Iterator[Line]:
    """The settings of a class and of all below it. known: class -> where it has been shown."""
    from sparring.config.base import choices_of, section_of

    for field, info in kind.model_fields.items():
        if field == "type" and algorithm is not None:
            continue  # said where the algorithm is chosen
        name, inner, choices = f"{where}{field}", section_of(info), choices_of(info)
        again = f"its settings as those of {known[inner]} above" if not where and inner in known else ""
        yield Line(name, algorithm, _kind(info), _default(info), info.description or "", again)
        for type_, own in choices.items():
            yield Line(name, None, type_, "", own.model_fields["type"].description or "")
            yield from _lines(own, f"{name}.", type_, known)
        if inner is not None and not again:
            yield from _lines(inner, f"{name}.", algorithm, known)
            known.setdefault(inner, name)


def _kind(info: FieldInfo) -> str:
    """What may be written: a type's name, a choice of words, nothing for a section."""
    from sparring.config.base import choices_of, section_of

    if choices := choices_of(info):
        return f"one of {', '.join(choices)}"
    return "" if section_of(info) is not None else _words(info.annotation)


def _words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is types.UnionType:
        return " | ".join(_words(part) for part in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _words(get_args(annotation)[0])
    if annotation is type(None):
        return "null"
    if inner := get_args(annotation):
        told = ", ".join("..." if part is ... else _words(part) for part in inner)
        return f"{get_origin(annotation).__name__}[{told}]"
    return str(annotation.__name__)


def _default(info: FieldInfo) -> str:
    from sparring.config.base import choices_of, default_of, section_of

    if info.is_required():
        return "required"
    default = default_of(info)
    if choices_of(info):
        return f"default {default.type}"
    if section_of(info) is not None and default is not None:
        return ""
    return "default null" if default is None else f"default {default!r}"
