"""The pages and pictures of `sparring view`, each at an address of its own. Everything is only read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from sparring.data.errors import SparringError
from sparring.data.images import ImageError
from sparring.report.render import TEMPLATES, environment
from sparring.report.viewer import compare, outcome
from sparring.report.viewer.candidates import Candidates
from sparring.report.viewer.edits import Edits, by_round
from sparring.report.viewer.exhibits import OUTCOMES, PAGE, Gallery, Key, Pair, Tiles, address
from sparring.report.viewer.guard import Guard
from sparring.report.viewer.items import Answers, Items
from sparring.report.viewer.now import in_words, now, phase_of, shown_first
from sparring.report.viewer.pictures import SIDES, Pictures, change, is_small, size_of, stamp
from sparring.report.viewer.works import NESTED_FORGE, Work, Works

THREADS = 4
"""Requests that are worked on at a time."""
LATEST = 16
UNREADABLE = "cannot be read"
"""Pictures that the page of what goes on shows."""
STRIP, WITH_STRIP = 6, 24
"""Pictures of a row in the list of all works, and the rows that have some."""
STATIC = {
    "report.css": (TEMPLATES / "report.css", "text/css; charset=utf-8"),
    "view.css": (TEMPLATES.parent / "static" / "view.css", "text/css; charset=utf-8"),
    "view.js": (TEMPLATES.parent / "static" / "view.js", "text/javascript; charset=utf-8"),
    "icon.svg": (TEMPLATES.parent / "static" / "icon.svg", "image/svg+xml"),
}
NOT_FILTERS = ("run", "start", "token", "side", "size", "v")
FOREVER = "private, max-age=31536000, immutable"


class Viewer:
    """What the pages are made from."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.works = Works(root)
        self.pictures = Pictures(cache)
        self.templates = environment()
        self.templates.globals.update(
            address=address, picture=picture_address, size_of=size_of, is_small=is_small, outcomes=OUTCOMES,
            shown_first=shown_first, bar=compare.bar, in_words=in_words, page_size=PAGE,
        )  # fmt: skip

    def work(self, name: str) -> Work:
        """The work of that name; 404 where there is none."""
        found = self.works.get(name)
        if found is None:
            raise HTTPException(404, f"there is no run {name!r} below {self.works.root}")
        return found

    @contextmanager
    def gallery(self, work: Work) -> Iterator[Gallery | None]:
        """The gallery of a work, for one question; None while there is nothing in it."""
        if work.kind == "evaluation" and work.finished:
            yield Items(work.folder, work.version)
            return
        files = {"forge": "forge.sqlite", "evaluation": "answers.sqlite"}
        with work.database(files.get(work.kind, "ledger.sqlite")) as db:
            if db is None:
                yield None
            elif work.kind == "forge":
                yield Candidates(db, work.folder)
            elif work.kind == "evaluation":
                yield Answers(db, work.folder)
            else:
                yield Edits(db, work.folder, list(work.settings.get("defenders") or ()))

    def page(
        self, request: Request, template: str, version: str, contents: Callable[[], Mapping[str, Any]]
    ) -> Response:
        """A page, or 304 where the browser has it: nothing is computed then. One whose contents are `passing`
        is not kept.
        """
        tag = f'W/"{version}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        found = contents()
        text = self.templates.get_template(f"view/{template}").render(
            here=request.url.path, query=dict(request.query_params), **found
        )
        # Half a surrogate pair, which JSON can hold, has no bytes of its own.
        kept = {} if found.get("passing") else {"ETag": tag}
        return HTMLResponse(text.encode(errors="replace"), headers=kept | {"Cache-Control": "no-cache"})


def picture_address(work: Work, key: Key, pair: Pair, side: str, size: str) -> str:
    """The address of a picture; it changes when a file is written anew, so that browsers may keep it."""
    stamps = []
    for path in (pair.before, pair.after):
        try:
            stamps.append(stamp(path)[:8] if path is not None else "")
        except ImageError:
            stamps.append("")
    return address("/picture", {"run": work.name}, key, side=side, size=size, v="".join(stamps) or "0")


