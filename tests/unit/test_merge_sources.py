"""The sources of an order as the merge reads them: the rows of its shards, wherever the file's row groups end."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetbatch import layout
from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.merge.sources import SourceRows
from fleetbatch.nouns import OrderKey
from fleetbatch.store import MissingObject, Store, open_store
from fleetbatch.units import Night, OrderName, ShardId

ORDER = OrderKey(night=Night("2026-11-22"), order=OrderName("signs"), generation=1)
SHARDS = [(ShardId(7), 3), (ShardId(2), 1), (ShardId(2**63 - 1), 4)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store", deployment_key=b"k" * 32)


def keep_sources(store: Store, row_group_rows: int) -> pa.Table:
    rows = [
        {"item_id": f"{shard}-{row}", "shard_id": shard, "row_group": 0, "source_uri": f"file:///{row}", "answers": 1}
        for shard, many in SHARDS
        for row in range(many)
    ]
    table = conform(pa.Table.from_pylist(rows), "sources")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=row_group_rows)
    store.write(layout.sources(ORDER), sink.getvalue().to_pybytes())
    return table


@pytest.mark.parametrize("row_group_rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("first_shard", [0, 1, 2])
def test_shards_are_read_one_after_the_other_wherever_row_groups_end(
    store: Store, row_group_rows: int, first_shard: int
) -> None:
    table, start = keep_sources(store, row_group_rows), sum(rows for _, rows in SHARDS[:first_shard])
    sources = SourceRows(store, ORDER, start)
    sources.refuse_others(SHARDS[first_shard:])
    for _, rows in SHARDS[first_shard:]:
        assert sources.take(rows).equals(table.slice(start, rows))
        start += rows


@pytest.mark.parametrize(
    ("shards", "named"),
    [
        ([(ShardId(7), 2), (ShardId(2), 2)], {"shard 0000000000000002"}),
        ([(ShardId(7), 3), (ShardId(3), 1)], {"shard 0000000000000002", "shard 0000000000000003"}),
        ([*SHARDS, (ShardId(9), 1)], {"shard 0000000000000009"}),
    ],
)
def test_sources_of_other_shards_are_refused_by_the_shards_names(
    store: Store, shards: list[tuple[ShardId, int]], named: set[str]
) -> None:
    keep_sources(store, 3)
    with pytest.raises(RejectedError, match="not those of its manifest") as refused:
        SourceRows(store, ORDER, 0).refuse_others(shards)
    assert set(refused.value.problems) == named


def test_an_order_without_sources_is_named(store: Store) -> None:
    with pytest.raises(MissingObject, match=layout.sources(ORDER)):
        SourceRows(store, ORDER, 0)
