"""Cutting one shard: its items are read, sealed and hashed row group by row group, and its file is created once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fleetbatch import layout
from fleetbatch.nouns import FrozenOrder
from fleetbatch.sealing import shard_key
from fleetbatch.sharding.cut import Entry, Plan, shard_id
from fleetbatch.sharding.group_items import GroupItems
from fleetbatch.sharding.hashed_file import HashedFile
from fleetbatch.sharding.openers import Input
from fleetbatch.sharding.scratch import Scratch
from fleetbatch.sharding.shard_file import ShardFile, describe_shard, holds, write_shard
from fleetbatch.sharding.shard_rows import Row, item_id
from fleetbatch.store import Store
from fleetbatch.units import ShardId, shard_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """All that the cutting of one shard needs, also in another process."""

    store: Store
    frozen: FrozenOrder
    given: Input
    secret: bytes
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class CutShard:
    """One shard that is in the store."""

    shard_id: ShardId
    file: ShardFile
    dead_rows: int
    uris: tuple[str, ...]
    """By row."""
    answers: tuple[int | None, ...]
    """By row: how many it must have, None when only computing it can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a worker keeps from shard to shard: room for a row group's items, and for what the store takes at once."""

    items: Scratch = field(default_factory=Scratch)
    file: Scratch = field(default_factory=Scratch)


def cut_shard(task: Task, memory: Memory) -> CutShard:
    """Read one shard's items, create its sealed file, and describe the stored file.

    A file that is there, from an interrupted cut or from one beside this, is kept where it holds these very rows; where
    it does not, since the source changed, it stays as it is and the shard has another id.
    """
    attempt = 0
    while (cut := _cut_as(task, attempt, memory)) is None:
        attempt += 1
    return cut


def _cut_as(task: Task, attempt: int, memory: Memory) -> CutShard | None:
    """Create the shard's file under an attempt's id, or keep what is there; None where that holds other rows."""
    shard = shard_id(task.frozen.key, task.frozen.order.cutting, task.plan.ordinal, attempt)
    key, name = shard_key(task.secret, shard), layout.shard(task.frozen.key, shard)
    if task.store.size(name) is None and (cut := _create(task, shard, name, key, memory)) is not None:
        return cut
    stored, rows = task.store.read(name), _Rows(task)
    return rows.cut(shard, describe_shard(stored, key)) if holds(stored, rows.groups(), shard=shard, key=key) else None


def _create(task: Task, shard: ShardId, name: str, key: bytes, memory: Memory) -> CutShard | None:
    """Create the shard's file, handed to the store as it is written; None where there is one by now."""
    arrival = task.store.arrival(name)
    try:
        items, file = GroupItems(memory.items), HashedFile(arrival, memory.file)
        rows = _Rows(task, items)
        written = write_shard(rows.groups(), items, file, shard=shard, key=key, footer=_footer(task, shard))
        return rows.cut(shard, written) if file.keep() else None
    finally:
        arrival.drop()


class _Rows:
    """A shard's rows as they are read, and what its file does not say of them."""

    def __init__(self, task: Task, items: GroupItems | None = None) -> None:
        """Begin with none; the items are read to `items`, where there are some."""
        self._task, self._items = task, items
        self._answers: list[int | None] = []
        self._dead_rows = 0

    def groups(self) -> Iterator[Iterator[Row]]:
        """Read the rows, row group by row group, each once."""
        return (self._read(entries) for entries in self._task.plan.row_groups)

    def cut(self, shard: ShardId, file: ShardFile) -> CutShard:
        """Return the shard, now that all of it was read and is in the store."""
        return CutShard(
            shard_id=shard,
            file=file,
            dead_rows=self._dead_rows,
            uris=tuple(entry.uri for group in self._task.plan.row_groups for entry in group),
            answers=tuple(self._answers),
        )

    def _read(self, entries: Iterable[Entry]) -> Iterator[Row]:
        bytes_max = self._task.frozen.order.cutting.shard_bytes
        for entry in entries:
            row = self._task.given.row(entry, bytes_max=bytes_max, items=self._items)
            self._answers.append(row.answers)
            self._dead_rows += row.error is not None
            yield row


def _footer(task: Task, shard: ShardId) -> dict[str, str]:
    rows = sum(len(group) for group in task.plan.row_groups)
    return {
        "workload": task.frozen.order.workload,
        "night": task.frozen.key.night,
        "order": str(task.frozen.key),
        "shard": shard_hex(shard),
        "rows": str(rows),
        "first_item_id": item_id(shard, 0),
        "last_item_id": item_id(shard, rows - 1),
    }
