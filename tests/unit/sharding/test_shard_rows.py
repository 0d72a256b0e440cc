"""Rows become a sealed Parquet file, in memory that is used again, and come out of it as they went in."""

import base64
import random
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.contracts import contract
from fleetbatch.sealing import KEY_BYTES, unseal
from fleetbatch.sharding.cut_shard import Memory
from fleetbatch.sharding.group_items import GroupItems
from fleetbatch.sharding.hashed_file import HashedFile
from fleetbatch.sharding.shard_file import ShardFile, describe_shard, holds, write_shard
from fleetbatch.sharding.shard_rows import Row, dead_row, item_id
from fleetbatch.units import KIB, ShardId

SHARD = ShardId(7)
KEY = bytes(range(KEY_BYTES))
contents = st.one_of(st.binary(max_size=40), st.integers(0, 9).map(lambda n: bytes([n]) * 30_000))
read = st.builds(
    Row,
    content=contents,
    format=st.sampled_from([None, "JPEG"]),
    width=st.sampled_from([None, 5]),
    attributes=st.one_of(st.none(), st.text(max_size=3000)),
)
LARGE = [Row(content=bytes([number]) * 200_000) for number in range(4)]
"""Each fills a page."""
MODULES_A_GROUP = 2 * (2 + 6)
"""Of two rows of them: page and header for each, and for each column beside them."""
ITEM = 3
"""The module that is the first page of items: header and page of the ids come before, and its header."""
rows = st.lists(st.one_of(read, st.text(min_size=1, max_size=200).map(dead_row)), min_size=1, max_size=30)


@dataclass(slots=True, kw_only=True)
class Gathered:
    """An object in memory, of a store that takes pieces of one size, or all at once."""

    piece_bytes: int | None
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def add(self, piece: bytes | memoryview) -> None:
        """Take what comes next: nothing comes after a piece that was smaller."""
        assert not self.ended
        self.ended = self.piece_bytes is None or len(piece) < self.piece_bytes
        self.data += piece

    def keep(self) -> bool:
        """Keep it."""
        return True

    def drop(self) -> None:
        """Keep it anyhow: the test looks at it."""


def written(
    shards_rows: list[Row], groups: list[int], memory: Memory, *, piece_bytes: int | None = None
) -> tuple[ShardFile, bytes]:
    arrival = Gathered(piece_bytes=piece_bytes)
    items, file, told = GroupItems(memory.items), HashedFile(arrival, memory.file), iter(shards_rows)
    told_groups = [list(islice(told, size)) for size in groups]
    described = write_shard(told_groups, items, file, shard=SHARD, key=KEY, footer={})
    assert file.keep()
    return described, bytes(arrival.data)


def opened(sealed: bytes | memoryview) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(sealed), decryption_properties=unseal(KEY)) as file:
        return file.read()


def told(row: Row, number: int) -> dict[str, object]:
    names = ("format", "width", "height", "attributes", "error")
    return {"item_id": item_id(SHARD, number), "bytes": row.content, **{name: getattr(row, name) for name in names}}


