"""PostgreSQL's binary COPY from and to numpy arrays: fixed-width columns without nulls, a microsecond a row."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fleetbatch.ledger.pool import Connection, statement

Arrays = Mapping[str, npt.NDArray[Any]]

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_CHUNK_ROWS: Final = 100_000
_PIECE_ROWS: Final = 65_536
_PIECE: Final = struct.Struct(">hiqi")
"""What precedes a piece's bytes: two fields, eight bytes of count, and how many bytes come."""
_PACKED: Final = """
COPY (
    SELECT count(*), string_agg({packed}, '')
    FROM (SELECT *, (row_number() OVER () - 1) / {piece} AS piece FROM (STATEMENT) AS s) AS q
    GROUP BY piece ORDER BY piece
) TO STDOUT (FORMAT binary)"""
_SENT: Final = {
    "i8": "int8send",
    "i4": "int4send",
    "i2": "int2send",
    "f8": "float8send",
    "b1": "boolsend",
}
_WIDTHS: Final = {"i8": ">i8", "i4": ">i4", "i2": ">i2", "f8": ">f8", "b1": "b1"}


def copy_out(connection: Connection, name: str, parameters: Mapping[str, Any], columns: Mapping[str, str]) -> Arrays:
    """Return a statement's rows as native arrays. `columns` maps each column in order to i8, i4, i2, f8 or b1.

    The server packs rows into pieces: a driver that is handed each row takes a microsecond of its process for it, with
    the interpreter's lock, while a gateway's cars wait.
    """
    packed = " || ".join(f"{_SENT[kind]}(q.{column})" for column, kind in columns.items())
    command = _PACKED.format(packed=packed, piece=_PIECE_ROWS).encode().replace(b"STATEMENT", statement(name))
    with connection.cursor() as cursor, cursor.copy(command, parameters) as copy:
        data = b"".join(bytes(block) for block in copy)
    record = np.dtype([(column, _WIDTHS[kind]) for column, kind in columns.items()])
    pieces = [np.ndarray(rows, record, piece) for rows, piece in _pieces(name, data, record.itemsize)]
    return {
        column: np.concatenate([np.empty(0, kind), *(piece[column] for piece in pieces)], dtype=kind)
        for column, kind in columns.items()
    }


def _pieces(name: str, data: bytes, width: int) -> Iterator[tuple[int, memoryview]]:
    """Walk the rows of a binary COPY that hold a count of rows and their bytes."""
    assert data.startswith(_HEADER[:11]), "not a binary COPY"
    at, view = len(_HEADER), memoryview(data)
    while data[at : at + 2] != _TRAILER:
        _, _, rows, size = _PIECE.unpack_from(data, at)
        assert size == rows * width, f"a column of {name} holds a null"
        at += _PIECE.size + size
        yield rows, view[at - size : at]


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
