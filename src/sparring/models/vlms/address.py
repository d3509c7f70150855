"""Endpoints by name: `http://host:port/v1#model`, the base URL of an OpenAI-compatible API and the model that
it serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from sparring.data.errors import ModelError


@dataclass(frozen=True, slots=True)
class Address:
    """Where a served model is asked: the API's base URL, without a slash at its end, and the name of the
    model there.
    """

    url: str
    model: str

    def __str__(self) -> str:
        return f"{self.url}#{self.model}"


def is_endpoint(spec: str) -> bool:
    """Does this name a served model? Folders and hub ids hold no "://"."""
    return "://" in spec


def parse_address(spec: str) -> Address:
    """Read `URL#MODEL`. Raises ModelError where it is not of that form, or carries a secret, which belongs
    into the environment.
    """
    shape = "Name an endpoint as http://127.0.0.1:8000/v1#model-name."
    url, _, model = spec.partition("#")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ModelError(f"endpoint {url}: no URL ({error}). {shape}") from error
    if parts.username is not None or parts.password is not None or parts.query:
        # Not repeated in the message: what stands there may be a secret.
        raise ModelError(
            f"the endpoint at {parts.hostname or 'that URL'} has a user, a password or a query in its URL. "
            f"Keys are read from the environment only. {shape}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ModelError(
            f"endpoint {url}: its URL must begin with http:// or https:// and name a host. {shape}"
        )
    if not model.strip():
        raise ModelError(f"endpoint {url}: which model? {shape}")
    return Address(url.rstrip("/"), model)
