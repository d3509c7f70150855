"""The one place that speaks to a hub."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from sparring.data.errors import RunError
from sparring.publish.bundle import Bundle

TOKEN = "HF_TOKEN"
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the client of HTTP raises where there is no answer: the library has changed from httpx to httpx2."""


def push(folder: Path, bundle: Bundle, repository: str, *, private: bool) -> str:
    """Make the repository, if it is not there, and upload the folder in one commit; gives its address.

    The token is read from the environment alone, never from a file. Raises RunError where there is none, or
    where the hub does not take it.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise RunError(f"{TOKEN} is not set: a token that may write is taken from the environment alone.")
    if not (token.isascii() and token.isprintable()):  # a client of HTTP repeats a header that is none
        raise RunError(f"{TOKEN} holds a character that no token has, such as a line's end.")
    hub = HfApi(token=token, library_name="sparring")
    try:
        address = hub.create_repo(repository, repo_type=bundle.kind, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, repo_type=bundle.kind, folder_path=folder, commit_message=bundle.title
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError, HTTP_ERROR) as error:
        said = str(error).replace(token, "***")
        raise RunError(f"{repository} could not be published at {hub.endpoint}: {said}") from error
    return str(address)
