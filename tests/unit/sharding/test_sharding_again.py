"""A cut may be interrupted, repeated, and done by several processes: its shards are the same."""

import hashlib
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cuts import (
    ONE_CELL,
    SECRET,
    all_rows,
    cut,
    frozen_order,
    picture,
    shard_ids,
)

from fleetbatch import layout
from fleetbatch.engine import open_engine
from fleetbatch.errors import TransientError
from fleetbatch.nouns import Cutting, FrozenOrder
from fleetbatch.sharding import Progress, cut_order, open_input
from fleetbatch.sharding.cut import Entry, plan_shards
from fleetbatch.sharding.cut_shard import Memory, Task, cut_shard
from fleetbatch.sharding.openers import Files, Opener, Reader
from fleetbatch.sharding.shard_rows import Row
from fleetbatch.sharding.sources import Source
from fleetbatch.store import Store, open_store
from fleetbatch.units import ShardId


def test_cutting_twice_is_cutting_once(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    first = cut(store, frozen)
    files = {key: store.read(key) for key in store.keys("")}
    (folder / "later.png").write_bytes(picture())
    assert cut(store, frozen).equals(first)
    assert {key: store.read(key) for key in store.keys("")} == files


def test_an_interrupted_cut_keeps_the_files_it_made_and_describes_what_is_stored(store: Store, folder: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop_after_two(progress: Progress) -> None:
        if progress.shards == 2:
            raise StoppedError

    frozen = frozen_order(folder)
    with pytest.raises(StoppedError):
        cut_order(store, frozen, secret=SECRET, shares=ONE_CELL, progress=stop_after_two)
    assert store.size(layout.manifest(frozen.key)) is None
    kept = {key: store.read(key) for key in store.keys("")}
    assert len(kept) == 2
    manifest = cut(store, frozen)
    assert manifest.num_rows == 3
    assert {key: store.read(key) for key in kept} == kept
    assert {row["key"] for row in manifest.to_pylist()} == set(shard_keys(store, frozen))
    for row in manifest.to_pylist():
        assert hashlib.sha256(store.read(row["key"])).hexdigest() == row["sha256"]


def shard_keys(store: Store, frozen: FrozenOrder) -> list[str]:
    folder = layout.shard(frozen.key, ShardId(0)).rpartition("/")[0]
    return list(store.keys(f"{folder}/"))


def test_a_file_that_another_cut_made_of_a_source_that_changed_since_stays_and_the_shard_has_another_id(
    store: Store, folder: Path
) -> None:
    frozen = frozen_order(folder)
    before = cut(store, frozen)
    files = {key: store.read(key) for key in shard_keys(store, frozen)}
    store.delete(layout.manifest(frozen.key))
    path = folder / "0" / "00.png"
    path.write_bytes(picture(mode="L", shade=99).ljust(path.stat().st_size, b"\0"))
    after = cut(store, frozen)
    assert {key: store.read(key) for key in files} == files
    assert [old == new for old, new in zip(shard_ids(before), shard_ids(after), strict=True)] == [False, True, True]
    assert path.read_bytes() in all_rows(store, frozen, after)["bytes"].to_pylist()
    assert path.read_bytes() not in all_rows(store, frozen, before)["bytes"].to_pylist()


def test_a_file_that_does_not_open_is_not_described(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    first, *others = (str(row["key"]) for row in cut(store, frozen).to_pylist())
    store.delete(layout.manifest(frozen.key))
    store.write(first, store.read(first)[:-1])
    again = cut(store, frozen)["key"].to_pylist()
    assert again[0] != first
    assert again[1:] == others


@dataclass(frozen=True)
class Meanwhile:
    """Opens rows as the files they are, and before each of them another cuts the same shard."""

    other: Task
    expects: str = "files"

    def entries(self, source: Source) -> Iterator[Entry]:
        return self.other.given.opener.entries(source)

    def row(self, source: Reader, entry: Entry) -> Row:
        cut_shard(self.other, Memory())
        return self.other.given.opener.row(source, entry)


def test_a_shard_that_another_stored_while_we_read_it_is_the_other_ones_file(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    given = open_input("image", str(folder), {})
    plan = next(plan_shards(given.entries(), frozen.order.cutting))
    other = Task(store=store, frozen=frozen, given=given, secret=SECRET, plan=plan)
    late = replace(other, given=replace(given, opener=Meanwhile(other)))
    ours = cut_shard(late, Memory())
    [key] = shard_keys(store, frozen)
    assert ours == cut_shard(other, Memory())
    assert ours.file.sha256 == hashlib.sha256(store.read(key)).hexdigest()


@dataclass(frozen=True)
class Stopped:
    """An opener under which a person stops the cut after so many bytes."""

    good_bytes: int
    seen_bytes: list[int]
    meanwhile: Callable[[], None]
    expects: str = "files"

    def entries(self, source: Source) -> Iterator[Entry]:
        return source.entries()

    def row(self, source: Reader, entry: Entry) -> Row:
        self.seen_bytes.append(entry.size_bytes)
        if sum(self.seen_bytes) > self.good_bytes:
            self.meanwhile()
            raise KeyboardInterrupt
        return Row(content=source.view(entry))


def large_shard(store: Store, folder: Path, opener: Opener) -> Task:
    """Return the cutting of a shard of twelve megabytes: a store takes it in several pieces."""
    folder.mkdir()
    for name in range(4):
        (folder / str(name)).write_bytes(bytes([name]) * (3 << 20))
    frozen = frozen_order(folder, cutting=Cutting())
    given = replace(open_input("image", str(folder), {}), opener=opener)
    [plan] = plan_shards(given.entries(), Cutting())
    return Task(store=store, frozen=frozen, given=given, secret=SECRET, plan=plan)


def left_in(store: Store) -> list[Path]:
    """Return every file under a folder's store, half-written ones too."""
    return [path for path in Path(store.uri("x")).parent.rglob("*") if path.is_file()]


def test_nothing_is_left_of_a_shard_that_was_half_written_when_its_cut_was_stopped(
    store: Store, tmp_path: Path
) -> None:
    half_written: list[Path] = []
    stopped = Stopped(good_bytes=10 << 20, seen_bytes=[], meanwhile=lambda: half_written.extend(left_in(store)))
    with pytest.raises(KeyboardInterrupt):
        cut_shard(large_shard(store, tmp_path / "in", stopped), Memory())
    assert len(half_written) == 1
    assert left_in(store) == []


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_a_store_that_takes_no_more_ends_a_cut_to_be_tried_again_and_keeps_nothing_of_it(
    store: Store, tmp_path: Path
) -> None:
    task = large_shard(store, tmp_path / "in", Files({}))
    with files_of_at_most(5 << 20), pytest.raises(TransientError, match="too large"):
        cut_shard(task, Memory())
    assert left_in(store) == []
    assert cut_shard(task, Memory()).file.size_bytes > 12 << 20


def test_sources_of_an_interrupted_cut_are_replaced_when_the_input_changed(store: Store, folder: Path) -> None:
    frozen = frozen_order(folder)
    cut(store, frozen)
    store.delete(layout.manifest(frozen.key))
    (folder / "0" / "000.png").write_bytes(picture(mode="L", shade=99))
    manifest = cut(store, frozen)
    sources = pq.read_table(pa.BufferReader(store.read(layout.sources(frozen.key))))
    assert sources["item_id"].to_pylist() == all_rows(store, frozen, manifest)["item_id"].to_pylist()


def test_the_processes_of_an_engine_cut_the_same_shards(store: Store, folder: Path, tmp_path: Path) -> None:
    frozen = frozen_order(folder)
    other = open_store(f"file://{tmp_path / 'other'}", deployment_key=SECRET)
    seen: list[Progress] = []
    with open_engine("local") as engine:
        ours = cut_order(other, frozen, secret=SECRET, shares=ONE_CELL, engine=engine, progress=seen.append)
    assert ours["shard_id"].equals(cut(store, frozen)["shard_id"])
    assert (seen[-1].shards, seen[-1].rows) == (3, 12)


def test_threads_of_an_engine_cut_at_the_same_time_and_each_item_stays_its_own(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    frozen = frozen_order(folder, cutting=Cutting(shard_rows=1))
    other = open_store(f"file://{tmp_path / 'other'}", deployment_key=SECRET)
    with ThreadPoolExecutor(4) as engine:
        manifest = cut_order(other, frozen, secret=SECRET, shares=ONE_CELL, engine=engine)
    assert all_rows(other, frozen, manifest).equals(all_rows(store, frozen, cut(store, frozen)))
