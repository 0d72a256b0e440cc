"""Model bundles on the car's disk, under their hash; what does not match its hash is fetched again."""

import contextlib
import os
from pathlib import Path
from typing import Final

from fleetbatch.bundle import BUNDLE_BYTES, bundle_sha256
from fleetbatch.errors import RejectedError
from fleetbatch.runner.download import Downloads

BUNDLES_KEPT: Final = 4


def cached_models(folder: Path) -> list[str]:
    """Return the hashes of the bundles that are here, for the poll."""
    return sorted(path.stem for path in folder.glob("*.zip"))


def fetch_bundle(downloads: Downloads, folder: Path, *, sha256: str, url: str, size: int) -> bytes:
    """Return the bundle of that hash, from disk if it is here and whole.

    Raises UnreachableError when the store does not answer, RejectedError when what came is not what the hash says.
    """
    path = folder / f"{sha256}.zip"
    if (data := _kept(path)) is not None and bundle_sha256(data) == sha256:
        return data
    if size > BUNDLE_BYTES:
        summary = f"bundle {sha256[:12]} has {size} bytes; at most {BUNDLE_BYTES} are taken"
        raise RejectedError(summary)
    data = downloads.whole(url, size)
    if (found := bundle_sha256(data)) != sha256:
        summary = f"the bundle is not what its hash says: expected {sha256}, found {found}"
        raise RejectedError(summary)
    _keep(folder, path, data)
    return data


def _kept(path: Path) -> bytes | None:
    """Return the file's bytes; None where there is none, or the disk does not give it."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def _keep(folder: Path, path: Path, data: bytes) -> None:
    """Write the bundle in one move, and forget the oldest.

    A disk that is full, worn out or read-only costs a download a process, and no work: the bundle is in memory.
    """
    scratch = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        for old in sorted(folder.glob("*.zip"), key=_modified, reverse=True)[BUNDLES_KEPT:]:
            old.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    """Return when it was written; a file that another worker has just forgotten is the oldest."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
