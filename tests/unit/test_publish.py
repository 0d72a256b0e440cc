"""Publishing: one commit per night, readable at every moment, the same after any kill and any retry."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from result_nights import NOW, ResultNight, frozen_order, missing_shards

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.merge import merge_order
from fleetbatch.nouns import FrozenOrder, Merged
from fleetbatch.publish import Published, how_to_open, publish_order, published_files
from fleetbatch.store import Store, open_store
from fleetbatch.units import Night, OrderName, ShardId

NAME = OrderName("signs")


def open_at(folder: Path) -> Store:
    return open_store(f"file://{folder}/store", deployment_key=b"k" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_at(tmp_path)


def checked_night(store: Store, *, rows: int = 3, missing: bool = False, **which: Any) -> tuple[FrozenOrder, Merged]:
    """Merge a night of one shard (and one more that nobody computed) and let it pass its checks."""
    shard = int(hashlib.sha256(repr(which).encode()).hexdigest()[:15], 16)
    shards = {shard: [rows]} | ({shard + 1: [2]} if missing else {})
    night = ResultNight(store, shards, frozen_order(**which))
    night.deliver(shard, 0, 1)
    reasons = missing_shards({shard + 1: "deadline"} if missing else {})
    merged = merge_order(store, night.order, night.parts_table(), reasons)
    say(store, night.order, merged, passed=True)
    return night.order, merged


def say(store: Store, order: FrozenOrder, merged: Merged, *, passed: bool) -> None:
    verdict = {"token": merged.token, "passed": passed, "failing_shards": [f"{ShardId(5):016x}"]}
    store.write(layout.verdict(order.key), json.dumps(verdict).encode())


def publish(store: Store, **which: Any) -> Published:
    order, merged = checked_night(store, **which)
    return publish_order(store, order, merged, now=NOW)


def nights(store: Store) -> dict[str, dict[str, Any]]:
    data = store.read(layout.nights(NAME))
    return {row["night"]: row for row in pq.read_table(pa.BufferReader(data)).to_pylist()}


def rows_by_night(store: Store) -> dict[str, int]:
    table = pl.scan_delta(store.uri(layout.table(NAME))).group_by("night").len().collect()
    return dict(table.sort("night").iter_rows())


def test_a_published_night_is_read_by_polars_and_duckdb_with_the_lines_we_print(store: Store) -> None:
    published = publish(store)
    lines = how_to_open(published.table, published_files(store, NAME, Night("2026-11-22")), Night("2026-11-22"))
    found = eval(lines["polars"], {"pl": pl})
    assert (found.height, set(found["night"])) == (3, {"2026-11-22"})
    assert duckdb.connect().execute(f"SELECT count(*) {lines['duckdb']}").fetchall() == [(3,)]
    assert "delta" in lines["spark"]


def test_any_engine_may_read_the_table_reader_1_writer_2(store: Store) -> None:
    protocol = DeltaTable(publish(store).table).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def test_a_table_from_before_a_column_gets_it_and_its_earlier_nights_have_nulls_there(store: Store) -> None:
    before_that(store, "label")
    publish(store)
    found = pl.scan_delta(store.uri(layout.table(NAME))).select("night", pl.col("label").is_null()).collect()
    assert found.sort("night").rows() == [("2026-11-21", True)] * 3 + [("2026-11-22", False)] * 3
    for files in (published_files(store, NAME), published_files(store, NAME)[::-1]):
        query = f"SELECT count(*), count(label) {how_to_open('', files)['duckdb']}"
        assert duckdb.connect().execute(query).fetchall() == [(6, 3)]


def test_a_table_that_lacks_a_required_column_is_refused_by_its_name(store: Store) -> None:
    before_that(store, "provider")
    with pytest.raises(RejectedError, match="other columns than contract 'results_image'") as refused:
        publish(store)
    assert refused.value.problems == ("only one of them has provider",)


def before_that(store: Store, column: str) -> None:
    """Publish a night as it was when that column was not in the contract yet."""
    publish(store, night="2026-11-21")
    table = store.uri(layout.table(NAME))
    old = pl.scan_delta(table).drop(column).collect()
    for key in store.keys(layout.table(NAME)):
        store.delete(key)
    old.write_delta(table, delta_write_options={"partition_by": ["night"]})


def test_the_commit_says_whose_rows_it_holds_and_what_stands_beside_it(store: Store) -> None:
    published = publish(store, missing=True)
    entry = DeltaTable(published.table).history(1)[0]
    counts = [entry[f"fleetbatch_{name}"] for name in ("rows_in", "rows_out", "dead_letter_rows", "missing_rows")]
    assert [int(count) for count in counts] == [5, 3, 0, 2]
    for name, key in (("nights", layout.nights(NAME)), ("missing_rows", layout.missing_rows(NAME))):
        assert entry[f"fleetbatch_{name}_sha256"] == hashlib.sha256(store.read(key)).hexdigest()


def test_beside_the_table_stand_the_nights_and_the_rows_that_are_missing(store: Store) -> None:
    publish(store)
    published = publish(store, night="2026-11-23", missing=True)
    found = nights(store)
    assert [found[night]["state"] for night in ("2026-11-22", "2026-11-23")] == ["complete", "partial"]
    assert found["2026-11-23"]["table_version"] == published.version
    assert found["2026-11-23"]["files"] == list(published.files)
    named = pq.read_table(pa.BufferReader(store.read(layout.missing_rows(NAME)))).to_pylist()
    assert [(row["night"], row["reason"]) for row in named] == [("2026-11-23", "deadline")] * 2


def test_a_publish_that_is_tried_again_returns_the_same_version(store: Store) -> None:
    order, merged = checked_night(store)
    first = publish_order(store, order, merged, now=NOW)
    publish(store, night="2026-11-23")
    again = publish_order(store, order, merged, now=NOW + timedelta(hours=1))
    assert (again.version, again.files, again.again) == (first.version, first.files, True)
    assert rows_by_night(store) == {"2026-11-22": 3, "2026-11-23": 3}


def test_a_next_generation_replaces_its_own_night_only(store: Store) -> None:
    publish(store)
    publish(store, night="2026-11-23")
    publish(store, rows=4, generation=2)
    assert rows_by_night(store) == {"2026-11-22": 4, "2026-11-23": 3}
    assert {night: row["generation"] for night, row in nights(store).items()} == {"2026-11-22": 2, "2026-11-23": 1}
    assert len(published_files(store, NAME)) == 2


def test_a_night_without_published_rows_is_named_beside_those_that_have_some(store: Store) -> None:
    publish(store)
    with pytest.raises(RejectedError, match=r"no row of night 2026-11-23 .* with rows: 2026-11-22"):
        published_files(store, NAME, Night("2026-11-23"))


def test_an_earlier_or_the_same_generation_never_replaces_a_night(store: Store) -> None:
    first = checked_night(store)
    other = checked_night(store, rows=4, priority=2)
    say(store, *first, passed=True)
    publish_order(store, *first, now=NOW)
    say(store, *other, passed=True)
    with pytest.raises(RejectedError, match="generation 1 is published"):
        publish_order(store, *other, now=NOW)
    publish(store, rows=4, generation=2)
    say(store, *first, passed=True)
    with pytest.raises(RejectedError, match="generation 2 is published"):
        publish_order(store, *first, now=NOW)


def test_a_missing_row_leaves_the_list_when_the_night_is_computed_anew(store: Store) -> None:
    publish(store, missing=True)
    publish(store, generation=2)
    assert pq.read_table(pa.BufferReader(store.read(layout.missing_rows(NAME)))).num_rows == 0


def test_a_night_in_which_nothing_was_computed_is_published_as_partial(store: Store) -> None:
    night = ResultNight(store, {5: [2]})
    merged = merge_order(store, night.order, night.parts_table(), missing_shards({5: "deadline"}))
    say(store, night.order, merged, passed=True)
    published = publish_order(store, night.order, merged, now=NOW)
    assert published.files == ()
    assert nights(store)["2026-11-22"]["missing_rows"] == 2


def test_an_unchecked_night_is_not_published(store: Store) -> None:
    order, merged = checked_night(store)
    store.delete(layout.verdict(order.key))
    with pytest.raises(RejectedError, match="was not checked"):
        publish_order(store, order, merged, now=NOW)


def test_a_night_that_broke_an_expectation_is_not_published_and_names_its_shards(store: Store) -> None:
    order, merged = checked_night(store)
    say(store, order, merged, passed=False)
    with pytest.raises(RejectedError, match="0000000000000005 breaks"):
        publish_order(store, order, merged, now=NOW)


def test_a_file_whose_rows_do_not_add_up_is_not_published(store: Store) -> None:
    order, merged = checked_night(store)
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(store.read(merged.files[0].key))).slice(1), sink)
    store.write(merged.files[0].key, sink.getvalue().to_pybytes())
    with pytest.raises(RejectedError, match="bytes, the staged file had"):
        publish_order(store, order, merged, now=NOW)
    assert not DeltaTable(store.uri(layout.table(NAME))).file_uris()


def test_a_store_that_lets_two_create_the_same_object_gets_no_table(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class ForgetfulStore(type(open_at(tmp_path))):  # type: ignore[misc] # a folder that overwrites what it should keep
        def create(self, key: str, data: bytes) -> bool:
            self.write(key, data)
            return True

    sound = open_at(tmp_path)
    forgetful: Any = ForgetfulStore(root=sound.root, key=sound.key, base_url="")  # type: ignore[attr-defined] # a local store
    order, merged = checked_night(sound)
    with pytest.raises(RejectedError, match="cannot keep tables whole"):
        publish_order(forgetful, order, merged, now=NOW)


def test_nights_published_at_the_same_time_are_all_there(store: Store) -> None:
    made = [checked_night(store, night=f"2026-11-{day}") for day in range(10, 16)]
    with ThreadPoolExecutor(len(made)) as pool:
        assert not any(one.again for one in pool.map(lambda one: publish_order(store, *one, now=NOW), made))
    assert rows_by_night(store) == {f"2026-11-{day}": 3 for day in range(10, 16)}
    assert sorted(nights(store)) == [f"2026-11-{day}" for day in range(10, 16)]


@dataclass
class MortalStore:
    """A real store that kills its process, as a power cut would, right before its n-th change."""

    inner: Store
    die_before: int
    changes: int = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        return partial(self._change, call) if name in {"write", "create", "create_file", "copy", "delete"} else call

    def _change(self, call: Any, key: str, *rest: Any) -> Any:
        if not key.startswith("probe/"):
            self.changes += 1
            if self.changes == self.die_before:
                os.kill(os.getpid(), signal.SIGKILL)
        return call(key, *rest)


def publish_and_be_killed(folder: Path) -> None:
    """Publish the second generation in one child after another; a line goes out, and one must come in, after each."""
    for die_before in range(1, 40):
        child = os.fork()  # before any library has started a thread
        if not child:
            night = ResultNight(open_at(folder), {5: [4]}, frozen_order(generation=2))
            night.deliver(5, 0, 1)
            merged = merge_order(night.store, night.order, night.parts_table(), missing_shards())
            say(night.store, night.order, merged, passed=True)
            mortal: Any = MortalStore(night.store, die_before)
            publish_order(mortal, night.order, merged, now=NOW)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        if sys.stdin.readline() == "stop\n":
            return


def test_a_publish_killed_at_any_point_leaves_a_whole_night_and_the_next_try_finishes_it(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    publish(store, night="2026-11-21")
    publish(store)
    script = f"import pathlib, test_publish; test_publish.publish_and_be_killed(pathlib.Path({str(tmp_path)!r}))"
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    command = [sys.executable, "-c", script]
    seen: list[tuple[int, int]] = []
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        for line in child.stdout:
            rows = rows_by_night(store)
            assert rows["2026-11-21"] == 3
            seen.append((int(line), rows["2026-11-22"]))
            child.stdin.write("stop\n" if int(line) == 0 else "on\n")
            child.stdin.flush()
    kills = [rows for code, rows in seen[:-1] if code == -signal.SIGKILL]
    assert len(kills) == len(seen) - 1
    assert seen[-1] == (0, 4)
    assert {3, 4} == set(kills)
    found = nights(store)
    assert {night: row["rows_out"] for night, row in found.items()} == {"2026-11-21": 3, "2026-11-22": 4}
    entry = DeltaTable(store.uri(layout.table(NAME))).history(1)[0]
    assert entry["fleetbatch_nights_sha256"] == hashlib.sha256(store.read(layout.nights(NAME))).hexdigest()
