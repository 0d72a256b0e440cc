"""The merge: every row of the input stands in the results once, or is named missing."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from result_nights import ResultNight, frozen_order, missing_shards

from fleetbatch import layout
from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.merge import Merging, load_merged, merge_order
from fleetbatch.nouns import Merged
from fleetbatch.store import Store, open_store
from fleetbatch.units import ShardId


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store", deployment_key=b"k" * 32)


def rows_of(store: Store, merged: Merged) -> list[dict[str, Any]]:
    return [row for f in merged.files for row in pq.read_table(pa.BufferReader(store.read(f.key))).to_pylist()]


def missing_of(store: Store, night: ResultNight) -> list[dict[str, Any]]:
    return pq.read_table(pa.BufferReader(store.read(layout.missing(night.order.key)))).to_pylist()


def test_every_row_of_a_finished_night_comes_out_once_with_its_source(store: Store) -> None:
    night = ResultNight(store, {5: [2, 3], 9: [1]})
    night.deliver(5, 0, 1, car=7)
    night.deliver(5, 1, 2, car=8)
    night.deliver(9, 0, 1, car=0)
    merged = merge_order(store, night.order, night.parts_table(), missing_shards())
    rows = rows_of(store, merged)
    assert sorted(row["item_id"] for row in rows) == night.all_items()
    assert all(row["source_uri"].endswith(f"{row['item_id']}.jpg") for row in rows)
    assert (merged.rows_in, merged.rows_out, merged.dead_letter_rows, merged.missing_rows) == (6, 6, 0, 0)
    assert load_merged(store, night.order.key) == merged


def test_a_result_file_has_exactly_the_columns_of_its_contract(store: Store) -> None:
    night = ResultNight(store, {5: [2]}).deliver_all()
    [file] = merge_order(store, night.order, night.parts_table(), missing_shards()).files
    found = pq.read_schema(pa.BufferReader(store.read(file.key)))
    assert found.remove_metadata().equals(contract("results_image").schema)


def test_a_row_says_whether_it_was_computed_again_or_trusted(store: Store) -> None:
    night = ResultNight(store, {5: [2, 1]})
    night.deliver(5, 0, 1, car=7)
    night.deliver(5, 1, 2, car=0)
    rows = rows_of(store, merge_order(store, night.order, night.parts_table(), missing_shards()))
    assert [row["audit_state"] for row in rows] == ["audited", "sampled", "trusted"]


def test_a_row_bears_its_share_of_its_parts_energy(store: Store) -> None:
    night = ResultNight(store, {5: [4]})
    night.deliver(5, 0, 1, energy_wh=2.0)
    rows = rows_of(store, merge_order(store, night.order, night.parts_table(), missing_shards()))
    assert [row["energy_wh"] for row in rows] == [0.5] * 4


def test_a_row_that_nobody_can_read_stays_in_the_table_with_its_error(store: Store) -> None:
    night = ResultNight(store, {5: [2]})
    (first, group), (second, _) = night.items(5)
    night.deliver_rows(5, 0, 1, [night.answer(first, group), night.dead(second, group)])
    merged = merge_order(store, night.order, night.parts_table(), missing_shards())
    assert [row["error"] for row in rows_of(store, merged)] == [None, "not a picture"]
    assert (merged.rows_out, merged.dead_letter_rows) == (1, 1)


def test_rows_of_a_shard_given_up_are_named_with_the_reason(store: Store) -> None:
    night = ResultNight(store, {5: [2], 9: [1, 1]})
    night.deliver(5, 0, 1)
    merged = merge_order(store, night.order, night.parts_table(), missing_shards({9: "deadline"}))
    named = missing_of(store, night)
    assert [(row["item_id"], row["reason"]) for row in named] == [(item, "deadline") for item, _ in night.items(9)]
    assert (merged.rows_in, merged.rows_out, merged.missing_rows) == (4, 2, 2)


def test_rows_without_answer_and_without_reason_stop_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [2], 9: [1]})
    night.deliver(5, 0, 1)
    with pytest.raises(RejectedError, match="neither answer nor reason"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_a_row_group_that_stands_in_two_parts_stops_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [2, 1]})
    night.deliver(5, 0, 2, car=7)
    night.deliver(5, 1, 2, car=8)
    with pytest.raises(RejectedError, match="answered twice"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_a_row_that_the_shard_does_not_have_stops_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [1], 9: [1]})
    night.deliver(9, 0, 1)
    night.deliver_rows(5, 0, 1, [night.answer(night.items(9)[0][0], 0)])
    with pytest.raises(RejectedError, match="not in the shard"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_a_part_that_is_not_what_was_delivered_stops_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [1]}).deliver_all()
    night.parts[0]["sha256"] = "0" * 64
    with pytest.raises(RejectedError, match="not the file that was delivered"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_sources_that_are_not_the_manifests_stop_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [2]}).deliver_all()
    night.shards = {5: [3]}
    night._table(layout.manifest(night.order.key), [night._shard(5, [3])], "manifest")
    with pytest.raises(RejectedError, match="not those of its manifest"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_sources_with_more_rows_than_the_manifest_stop_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [2]}).deliver_all()
    night.shards = {5: [1]}
    night._table(layout.manifest(night.order.key), [night._shard(5, [1])], "manifest")
    with pytest.raises(RejectedError, match="not those of its manifest"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_a_part_of_a_shard_that_nobody_planned_stops_the_merge(store: Store) -> None:
    night = ResultNight(store, {5: [2], 9: [1]}).deliver_all()
    night.shards = {5: [2]}
    night.__post_init__()
    with pytest.raises(RejectedError, match="shard 0000000000000009 is not in the manifest"):
        merge_order(store, night.order, night.parts_table(), missing_shards())


def test_answers_in_another_order_stand_in_the_order_of_their_sources(store: Store) -> None:
    night = ResultNight(store, {5: [3]})
    rows = [night.answer(item, group) for item, group in night.items(5)]
    night.deliver_rows(5, 0, 1, [rows[2], rows[0], rows[1]])
    merged = merge_order(store, night.order, night.parts_table(), missing_shards())
    assert [row["item_id"] for row in rows_of(store, merged)] == night.all_items()


def test_files_are_joined_alike_here_and_on_a_pool(store: Store) -> None:
    night = ResultNight(store, {5: [2], 9: [3], 12: [1]}).deliver_all()
    dials = Merging(rows_per_file=3)
    here = merge_order(store, night.order, night.parts_table(), missing_shards(), merging=dials)
    with ThreadPoolExecutor(2) as pool:
        there = merge_order(store, night.order, night.parts_table(), missing_shards(), merging=dials, pool=pool)
    assert len(here.files) == 3
    assert there == here


def test_merging_twice_stages_the_same_files_under_the_same_names(store: Store) -> None:
    night = ResultNight(store, {5: [2], 9: [3]}).deliver_all()
    first = merge_order(store, night.order, night.parts_table(), missing_shards())
    assert merge_order(store, night.order, night.parts_table(), missing_shards()) == first


def test_a_night_in_which_nothing_was_computed_has_no_file_and_names_every_row(store: Store) -> None:
    night = ResultNight(store, {5: [2], 9: [3]})
    reasons = missing_shards({5: "deadline", 9: "deadline"})
    merged = merge_order(store, night.order, night.parts_table(), reasons)
    assert merged.files == ()
    assert [row["item_id"] for row in missing_of(store, night)] == night.all_items()


@st.composite
def partitions(draw: st.DrawFn) -> tuple[dict[int, list[int]], dict[int, list[int]], set[int], int]:
    """Shards with their row groups, where each shard's parts are cut, which shards are given up, rows per file."""
    shards = draw(
        st.dictionaries(
            st.integers(1, 2**63 - 1), st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=5
        )
    )
    cuts = {
        s: sorted(draw(st.sets(st.integers(1, max(1, len(g) - 1))))) if len(g) > 1 else [] for s, g in shards.items()
    }
    return shards, cuts, draw(st.sets(st.sampled_from(sorted(shards)))), draw(st.integers(1, 12))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=partitions(), number=st.integers(1, 2**31 - 1))
def test_any_partition_into_parts_and_files_merges_to_exactly_the_input(
    store: Store, case: tuple[dict[int, list[int]], dict[int, list[int]], set[int], int], number: int
) -> None:
    shards, cuts, given_up, rows_per_file = case
    night = ResultNight(store, shards, frozen_order(generation=number))
    for shard in shards.keys() - given_up:
        bounds = [0, *cuts[shard], len(shards[shard])]
        for car, (start, stop) in enumerate(itertools.pairwise(bounds), start=1):
            night.deliver(shard, start, stop, car=car)
    dials = Merging(rows_per_file=rows_per_file, row_group_bytes=200)
    missing = missing_shards(dict.fromkeys(given_up, "deadline"))
    merged = merge_order(store, night.order, night.parts_table(), missing, merging=dials)
    out = [row["item_id"] for row in rows_of(store, merged)]
    named = [row["item_id"] for row in missing_of(store, night)]
    assert sorted(out + named) == night.all_items()
    assert sum(file.rows for file in merged.files) == len(out)
    assert {item[:16] for item in named} == {f"{ShardId(shard):016x}" for shard in given_up}
