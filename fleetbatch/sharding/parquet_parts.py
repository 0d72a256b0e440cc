"""What a sealed Parquet file consists of, as bytes: levels, values, page headers, index and footer. Pure.

Field numbers and codes are those of parquet.thrift of Apache Parquet 2.12, levels and values those of Encodings.md.
"""

import struct as packing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa

from fleetbatch.sharding.thrift import Value, binary, i16, i32, i64, listed, struct, varint

MAGIC: Final = b"PARE"
"""A file whose footer is encrypted begins and ends so."""
LENGTH: Final = packing.Struct("<I")
_PLAIN, _RLE = 0, 3
_REQUIRED, _OPTIONAL = 0, 1
_UTF8: Final = 0
_INT32, _BYTE_ARRAY = 1, 6
_TYPES: Final[Mapping[pa.DataType, int]] = {pa.int32(): _INT32, pa.string(): _BYTE_ARRAY, pa.binary(): _BYTE_ARRAY}
_CREATED_BY: Final = "fleetbatch version 1"
_ENCODED: Final = {2: i32(_PLAIN), 3: i32(_RLE), 4: i32(_RLE)}
_WITH_FOOTER_KEY: Final = struct({1: struct({})})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Where a page lies: its header and itself, both sealed."""

    start: int
    size_bytes: int
    plain_bytes: int
    """Header and page, neither compressed nor sealed."""
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One column of a row group; its pages lie one behind the other."""

    pages: Sequence[Page]
    start: int
    size_bytes: int
    plain_bytes: int
    rows: int
    compressed: bool
    """With Snappy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Where the page index of a chunk lies."""

    start: int
    size_bytes: int


def chunk_of(pages: Sequence[Page], *, compressed: bool) -> Chunk:
    """Return the chunk that pages make, at least one."""
    return Chunk(
        pages=pages,
        start=pages[0].start,
        size_bytes=sum([page.size_bytes for page in pages]),
        plain_bytes=sum([page.plain_bytes for page in pages]),
        rows=sum([page.rows for page in pages]),
        compressed=compressed,
    )


def levels(there: Sequence[bool]) -> bytes:
    """Return which rows of a page have a value: one run where all have one or none has, else a bit for each."""
    if len(set(there)) <= 1:
        runs = varint(len(there) << 1) + bytes(there[:1])
    else:
        eights = -(-len(there) // 8)
        bits = int("".join("1" if one else "0" for one in reversed(there)), 2)
        runs = varint(eights << 1 | 1) + bits.to_bytes(eights, "little")
    return LENGTH.pack(len(runs)) + runs


def levels_bytes_max(rows: int) -> int:
    """Return how long the levels of so many rows are at most."""
    return LENGTH.size + len(varint(rows << 1)) + rows // 8 + 1


def plain_values(values: Sequence[Any], kind: pa.DataType) -> bytes:
    """Return the values that are there, one after the other."""
    there = [value for value in values if value is not None]
    if kind == pa.int32():
        return packing.pack(f"<{len(there)}i", *there)
    texts = [text.encode() for text in there]
    return b"".join(part for text in texts for part in (LENGTH.pack(len(text)), text))


def page_header(*, rows: int, plain_bytes: int, stored_bytes: int) -> bytes:
    """Return the header of a data page of so many rows; `stored_bytes` are what follows it."""
    _, data = struct({1: i32(0), 2: i32(plain_bytes), 3: i32(stored_bytes), 5: struct({1: i32(rows), **_ENCODED})})
    return data


def offset_index(chunk: Chunk) -> bytes:
    """Return where each page of a chunk lies, and with which row it begins."""
    first_rows = accumulate((page.rows for page in chunk.pages), initial=0)
    places = [
        struct({1: i64(page.start), 2: i32(page.size_bytes), 3: i64(row)})
        for page, row in zip(chunk.pages, first_rows, strict=False)
    ]
    _, data = struct({1: listed(places)})
    return data


def crypto_metadata(file_unique: bytes) -> bytes:
    """Return how the file is sealed: AES_GCM_V1, with a name of its own in every module."""
    _, data = struct({1: struct({1: struct({2: binary(file_unique)})})})
    return data


def footer(schema: pa.Schema, groups: Sequence[Sequence[tuple[Chunk, Index | None]]], said: Mapping[str, str]) -> bytes:
    """Return the footer of a file with these row groups, each with a chunk for every column of the schema."""
    root = struct({3: i32(_REQUIRED), 4: binary("schema"), 5: i32(len(schema))})
    named = [_named(one) for one in schema]
    _, data = struct(
        {
            1: i32(2),
            2: listed([root, *(_column(one) for one in schema)]),
            3: i64(sum(chunks[0][0].rows for chunks in groups)),
            4: listed([_row_group(named, chunks, ordinal) for ordinal, chunks in enumerate(groups)]),
            5: listed([struct({1: binary(name), 2: binary(text)}) for name, text in said.items()]),
            6: binary(_CREATED_BY),
        }
    )
    return data


def _column(one: "pa.Field[Any]") -> Value:
    fields = {
        1: i32(_TYPES[one.type]),
        3: i32(_OPTIONAL if one.nullable else _REQUIRED),
        4: binary(one.name),
    }
    text = {6: i32(_UTF8), 10: struct({1: struct({})})} if one.type == pa.string() else {}
    return struct({**fields, **text})


def _named(one: "pa.Field[Any]") -> dict[int, Value]:
    """Return what every chunk of a column says of itself."""
    return {1: i32(_TYPES[one.type]), 2: listed([i32(_PLAIN), i32(_RLE)]), 3: listed([binary(one.name)])}


def _row_group(named: Sequence[dict[int, Value]], chunks: Sequence[tuple[Chunk, Index | None]], ordinal: int) -> Value:
    return struct(
        {
            1: listed([_chunk(name, chunk, index) for name, (chunk, index) in zip(named, chunks, strict=True)]),
            2: i64(sum(chunk.plain_bytes for chunk, _ in chunks)),
            3: i64(chunks[0][0].rows),
            5: i64(min(chunk.start for chunk, _ in chunks)),
            6: i64(sum(chunk.size_bytes for chunk, _ in chunks)),
            7: i16(ordinal),
        }
    )


def _chunk(named: dict[int, Value], chunk: Chunk, index: Index | None) -> Value:
    sizes = {
        4: i32(int(chunk.compressed)),
        5: i64(chunk.rows),
        6: i64(chunk.plain_bytes),
        7: i64(chunk.size_bytes),
        9: i64(chunk.start),
    }
    offsets = {} if index is None else {4: i64(index.start), 5: i32(index.size_bytes)}
    return struct({2: i64(0), 3: struct({**named, **sizes}), **offsets, 8: _WITH_FOOTER_KEY})
