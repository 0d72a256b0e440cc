"""Rows are gathered in memory that is used again, and come out as they went in."""

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.sealing import KEY_BYTES, unseal
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.sharding.shard_file import describe_shard, sealed_shard
from fleetbatch.sharding.shard_rows import Row, ShardRows, dead_row, item_id
from fleetbatch.units import ShardId

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
rows = st.lists(st.one_of(read, st.text(min_size=1, max_size=200).map(dead_row)), min_size=1, max_size=30)


def gathered(given_rows: list[Row], memory: Scratch, expected_bytes: int, expected_rows: int = 0) -> ShardRows:
    gathering = ShardRows(memory, expected_bytes, rows=expected_rows, groups=1)
    for row in given_rows:
        gathering.add(row)
    return gathering


def opened(sealed: memoryview) -> list[dict[str, object]]:
    with pq.ParquetFile(pa.BufferReader(sealed), decryption_properties=unseal(KEY)) as file:
        return file.read().to_pylist()


def told(row: Row, number: int) -> dict[str, object]:
    names = ("format", "width", "height", "attributes", "error")
    return {"item_id": item_id(SHARD, number), "bytes": row.content, **{name: getattr(row, name) for name in names}}


@given(
    shards=st.lists(rows, min_size=1, max_size=3),
    expected_bytes=st.sampled_from([0, 100, 1 << 20]),
    expected_rows=st.sampled_from([0, 30]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_sealed_rows_come_out_as_they_went_in_however_few_were_expected_and_whatever_was_there_before(
    shards: list[list[Row]], expected_bytes: int, expected_rows: int, data: st.DataObject
) -> None:
    memory = Scratch()
    for shard in shards:
        first = data.draw(st.integers(1, len(shard)))
        groups = [size for size in (first, len(shard) - first) if size]
        gathering = gathered(shard, memory, expected_bytes, expected_rows)
        sealed = sealed_shard(SHARD, gathering, groups, key=KEY, footer={})
        assert opened(sealed.data) == [told(row, number) for number, row in enumerate(shard)]
        assert sealed.file == describe_shard(sealed.data, KEY)
        assert sealed.file.row_group_rows == tuple(groups)
        assert gathering.dead == sum(row.error is not None for row in shard)


def test_room_is_reserved_for_a_row_group_in_every_row() -> None:
    many = gathered([dead_row("gone")] * 500, Scratch(), 0)
    sealed = sealed_shard(SHARD, many, [1] * 500, key=KEY, footer={})
    assert len(describe_shard(sealed.data, KEY).row_group_start) == 500


def test_a_row_that_is_empty_is_not_one_that_is_missing() -> None:
    both = gathered([Row(content=b""), Row(content=None)], Scratch(), 0)
    assert both.table(SHARD, [2])["bytes"].to_pylist() == [b"", None]
