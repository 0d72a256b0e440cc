"""A sealed file says of itself what pyarrow's writer says of the same rows, and nothing in it is changed unseen."""

import io
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import KEY, index_modules, modules, opened, written

from fleetbatch.contracts import contract
from fleetbatch.sealing import seal, unseal
from fleetbatch.sharding.cut_shard import Memory
from fleetbatch.sharding.plain_pages import ROWS_MAX
from fleetbatch.sharding.shard_rows import Row, dead_row
from fleetbatch.sharding.thrift import Kind, layout, listed, number

FEW = [
    Row(content=b"a" * 200_000, format="JPEG", width=1, height=-1),
    Row(content=b"b" * 200_000, attributes="{}"),
    Row(content=b""),
    dead_row("gone"),
]
SEALED = written(FEW, [2, 2], Memory())[1]
ITEMS = contract("shard").schema.names.index("bytes")
PAGE_HEADER, OFFSET_INDEX = 4, 7
"""Kinds of modules, as the format numbers them (Encryption.md)."""
FILE_ID_FOLLOWS = b"\x1c\x1c\x28\x08"
"""What stands before the file's eight bytes of id, in front of the footer."""


def as_pyarrow_writes(rows: pa.Table, group_rows: int) -> bytes:
    file = io.BytesIO()
    packed: Any = dict.fromkeys(rows.column_names, "snappy")
    packed["bytes"] = "none"
    pq.write_table(
        rows,
        file,
        row_group_size=group_rows,
        encryption_properties=seal(KEY),
        compression=packed,
        use_dictionary=False,
        write_statistics=False,
        write_page_index=True,
        store_schema=False,
        data_page_size=128 << 10,
        write_batch_size=1,
    )
    return file.getvalue()


def footer_of(sealed: bytes) -> pq.FileMetaData:
    with pq.ParquetFile(pa.BufferReader(sealed), decryption_properties=unseal(KEY)) as file:
        return file.metadata


def said(column: pq.ColumnChunkMetaData) -> list[object]:
    """Return what does not depend on where the column lies and how its headers are worded."""
    names = ("physical_type", "path_in_schema", "num_values", "compression", "is_stats_set", "has_offset_index")
    return [getattr(column, name) for name in names] + sorted(column.encodings)


def test_the_footer_says_what_pyarrows_own_says_of_the_same_rows() -> None:
    ours, theirs = footer_of(SEALED), footer_of(as_pyarrow_writes(opened(SEALED), 2))
    assert ours.schema.equals(theirs.schema)
    assert (ours.num_rows, ours.num_row_groups, ours.format_version) == (4, 2, theirs.format_version)
    assert ours.metadata is not None
    assert ours.metadata[b"format"] == b"fleetbatch-shard-1"
    for group in range(2):
        mine, other = ours.row_group(group), theirs.row_group(group)
        assert mine.num_rows == other.num_rows
        assert [said(mine.column(n)) for n in range(7)] == [said(other.column(n)) for n in range(7)]
        sizes = [(mine.column(n).total_uncompressed_size, other.column(n).total_uncompressed_size) for n in range(7)]
        assert all(abs(one - two) < 100 for one, two in sizes)


def test_a_page_has_the_very_header_that_pyarrow_gives_it() -> None:
    theirs = as_pyarrow_writes(opened(SEALED), 2)  # the ids come first there, here the items
    for ours_at, theirs_at, column, page in ((0, 2, ITEMS, 0), (2, 4, ITEMS, 1), (4, 0, 0, 0)):
        ours = unsealed(SEALED, modules(SEALED)[ours_at], PAGE_HEADER, 0, column, page)
        assert ours == unsealed(theirs, modules(theirs)[theirs_at], PAGE_HEADER, 0, column, page)


