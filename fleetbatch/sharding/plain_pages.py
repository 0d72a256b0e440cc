"""Values as a Parquet page has them: which of its rows have one, then those, plain. Pure."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fleetbatch.sharding.thrift import varint

SIZE_BYTES: Final = 4
"""How large something is, in front of it."""
ROWS_MAX: Final = 8192
"""Rows of a page, so that what says which have a value has bounds."""
LEVELS_BYTES_MAX: Final = SIZE_BYTES + 2 + ROWS_MAX // 8


def levels(there: Sequence[bool]) -> bytes:
    """Return which rows have a value, in front of a page's values: one run where all are alike, else a bit a row."""
    if all(there) or not any(there):
        return _sized(varint(len(there) << 1) + bytes((all(there),)))
    bits = np.packbits(there, bitorder="little").tobytes()
    return _sized(varint(len(bits) << 1 | 1) + bits)


def page_of(values: Sequence[str | int | None], *, nullable: bool) -> bytes:
    """Return texts, or numbers of 32 bits, as a page."""
    before = levels([value is not None for value in values]) if nullable else b""
    return before + b"".join([_plain(value) for value in values if value is not None])


def _plain(value: str | int) -> bytes:
    return _sized(value.encode()) if isinstance(value, str) else value.to_bytes(4, "little", signed=True)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(SIZE_BYTES, "little") + data
