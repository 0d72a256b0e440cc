"""What cars say of themselves, one Parquet file a minute; nonsense becomes null and never stops a file."""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import IO, Any, Final, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from fleetbatch.contracts import conform, contract
from fleetbatch.gateway.hearing import Heard, Piece, Rows
from fleetbatch.ledger.machine import REFUSED
from fleetbatch.logs import say
from fleetbatch.protocol import BeatRequest, Hardware, PollRequest, ReleaseRequest

_VSS: Final = "Vehicle."
_INSTANTS: Final = ("departure_at", "next_trip_at")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PollRequest).decode


def without_vehicle(message: msgspec.Struct) -> msgspec.Struct:
    """Return a message without what the vehicle and its owner's plans say; what is needed to compute stays.

    A car tells in words, too, how fast it drives and how full its battery is: why it will not compute, why it lets go.
    """
    match message:
        case PollRequest():
            return msgspec.structs.replace(
                message, signals={}, unwilling_reason="", departure_at=None, next_trip_at=None
            )
        case BeatRequest():
            return msgspec.structs.replace(message, signals={})
        case ReleaseRequest(reason=reason) if reason != REFUSED:
            return msgspec.structs.replace(message, detail="")
        case _:
            return message


def signals_table(rows: Rows) -> pa.Table:
    """Return what was heard per contract `signals`; unknown names are left out, values of another type are null."""
    tables = [table for piece in rows.pieces for table in _tables(piece)]
    return conform(pa.concat_tables([contract("signals").schema.empty_table(), *tables]), "signals")


def signals_file(rows: Rows) -> bytes:
    """Return the Parquet file of what was heard."""
    sink = io.BytesIO()
    pq.write_table(signals_table(rows), sink, compression="zstd")
    return sink.getvalue()


def _tables(piece: Piece) -> Iterator[pa.Table]:
    """Give a piece's tables: one where every car says what it should."""
    try:
        yield _table(piece.cars, piece.instants, piece.lines)
    except (pa.ArrowException, ValueError):
        yield from _mended_tables(list(piece))


def _mended_tables(rows: Sequence[Heard]) -> Iterator[pa.Table]:
    """Give the tables of mended rows; a row that no column can hold is named in the log and costs only itself."""
    try:
        lines = b"\n".join([_mended(row.said) for row in rows])
        yield _table([row.car_id for row in rows], [row.at for row in rows], lines)
    except (pa.ArrowException, msgspec.MsgspecError, ValueError) as error:
        if len(rows) > 1:
            half = len(rows) // 2
            yield from _mended_tables(rows[:half])
            yield from _mended_tables(rows[half:])
        else:
            say("signals dropped", level=logging.ERROR, car=rows[0].car_id, detail=str(error))


def _table(cars: Sequence[int], instants: Sequence[datetime], lines: bytes | memoryview) -> pa.Table:
    asked = pj.ParseOptions(explicit_schema=_message_schema(), unexpected_field_behavior="ignore")
    source = cast("IO[Any]", pa.BufferReader(lines))  # pyarrow's own file, which its types leave out
    said = pj.read_json(source, read_options=pj.ReadOptions(use_threads=False), parse_options=asked)
    columns: dict[str, Any] = {name: said.column(name) for name in said.column_names}
    columns |= _fields(columns.pop("signals")) | _fields(columns.pop("hardware"))
    columns |= {name: _instants(columns[name]) for name in _INSTANTS}
    columns |= {name: pc.coalesce(columns[name], usual) for name, usual in _usual().items()}
    reason = columns["unwilling_reason"]
    columns["unwilling_reason"] = pc.if_else(pc.equal(reason, pa.scalar("")), pa.scalar(None, pa.string()), reason)
    columns["car_id"] = pa.array(np.asarray(cars, np.uint64))
    columns["at"] = pa.array(instants, pa.timestamp("us", "UTC"))
    schema = contract("signals").schema
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


@cache
def _message_schema() -> pa.Schema:
    """Return of a poll's fields those that the contract asks for, nested as they are sent; a car may leave out some."""
    may_miss = _usual()
    wanted = [
        field.with_nullable(True) if field.name in may_miss else field  # noqa: FBT003 # it takes no name
        for field in contract("signals").schema
    ]
    inside = [field for field in wanted if field.name in Hardware.__struct_fields__]
    signals = [field for field in wanted if field.name.startswith(_VSS)]
    plain = [field for field in wanted if field.name in PollRequest.__struct_fields__ and field.name not in _INSTANTS]
    nested = [pa.field("signals", pa.struct(signals)), pa.field("hardware", pa.struct(inside))]
    return pa.schema([*plain, *(pa.field(name, pa.string()) for name in _INSTANTS), *nested])


@cache
def _usual() -> dict[str, Any]:
    """Return what a message means that leaves a field out."""
    return {
        field.name: pa.scalar(
            field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory(), wanted.type
        )
        for kind in (PollRequest, Hardware)
        for field in msgspec.structs.fields(kind)
        for wanted in contract("signals").schema
        if wanted.name == field.name and wanted.name not in _INSTANTS and not field.required
    }


def _fields(structs: "pa.ChunkedArray[Any]") -> dict[str, Any]:
    return {field.name: pc.struct_field(structs, [n]) for n, field in enumerate(structs.type)}


def _mended(line: bytes) -> bytes:
    """Return a message without the signals that are not of their type."""
    message = _decode(line)
    kinds = {field.name: field.type for field in contract("signals").schema}
    good = {name: _signal(value, kinds[name]) for name, value in message.signals.items() if name in kinds}
    return _encode(msgspec.structs.replace(message, signals=good))


def _signal(value: object, kind: pa.DataType) -> float | bool | None:
    if pa.types.is_boolean(kind):
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _instants(texts: "pa.ChunkedArray[Any]") -> "pa.Array[Any]":
    return pa.array([_instant(text) for text in texts.to_pylist()], pa.timestamp("us", "UTC"))


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = msgspec.convert(text, datetime)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (msgspec.ValidationError, OverflowError):
        return None
