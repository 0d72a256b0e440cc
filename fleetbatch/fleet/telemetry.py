"""Telemetry files, each read once: what the cars of a cell said since the last look."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.units import CellName


class Files(Protocol):
    """The part of the store that reading needs."""

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys."""
        ...

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The fresh rows, the keys read so far of the days looked at, and the files that could not be read."""

    rows: pa.Table
    seen: frozenset[str]
    broken: tuple[str, ...]


def hear(files: Files, cell: CellName, *, seen: frozenset[str], now: datetime) -> Heard:
    """Read today's and yesterday's files (UTC) that are not in `seen`.

    A file that is no Parquet or breaks the contract is named in `broken` and not looked at again: one gateway's bad
    minute must not blind the cell.
    """
    days = [f"{now - timedelta(days=1):%Y-%m-%d}", f"{now:%Y-%m-%d}"]
    keys = [key for day in days for key in sorted(files.keys(layout.telemetry_day(cell, day)))]
    tables, broken = [empty("signals")], []
    for key in keys:
        if key in seen:
            continue
        try:
            tables.append(conform(pq.read_table(io.BytesIO(files.read(key))), "signals"))
        except (pa.ArrowInvalid, RejectedError) as error:
            broken.append(f"{key}: {error}")
    return Heard(rows=pa.concat_tables(tables), seen=frozenset(keys), broken=tuple(broken))
