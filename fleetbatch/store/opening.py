"""From a URL to a store."""

import contextlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from fleetbatch.errors import RejectedError
from fleetbatch.store.base import Store
from fleetbatch.store.local import ARRIVING, LocalStore
from fleetbatch.store.signing import url_key

_HALF_WRITTEN_S: Final = 3600.0


def open_store(url: str, *, deployment_key: bytes, base_url: str = "") -> Store:
    """Open `file:///folder` (made when missing) or `s3://bucket/prefix`; raise RejectedError for what cannot be used.

    `base_url` is the gateway that serves a local folder's signed URLs; whoever signs none may leave it out.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "file" if parts.path.startswith("/") and not parts.netloc:
            return open_local(Path(unquote(parts.path)), deployment_key=deployment_key, base_url=base_url)
        case "s3" | "s3a":
            from fleetbatch.store.s3 import open_s3

            return open_s3(url)
        case _:
            summary = f"the store {url!r} is not known; use file:///folder or s3://bucket/prefix"
            raise RejectedError(summary)


def _forget_half_written(folder: Path, *, before_s: float) -> None:
    """Remove what processes that were killed left half-written; what still arrives grows, and is young."""
    for left in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just arrived
            if left.stat().st_mtime < before_s:
                left.unlink()


def open_local(root: Path, *, deployment_key: bytes, base_url: str = "") -> LocalStore:
    """Open a folder, making it; raise RejectedError when nothing can be written there."""
    try:
        canary = root / ARRIVING / "canary"
        canary.parent.mkdir(parents=True, exist_ok=True)
        with canary.open("wb") as file:
            now_s = os.fstat(file.fileno()).st_mtime
        canary.unlink(missing_ok=True)
        _forget_half_written(canary.parent, before_s=now_s - _HALF_WRITTEN_S)
    except OSError as error:
        summary = f"the store's folder {root} is not writable: {error.strerror}; choose another or change its rights"
        raise RejectedError(summary) from error
    return LocalStore(root=root.resolve(), key=url_key(deployment_key), base_url=base_url.rstrip("/"))
