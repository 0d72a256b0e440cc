"""Sealed shard files in the tests of them: written, opened again, and taken apart into what was sealed by itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.sealing import KEY_BYTES, unseal
from fleetbatch.sharding.cut_shard import Memory
from fleetbatch.sharding.hashed_file import HashedFile
from fleetbatch.sharding.item_page import ItemPage
from fleetbatch.sharding.shard_file import ShardFile, describe_shard, write_shard
from fleetbatch.sharding.shard_rows import Row
from fleetbatch.units import ShardId

SHARD = ShardId(7)
KEY = bytes(range(KEY_BYTES))


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
    rows: list[Row], groups: list[int], memory: Memory, *, piece_bytes: int | None = None
) -> tuple[ShardFile, bytes]:
    """Return a file of rows, so many to each row group, as it is described and as it is."""
    told = iter(rows)
    told_groups = [list(islice(told, size)) for size in groups]
    return written_from(told_groups, ItemPage(memory.items), memory, piece_bytes=piece_bytes)


def written_from(
    groups: Iterable[Iterable[Row]], items: ItemPage, memory: Memory, *, piece_bytes: int | None = None
) -> tuple[ShardFile, bytes]:
    """Return a file of rows that are read to `items`."""
    arrival = Gathered(piece_bytes=piece_bytes)
    file = HashedFile(arrival, memory.file)
    described = write_shard(groups, items, file, shard=SHARD, key=KEY, footer={})
    assert file.keep()
    return described, bytes(arrival.data)


def opened(sealed: bytes | memoryview) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(sealed), decryption_properties=unseal(KEY)) as file:
        return file.read()


def modules(sealed: bytes | memoryview) -> list[slice]:
    """Return where headers and pages lie, in the order of the file: by row group, column and page."""
    *_, end = describe_shard(sealed, KEY).row_group_stop
    return list(_modules(sealed, 4, end))


def index_modules(sealed: bytes | memoryview) -> list[slice]:
    """Return where the page index lies, by row group and column."""
    *_, start = describe_shard(sealed, KEY).row_group_stop
    return list(_modules(sealed, start, len(sealed) - 8 - int.from_bytes(sealed[-8:-4], "little")))


def _modules(sealed: bytes | memoryview, start: int, end: int) -> Iterator[slice]:
    place = start
    while place < end:
        stop = place + 4 + int.from_bytes(sealed[place : place + 4], "little")
        yield slice(place, stop)
        place = stop
    assert place == end
