"""Who may look, and what a page may do: a token or the loopback, and headers that let a browser load nothing
from elsewhere."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fastapi import Request, Response
from starlette.responses import PlainTextResponse, RedirectResponse

COOKIE = "sparring_view_"
HEADERS = {
    # Only attributes may carry styles of their own: the colours of matrices, places of marks.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline';"
        " script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
Next = Callable[[Request], Awaitable[Response]]


def is_loopback(host: str) -> bool:
    """Only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Answers only who may look. token: what has to be shown; None on the loopback, where it is enough that
    the browser asks for this machine by name, which a page from elsewhere cannot make it do (DNS rebinding).
    """

    def __init__(self, token: str | None) -> None:
        self.token = token
        # Browsers send a cookie to every port of a host: each viewer of a machine has one of its own.
        self.cookie = COOKIE + hashlib.sha256((token or "").encode()).hexdigest()[:8]

    async def __call__(self, request: Request, call_next: Next) -> Response:
        refusal = self._refusal(request)
        response = refusal if refusal is not None else await call_next(request)
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("only looked at, never changed", 405)
        if self.token is None:
            asked = request.url.hostname or ""
            return None if is_loopback(asked) else PlainTextResponse("unknown host", 421)
        shown = request.query_params.get("token")
        if shown is not None and self._is_token(shown):
            rest = [pair for pair in request.query_params.multi_items() if pair[0] != "token"]
            where = request.url.path + (f"?{urlencode(rest)}" if rest else "")
            # A path that begins with two slashes would be another host.
            answer = RedirectResponse("/" + where.lstrip("/"), 303)
            # Lax: a link in a mail opens the page too. Nothing here changes anything.
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return answer
        if self._is_token(request.cookies.get(self.cookie, "")):
            return None
        return PlainTextResponse("Open the address with the token that `sparring view` has printed.", 401)

    def _is_token(self, shown: str) -> bool:
        return self.token is not None and hmac.compare_digest(shown.encode(), self.token.encode())