def make_app(root: Path, cache: Path, token: str | None = None) -> FastAPI:
    """The viewer of the works below `root`. cache: folder for small pictures. token: see `Guard`."""
    viewer = Viewer(root, cache)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        await anyio.to_thread.run_sync(viewer.pictures.clean_up)
        yield

    app = FastAPI(title="Sparring", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.middleware("http")(Guard(token))
    _errors(app, viewer)
    _pages(app, viewer)
    _files(app, viewer)
    return app


def _errors(app: FastAPI, viewer: Viewer) -> None:
    def told(request: Request, status: int, text: str) -> Response:
        page = viewer.templates.get_template("view/error.html.j2")
        shown = page.render(status=status, text=text, here="", query={})
        return HTMLResponse(shown.encode(errors="replace"), status)

    @app.exception_handler(HTTPException)
    def missing(request: Request, error: HTTPException) -> Response:
        return told(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def unfit(request: Request, error: RequestValidationError) -> Response:
        return told(request, 400, "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()))

    @app.exception_handler(OverflowError)
    def endless(request: Request, error: OverflowError) -> Response:
        return told(request, 404, "there is no picture of that number")

    @app.exception_handler(SparringError)
    def unreadable(request: Request, error: SparringError) -> Response:
        return told(request, 500, str(error))

    @app.exception_handler(sqlite3.Error)
    def busy(request: Request, error: sqlite3.Error) -> Response:
        # A run that begins or ends just now may leave its log for a moment in a state that cannot be read.
        return told(request, 503, f"the ledger cannot be read just now ({error}). Try again.")


def _pages(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/")
    def index(request: Request) -> Response:
        works = viewer.works.all()
        version = "-".join(work.version for work in works.values())

        def contents() -> Mapping[str, Any]:
            rows = [_row(viewer, work, place < WITH_STRIP) for place, work in enumerate(works.values())]
            passing = any(phase.startswith(UNREADABLE) for _, phase, _ in rows)
            return {"rows": rows, "root": viewer.works.root, "passing": passing}

        return viewer.page(request, "index.html.j2", f"{hash(version):x}", contents)

    @app.get("/now")
    def now_page(request: Request, run: str) -> Response:
        work = viewer.work(run)

        def contents() -> Mapping[str, Any]:
            with work.database() as db:
                found = now(work, db)
            shown, latest = _latest(viewer, work)
            return {"work": work, "now": found, "shown": shown, "latest": latest}

        return viewer.page(request, "now.html.j2", work.version, contents)

    @app.get("/fight")
    def fight(request: Request, run: str, start: Annotated[int, Query(ge=0, le=10**12)] = 0) -> Response:
        work, filters = viewer.work(run), _filters(request)

        def contents() -> Mapping[str, Any]:
            with viewer.gallery(work) as gallery:
                tiles = Tiles() if gallery is None else gallery.page(filters, start)
                facets = [] if gallery is None else gallery.facets()
            return {"work": work, "tiles": tiles, "facets": facets, "filters": filters}

        return viewer.page(request, "fight.html.j2", work.version, contents)

    @app.get("/edit")
    def edit(request: Request, run: str) -> Response:
        work = viewer.work(run)

        def contents() -> Mapping[str, Any]:
            with viewer.gallery(work) as gallery:
                key = _key(request, gallery)
                found = None if gallery is None else gallery.exhibit(key)
                if gallery is None or found is None:
                    raise HTTPException(404, f"{run} holds no such picture")
                filters = {k: v for k, v in _filters(request).items() if k not in gallery.keys}
                near = gallery.neighbours(key, filters)
            changed, kind = change(found.pair) if found.pair.after is not None else ("", None)
            return {
                "work": work, "exhibit": found, "near": near, "filters": filters, "changed": changed,
                "kind": found.kind or kind, "sides": SIDES,
            }  # fmt: skip

        return viewer.page(request, "edit.html.j2", work.version, contents)

    @app.get("/outcome")
    def outcome_page(request: Request, run: str) -> Response:
        work = viewer.work(run)

        def contents() -> Mapping[str, Any]:
            if work.kind != "game":
                return {"work": work, **outcome.other_outcome(work)}
            with work.database() as db:
                return {"work": work, **outcome.game_outcome(work, db)}

        return viewer.page(request, f"outcome-{work.kind}.html.j2", work.version, contents)

    @app.get("/compare")
    def compare_page(request: Request, defender: str = "") -> Response:
        names = dict.fromkeys(request.query_params.getlist("run"))
        works = [viewer.work(name) for name in names][: compare.MOST]

        def contents() -> Mapping[str, Any]:
            games = all(work.kind == "game" for work in works)
            known = [set(compare.defenders_of(work)) for work in works] if games else []
            return {
                "works": works,
                "all": list(viewer.works.all().values()),
                "overlays": compare.overlays(works) if games else [],
                "against": compare.compared(works, defender or None) if len(works) > 1 else [],
                "defenders": sorted(set[str]().union(*known[:1]).intersection(*known), key=by_round),
                "defender": defender,
            }

        offered = [(name, work.kind) for name, work in viewer.works.all().items()]
        versions = "-".join(work.version for work in works)
        version = f"{hash((versions, str(viewer.works.root), *offered)):x}"
        return viewer.page(request, "compare.html.j2", version, contents)


def _files(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/picture")
    def picture(request: Request, run: str, side: str = "after", size: str = "large") -> Response:
        work = viewer.work(run)
        with viewer.gallery(work) as gallery:
            pair = None if gallery is None else gallery.pair(_key(request, gallery))
        if pair is None or side not in SIDES or size not in ("thumb", "large"):
            raise HTTPException(404, "there is no such picture")
        try:
            content, kind = viewer.pictures.get(pair, side, size)  # type: ignore[arg-type]
        except ImageError as error:
            return PlainTextResponse(str(error), 404)
        kept = FOREVER if request.query_params.get("v") else "no-cache"
        return Response(content, media_type=kind, headers={"Cache-Control": kept})

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "there is no such file")
        path, kind = STATIC[name]
        return Response(path.read_bytes(), media_type=kind, headers={"Cache-Control": "max-age=60"})


def _filters(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if value and name not in NOT_FILTERS}


def _key(request: Request, gallery: Gallery | None) -> Key:
    names = () if gallery is None else gallery.keys
    return {name: request.query_params.get(name, "") for name in names}


def _latest(viewer: Viewer, work: Work) -> tuple[Work, Tiles]:
    """The newest pictures of a work; of a game whose players have not edited yet, those of its forge."""
    forge = viewer.works.get(f"{work.name}/{NESTED_FORGE}")
    for one in (work, *([forge] if forge is not None else [])):
        if (tiles := _newest(viewer, one, LATEST)).of:
            return one, tiles
    return work, Tiles()


def _row(viewer: Viewer, work: Work, strip: bool) -> tuple[Work, str, Tiles]:
    """A work's line in the list of all: what it is doing, and its newest pictures; one that cannot be read
    says so there, and spoils no other.
    """
    try:
        return work, phase_of(work), _newest(viewer, work, STRIP) if strip else Tiles()
    except (
        SparringError,
        sqlite3.Error,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        return work, f"{UNREADABLE}: {error}", Tiles()


def _newest(viewer: Viewer, work: Work, most: int) -> Tiles:
    with viewer.gallery(work) as gallery:
        return Tiles() if gallery is None else gallery.page({}, 0, most)
