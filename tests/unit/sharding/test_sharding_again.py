"""A cut may be interrupted, repeated, and done by several processes: its shards are the same."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
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
)

from fleetbatch import layout
from fleetbatch.engine import open_engine
from fleetbatch.nouns import Cutting
from fleetbatch.sharding import Progress, cut_order
from fleetbatch.store import Store, open_store


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
    for row in manifest.to_pylist():
        assert hashlib.sha256(store.read(row["key"])).hexdigest() == row["sha256"]


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
