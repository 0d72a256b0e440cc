"""What a store lacks, found by trying: on one that lacks something no gateway starts, and no night begins or ends."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

from fleetbatch.errors import RejectedError
from fleetbatch.store.base import Store

_RACERS: Final = 16
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""For stores that sign by the time they are given; a server knows its own."""
_SIGNATURES: Final = ("signature=", "Signature=")


def probe(store: Store) -> list[str]:
    """Return, in words, every capability that the store lacks; empty when it may carry a night.

    Writes a few small objects under `probe/` and removes them.
    """
    folder = f"probe/{os.urandom(8).hex()}"
    tries = (_create_once, _one_winner, _whole_replace, _range_read, _forged_signature)
    lacks = [lack for n, attempt in enumerate(tries) if (lack := attempt(store, f"{folder}/{n}"))]
    for key in list(store.keys(f"{folder}/")):
        store.delete(key)
    return lacks


def refuse_lacking(store: Store) -> None:
    """Raise RejectedError that names what the store lacks, if it lacks anything."""
    if lacks := probe(store):
        summary = (
            "this store cannot carry a night: it cannot keep tables whole, or not to itself;"
            " let `store` in the settings name a folder, or an S3 server that has what is missing here"
        )
        raise RejectedError(summary, lacks)


def _create_once(store: Store, key: str) -> str:
    first, second = store.create(key, b"first"), store.create(key, b"second")
    if first and not second and store.read(key) == b"first":
        return ""
    return "create-only PUT: a second create of one key was not refused (If-None-Match is ignored)"


def _one_winner(store: Store, key: str) -> str:
    with ThreadPoolExecutor(_RACERS) as pool:
        won = sum(pool.map(lambda racer: store.create(key, b"%d" % racer), range(_RACERS)))
    return "" if won == 1 else f"atomic create: of {_RACERS} threads creating one key, {won} were told they did"


def _whole_replace(store: Store, key: str) -> str:
    store.write(key, b"old")
    store.write(key, b"new")
    return "" if store.read(key) == b"new" else "replace: a read after a write gave the old bytes"


def _range_read(store: Store, key: str) -> str:
    store.write(key, b"0123456789")
    return "" if store.read_range(key, 2, 5) == b"234" else "range read: bytes 2 to 4 were asked for, others came"


def _forged_signature(store: Store, key: str) -> str:
    store.write(key, b"secret")
    honest = store.sign_get(key, now=_NOW, expires=timedelta(minutes=5))
    if store.refuses(honest, now=_NOW):
        return "signed URL: an honest one was refused"
    forged = honest
    for name in _SIGNATURES:
        before, found, after = honest.partition(name)
        if found:
            wrong = "1" if after[0] == "0" else "0"
            forged = f"{before}{found}{wrong}{after[1:]}"
    return "" if store.refuses(forged, now=_NOW) else "signed URL: a forged signature was accepted"