def test_the_page_index_says_where_every_page_lies_and_with_which_row_it_begins() -> None:
    first, _, second, last = modules(SEALED)[:4]  # headers and pages of the first row group's items
    index = index_modules(SEALED)
    assert len(index) == 2 * 7
    two_places = page_location(first.start, second.start, 0) + page_location(second.start, last.stop, 1)
    assert unsealed(SEALED, index[ITEMS], OFFSET_INDEX, 0, ITEMS) == b"\x19\x2c" + two_places + b"\0"


def unsealed(sealed: bytes, module: slice, kind: int, *place: int) -> bytes:
    """Return what a module holds, which opens only as what it is and in its own place."""
    id_at = sealed.index(FILE_ID_FOLLOWS, index_modules(sealed)[-1].stop) + len(FILE_ID_FOLLOWS)
    bound_to = sealed[id_at : id_at + 8] + bytes([kind]) + b"".join(part.to_bytes(2, "little") for part in place)
    return AESGCM(KEY).decrypt(sealed[module][4:16], sealed[module][16:], bound_to)


def page_location(start: int, stop: int, first_row: int) -> bytes:
    return b"\x16" + zigzag(start) + b"\x15" + zigzag(stop - start) + b"\x16" + zigzag(first_row) + b"\0"


def zigzag(value: int) -> bytes:
    """Return a number that is not negative in Thrift's words, worked out otherwise than the writer does."""
    digits, left = [], 2 * value
    while True:
        left, digit = divmod(left, 128)
        digits.append(digit + (128 if left else 0))
        if not left:
            return bytes(digits)


SMALL = written([Row(content=b"abc", width=1), dead_row("gone")], [1, 1], Memory())[1]
PAGES = range(4, index_modules(SMALL)[0].start)
"""Where headers and pages lie: between the format's name and the page index."""


def flipped(place: int, bit: int) -> bytes:
    return SMALL[:place] + bytes([SMALL[place] ^ 1 << bit]) + SMALL[place + 1 :]


@given(place=st.sampled_from(PAGES), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_a_bit_that_is_flipped_in_a_page_or_its_header_is_refused(place: int, bit: int) -> None:
    with pytest.raises((OSError, pa.ArrowException)):
        opened(flipped(place, bit))


@given(place=st.sampled_from([n for n in range(len(SMALL)) if n not in PAGES]), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_bit_that_is_flipped_elsewhere_is_refused_or_changes_no_row(place: int, bit: int) -> None:
    """No reader of all rows looks at the page index, nor pyarrow at the format's name in front."""
    with suppress(OSError, pa.ArrowException):
        assert opened(flipped(place, bit)).equals(opened(SMALL))


def test_more_rows_than_a_page_holds_are_written_in_several_pages_of_every_column() -> None:
    rows = [dead_row(f"gone {n}") if n % 3 == 0 else Row(content=b"x", width=n) for n in range(2 * ROWS_MAX + 5)]
    rows[:ROWS_MAX] = [Row(content=b"")] * ROWS_MAX
    _, sealed = written(rows, [len(rows)], Memory())
    found = opened(sealed)
    assert found["bytes"].to_pylist() == [row.content for row in rows]
    assert found["width"].to_pylist() == [row.width for row in rows]
    assert found["error"].to_pylist() == [row.error for row in rows]
    assert len(modules(sealed)) == 2 * 7 * 3


@pytest.mark.parametrize(
    ("written_as", "wanted"),
    [
        (number(0), b"\0"),
        (number(63), b"\x7e"),
        (number(64), b"\x80\x01"),
        (number(1 << 31), b"\x80\x80\x80\x80\x10"),
        (listed(Kind.I32, [number(1)] * 14), b"\xe5" + b"\x02" * 14),
        (listed(Kind.I32, [number(1)] * 15), b"\xf5\x0f" + b"\x02" * 15),
        (layout({1: Kind.I32, 3: Kind.I32, 10: Kind.STRUCT}) % (b"a", b"b", b"c"), b"\x15a\x25b\x7cc\0"),
    ],
)
def test_numbers_lists_and_structs_are_written_as_thrift_says(written_as: bytes, wanted: bytes) -> None:
    assert written_as == wanted
