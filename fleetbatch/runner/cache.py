"""Model bundles on the car's disk, under their hash; what does not match its hash is fetched again."""

import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx

from fleetbatch.bundle import BUNDLE_BYTES, bundle_sha256
from fleetbatch.errors import RejectedError
from fleetbatch.runner.client import UnreachableError

BUNDLES_KEPT: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A bundle and how fast it came; 0 when it was here."""

    data: bytes
    bytes_per_s: float


def cached_models(folder: Path) -> list[str]:
    """Return the hashes of the bundles that are here, for the poll."""
    return sorted(path.stem for path in folder.glob("*.zip"))


def fetch_bundle(http: httpx.Client, folder: Path, *, sha256: str, url: str, size: int) -> Fetched:
    """Return the bundle of that hash, from disk if it is here and whole.

    Raises UnreachableError when the store does not answer, RejectedError when what came is not what the hash says.
    """
    path = folder / f"{sha256}.zip"
    if path.is_file():
        data = path.read_bytes()
        if bundle_sha256(data) == sha256:
            return Fetched(data=data, bytes_per_s=0.0)
        path.unlink()
    if size > BUNDLE_BYTES:
        summary = f"bundle {sha256[:12]} has {size} bytes; at most {BUNDLE_BYTES} are taken"
        raise RejectedError(summary)
    began = time.monotonic()
    data = _download(http, url, size)
    rate = len(data) / max(time.monotonic() - began, 1e-3)
    if (found := bundle_sha256(data)) != sha256:
        summary = f"the bundle is not what its hash says: expected {sha256}, found {found}"
        raise RejectedError(summary)
    _keep(folder, path, data)
    return Fetched(data=data, bytes_per_s=rate)


def _download(http: httpx.Client, url: str, size: int) -> bytes:
    content = bytearray()
    try:
        with http.stream("GET", url) as response:
            if response.status_code != HTTPStatus.OK:
                message = f"the store answered {response.status_code} to the model bundle"
                raise UnreachableError(message)
            for piece in response.iter_bytes():
                content += piece
                if len(content) > size:
                    break  # longer than promised: the hash will say so
    except httpx.TransportError as error:
        message = f"the model bundle could not be read: {type(error).__name__} {error}"
        raise UnreachableError(message) from error
    if len(content) < size:
        message = f"the model bundle came short: {len(content)} of {size} bytes"
        raise UnreachableError(message)
    return bytes(content)


def _keep(folder: Path, path: Path, data: bytes) -> None:
    """Write the bundle in one move, and forget the oldest."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
    for old in sorted(folder.glob("*.zip"), key=lambda p: p.stat().st_mtime, reverse=True)[BUNDLES_KEPT:]:
        old.unlink(missing_ok=True)
