"""`sparring publish`."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sparring.console import clean_errors, out_console, result
from sparring.data.errors import RecipeError, RunError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def publish(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of a game, of one of its players, of a forge, a probe, an evaluation, or of "
            "benchmarks' JSON files.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="USER/NAME at the hub, or a folder, whose path begins with . or / or ~.",
            show_default=False,
        ),
    ],
    licence: Annotated[
        str | None,
        typer.Option(help="Licence for the card, as the hub spells it: apache-2.0.", show_default=False),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a repository that is new a private one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, list its files, and send or keep nothing.")
    ] = False,
) -> None:
    """Share players, data sets and figures, at the Hugging Face hub or in a folder.

    Writes a card (what it is, how it was made, figures with intervals, limits, samples) beside safetensors
    weights that plain diffusers and transformers load, or beside data that datasets loads. Of a game both
    last players are published, as NAME-attacker and NAME-defender. The token is taken from HF_TOKEN in the
    environment, the hub from HF_ENDPOINT.

    \b
    sparring publish runs/demo --to ./shared                            # look at it first
    sparring publish runs/demo/round3/defender/model --to USER/NAME
    sparring publish forged/arena --to USER/NAME --private
    """
    with clean_errors():
        at_hub = REPOSITORY.fullmatch(to) is not None
        if not at_hub and not to.startswith((".", "/", "~")):
            raise RecipeError(f"--to {to}: neither USER/NAME nor a path that begins with . or / or ~.")
        if not folder.is_dir():
            raise RunError(f"{folder} is no folder. Name the one that a verb wrote its results to.")
        from sparring.publish.bundle import bundles_of

        bundles = bundles_of(folder, licence)
        places = [_place(to, f"-{bundle.name}" if len(bundles) > 1 else "", at_hub) for bundle in bundles]
        in_folder = not (at_hub or dry_run)
        if in_folder:
            for place in places:
                _require_free(Path(place))
            Path(places[0]).parent.mkdir(parents=True, exist_ok=True)
        document = []
        # Beside where it goes, so that it is there whole or not at all.
        beside = Path(places[0]).parent if in_folder else None
        with tempfile.TemporaryDirectory(prefix="sparring-publish-", dir=beside) as scratch:
            for bundle in bundles:
                built = Path(scratch) / bundle.name
                built.mkdir()
                bundle.write(built)
            for bundle, place in zip(bundles, places, strict=True):
                built = Path(scratch) / bundle.name
                found = sorted(file for file in built.rglob("*") if file.is_file())
                files = {file.relative_to(built).as_posix(): file.stat().st_size for file in found}
                if dry_run:
                    out_console.print(f"{bundle.title}, for {place}:", style="bold")
                    for name, size in files.items():
                        out_console.print(f"  {size:>12,}  {name}")
                elif at_hub:
                    from sparring.publish.hub import push

                    place = push(built, bundle, place, private=private)
                else:
                    built.rename(place)
                if not dry_run:
                    out_console.print(f"{bundle.title}: {place}")
                document.append({"title": bundle.title, "kind": bundle.kind, "to": place, "files": files})
        result(document)


def _place(to: str, end: str, at_hub: bool) -> str:
    """The repository or the whole path of one bundle; a slash at the path's end is none of its name's."""
    return to + end if at_hub else os.path.abspath(os.path.expanduser(to)) + end


def _require_free(target: Path) -> None:
    """Raises RunError for a place where something is already, or that lies below a file."""
    if os.path.lexists(target):
        raise RunError(f"{target} is there already, and is not written over. Name another folder with --to.")
    if (file := next((above for above in target.parents if above.is_file()), None)) is not None:
        raise RunError(f"{file} is a file, and {target} cannot lie in it. Name another folder with --to.")