@given(
    shards=st.lists(rows, min_size=1, max_size=3),
    piece_bytes=st.sampled_from([None, 1, 1000, 4096, 1 << 20]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_sealed_rows_come_out_as_they_went_in_whatever_was_there_before(
    shards: list[list[Row]], piece_bytes: int | None, data: st.DataObject
) -> None:
    memory = Memory()
    for shard in shards:
        first = data.draw(st.integers(1, len(shard)))
        groups = [size for size in (first, len(shard) - first) if size]
        described, sealed = written(shard, groups, memory, piece_bytes=piece_bytes)
        found = opened(sealed)
        assert found.schema.equals(contract("shard").schema)
        assert found.to_pylist() == [told(row, number) for number, row in enumerate(shard)]
        assert described == describe_shard(sealed, KEY)
        assert described.row_group_rows == tuple(groups)
        assert holds(sealed, [shard[:first], shard[first:]][: len(groups)], shard=SHARD, key=KEY)


def test_a_shard_may_have_hundreds_of_row_groups_and_a_row_group_hundreds_of_rows() -> None:
    many = [dead_row("gone"), *[Row(content=b"here")] * 499]
    for groups in ([1] * 500, [500]):
        described, sealed = written(many, groups, Memory())
        assert described == describe_shard(sealed, KEY)
        assert opened(sealed)["bytes"].to_pylist() == [None] + [b"here"] * 499


@pytest.mark.parametrize("size", [128 * KIB - 4, 128 * KIB, 1024 * KIB])
def test_an_item_as_large_as_a_page_or_larger_comes_out_as_it_went_in(size: int) -> None:
    large = random.Random(size).randbytes(size)
    described, sealed = written([Row(content=large), Row(content=b"small")], [2], Memory())
    assert opened(sealed)["bytes"].to_pylist() == [large, b"small"]
    assert described == describe_shard(sealed, KEY)


def test_a_row_that_is_empty_is_not_one_that_is_missing() -> None:
    _, sealed = written([Row(content=b""), Row(content=None)], [2], Memory())
    assert opened(sealed)["bytes"].to_pylist() == [b"", None]


@pytest.mark.parametrize(
    "others",
    [
        [[Row(content=b"a"), Row(content=b"c")]],
        [[Row(content=b"a"), Row(content=None)]],
        [[Row(content=b"a"), Row(content=b"b", error="no picture")]],
        [[Row(content=b"a")]],
        [[Row(content=b"a")], [Row(content=b"b")]],
        [[Row(content=b"a"), Row(content=b"b")], [Row(content=b"c")]],
        [],
    ],
)
def test_a_file_of_other_rows_is_told_from_one_that_holds_these(others: list[list[Row]]) -> None:
    _, sealed = written([Row(content=b"a"), Row(content=b"b")], [2], Memory())
    assert holds(sealed, [[Row(content=b"a"), Row(content=b"b")]], shard=SHARD, key=KEY)
    assert not holds(sealed, others, shard=SHARD, key=KEY)


def modules(sealed: bytes | memoryview) -> list[slice]:
    """Return where headers and pages lie, in the order of the file: by row group, column and page."""
    *_, end = describe_shard(sealed, KEY).row_group_stop
    found, place = [], len(b"PARE")
    while place < end:
        stop = place + 4 + int.from_bytes(sealed[place : place + 4], "little")
        found.append(slice(place, stop))
        place = stop
    assert place == end
    return found


def test_no_two_modules_are_sealed_under_one_nonce_not_even_those_of_the_same_rows() -> None:
    nonces: list[bytes] = []
    for _ in range(2):
        sealed = written(LARGE, [2, 2], Memory())[1]
        nonces += [sealed[module][4:16] for module in modules(sealed)]
    assert len(set(nonces)) == len(nonces) == 2 * 2 * MODULES_A_GROUP


@pytest.mark.parametrize("other", [ITEM + 2, ITEM + MODULES_A_GROUP])
def test_a_page_in_the_place_of_another_is_refused(other: int) -> None:
    sealed = written(LARGE, [2, 2], Memory())[1]
    first, second = (modules(sealed)[number] for number in (ITEM, other))
    moved = bytearray(sealed)
    moved[first], moved[second] = sealed[second], sealed[first]
    with pytest.raises((OSError, pa.ArrowException)):
        opened(bytes(moved))


def test_a_page_of_another_file_under_the_same_key_is_refused() -> None:
    sealed, other = (written(LARGE, [2, 2], Memory())[1] for _ in range(2))
    page = modules(sealed)[ITEM]
    with pytest.raises((OSError, pa.ArrowException)):
        opened(sealed[: page.start] + other[page] + sealed[page.stop :])


def test_another_reader_of_sealed_parquet_reads_a_shard_too(tmp_path: Path) -> None:
    """DuckDB opens no second page of a column: the items are small."""
    given_rows = [Row(content=b"first"), dead_row("gone"), Row(content=b"", format="PNG", width=2, attributes="{}")]
    path = tmp_path / "shard.parquet"
    path.write_bytes(written(given_rows, [2, 1], Memory())[1])
    with duckdb.connect() as database:
        database.execute(f"PRAGMA add_parquet_key('shard', '{base64.b64encode(KEY).decode()}')")
        names = ", ".join(contract("shard").schema.names)
        query = f"SELECT {names} FROM read_parquet('{path}', encryption_config = {{footer_key: 'shard'}})"
        assert database.execute(query).fetchall() == [
            tuple(row.values()) for row in opened(path.read_bytes()).to_pylist()
        ]
