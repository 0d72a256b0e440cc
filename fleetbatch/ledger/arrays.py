"""PostgreSQL's binary COPY from and to numpy arrays: fixed-width columns without nulls, about a microsecond a row."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fleetbatch.ledger.pool import Connection, statement

Arrays = Mapping[str, npt.NDArray[Any]]

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_CHUNK_ROWS: Final = 100_000
_WIDTHS: Final = {"i8": ">i8", "i4": ">i4", "i2": ">i2", "f8": ">f8", "f4": ">f4", "b1": "b1"}


def copy_out(connection: Connection, name: str, parameters: Mapping[str, Any], columns: Mapping[str, str]) -> Arrays:
    """Return a statement's rows as native arrays. `columns` maps each column in order to i8, i4, i2, f8, f4 or b1."""
    command = b"COPY (" + statement(name) + b") TO STDOUT (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(command, parameters) as copy:
        data = b"".join(bytes(block) for block in copy)
    record = _record(columns)
    assert data.startswith(_HEADER[:11]), "not a binary COPY"
    rows, rest = divmod(len(data) - len(_HEADER) - len(_TRAILER), record.itemsize)
    assert rest == 0, f"the columns of {name} are not what was said, or hold nulls"
    table = np.frombuffer(data, record, rows, len(_HEADER))
    return {column: table[column].astype(kind) for column, kind in columns.items()}


def copy_in(connection: Connection, name: str, arrays: Arrays, columns: Mapping[str, str]) -> None:
    """Send arrays of equal length by a `COPY ... FROM STDIN (FORMAT binary)`, inside the transaction that is open."""
    record = _record(columns)
    rows = len(next(iter(arrays.values())))
    with connection.cursor() as cursor, cursor.copy(statement(name)) as copy:
        copy.write(_HEADER)
        for first in range(0, rows, _CHUNK_ROWS):
            chunk = np.zeros(min(_CHUNK_ROWS, rows - first), record)
            chunk["_fields"] = len(columns)
            for column in columns:
                chunk[f"_{column}"] = record[column].itemsize
                chunk[column] = arrays[column][first : first + len(chunk)]
            copy.write(chunk.tobytes())
        copy.write(_TRAILER)


def _record(columns: Mapping[str, str]) -> np.dtype[Any]:
    """Return one row of the format: the number of fields, then each field's length and value, big-endian, packed."""
    fields: list[tuple[str, str]] = [("_fields", ">i2")]
    for column, kind in columns.items():
        fields += [(f"_{column}", ">i4"), (column, _WIDTHS[kind])]
    return np.dtype(fields)
