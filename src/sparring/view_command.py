"""`sparring view`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from sparring.console import clean_errors, out_console, result, stoppable
from sparring.data.errors import RunError

TOKEN = "SPARRING_VIEW_TOKEN"


def view(
    folder: Annotated[
        Path,
        typer.Argument(metavar="[RUNS_FOLDER]", help="Folder of runs; one run's own folder will do too."),
    ] = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen at. Any but this machine's own (127.0.0.1) asks for a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 8777,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for small copies of pictures; ~/.cache/sparring/view if left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Watch runs in a browser, while they go on and after.

    Shows every run, attack, probe, evaluation, forge, fine-tuning and study below RUNS_FOLDER: what goes on
    now, every picture with what each Defender said, who beats whom, and runs side by side. It only reads,
    locks nothing, loads no model, and asks no other host for anything. Needs the extra: pip install
    'sparring[view]'.

    With a --host that others can reach, a page is shown only to who has the token, which is part of the
    address that is printed; SPARRING_VIEW_TOKEN in the environment sets it.

    \b
    sparring view                      # what is in runs/, at http://127.0.0.1:8777
    sparring view runs/demo --port 0   # one run, at a free port
    sparring view --host 0.0.0.0       # from elsewhere, with a token
    """
    with clean_errors(), stoppable("Nothing was changed; the same command shows it again."):
        if not folder.is_dir():
            raise RunError(
                f"{folder} is no folder. Name the one that runs are kept in: the parent of what --out named."
            )
        try:
            import uvicorn

            from sparring.report.viewer.app import make_app
            from sparring.report.viewer.guard import is_loopback
            from sparring.report.viewer.pictures import cache_folder
        except ModuleNotFoundError as error:
            raise RunError(f"{error.name} is not installed: pip install 'sparring[view]'") from error
        token = None if is_loopback(host) else os.environ.get(TOKEN) or secrets.token_urlsafe(24)
        app = make_app(folder, cache or cache_folder(), token)
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False)
        try:
            listening = config.bind_socket()
        except SystemExit as error:
            raise RunError(
                f"port {port} at {host} cannot be listened at. Choose another one with --port, or 0 for any."
            ) from error
        listening.listen()  # who reads the line below may ask at once
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        address += f"?token={quote(token, safe='')}" if token else ""
        out_console.print(f"Viewer: {address}\nCtrl-C ends it.")
        result({"address": address})
        uvicorn.Server(config).run(sockets=[listening])
