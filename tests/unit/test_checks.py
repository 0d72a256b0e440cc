"""The checks: what breaks a night is seen in its files, named by shard, and keeps it unpublished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from result_nights import LABELS, ResultNight, missing_shards

from fleetbatch import layout
from fleetbatch.checks import Checking, Verdict, check_order, in_words, load_verdict
from fleetbatch.checks.checking import verdict_page
from fleetbatch.checks.expectations import Check, _crashes
from fleetbatch.checks.profile import ProfileJob, profile_file, profile_table
from fleetbatch.errors import RejectedError
from fleetbatch.merge import merge_order
from fleetbatch.nouns import Merged, StagedFile
from fleetbatch.store import Store, open_store
from fleetbatch.units import Sha256, ShardId, shard_hex


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store", deployment_key=b"k" * 32)


def merged_night(store: Store) -> tuple[ResultNight, Merged]:
    night = ResultNight(store, {5: [2, 2], 9: [3], 11: [1]})
    night.deliver(5, 0, 2)
    night.deliver(9, 0, 1)
    return night, merge_order(store, night.order, night.parts_table(), missing_shards({11: "deadline"}))


def profile(store: Store, night: ResultNight, files: list[StagedFile]) -> dict[str, dict[str, Any]]:
    key = night.order.key
    jobs = [
        ProfileJob(
            store=store,
            file=file,
            contract="results_image",
            manifest_key=layout.manifest(key),
            sources_key=layout.sources(key),
            missing_key=layout.missing(key),
            labels=LABELS,
            sample_rows=100,
        )
        for file in files
    ]
    manifest = pq.read_table(pa.BufferReader(store.read(layout.manifest(key))))
    missing = pl.read_parquet(store.read(layout.missing(key))).lazy()
    table = profile_table(manifest, missing, [profile_file(job).shards for job in jobs])
    return {row["shard_id"]: row for row in table.to_pylist()}


def spoil(store: Store, file: StagedFile, change: Mapping[str, Any], *, rows: slice = slice(None)) -> StagedFile:
    """Return the file with some columns of its first row changed, or with some rows only."""
    table = pq.read_table(pa.BufferReader(store.read(file.key)))
    spoilt = table.to_pylist()[rows]
    spoilt[0] |= change
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(spoilt, schema=table.schema), sink)
    data = sink.getvalue().to_pybytes()
    store.write(file.key, data)
    import hashlib

    digest = Sha256(hashlib.sha256(data).hexdigest())
    return StagedFile(name=file.name, key=file.key, rows=len(spoilt), size_bytes=len(data), sha256=digest)


def test_a_sound_night_has_a_row_per_planned_shard_and_no_counter_above_zero(store: Store) -> None:
    night, merged = merged_night(store)
    rows = profile(store, night, list(merged.files))
    assert {s: (r["rows_expected"], r["rows"], r["rows_missing"]) for s, r in rows.items()} == {
        shard_hex(ShardId(5)): (4, 4, 0),
        shard_hex(ShardId(9)): (3, 3, 0),
        shard_hex(ShardId(11)): (1, 0, 1),
    }
    counters = ("ids_unknown", "ids_absent", "ids_double", "nulls", "out_of_range", "labels_unknown")
    assert all(row[name] == 0 for row in rows.values() for name in counters)
    assert rows[shard_hex(ShardId(5))]["audited_rows"] == 1
    assert rows[shard_hex(ShardId(5))]["energy_wh"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("change", "counter", "count"),
    [
        ({"item_id": f"{5:016x}-000099"}, {"ids_unknown": 1, "ids_absent": 1}, 4),
        ({"item_id": f"{5:016x}-000001"}, {"ids_double": 1, "ids_absent": 1}, 4),
        ({"item_id": f"{9:016x}-000000"}, {"ids_unknown": 1, "ids_absent": 1}, 4),
        ({"label": None, "score": None}, {"nulls": 1}, 4),
        ({"label": "elephant"}, {"labels_unknown": 1}, 4),
        ({"score": 1.5}, {"out_of_range": 1}, 4),
        ({"score": float("nan")}, {"out_of_range": 1}, 4),
        ({"error": "unreadable", "label": None, "score": None}, {"dead_rows": 1}, 4),
    ],
)
def test_a_spoilt_row_is_counted_in_its_shard(
    store: Store, change: dict[str, Any], counter: dict[str, int], count: int
) -> None:
    night, merged = merged_night(store)
    row = profile(store, night, [spoil(store, merged.files[0], change)])[shard_hex(ShardId(5))]
    assert row["rows"] == count
    assert {name: row[name] for name in counter} == counter


@pytest.mark.parametrize("change", [{}, {"score": 1.5}, {"item_id": f"{9:016x}-000009"}])
def test_rows_count_the_same_in_whatever_order_they_stand(store: Store, change: dict[str, Any]) -> None:
    night, merged = merged_night(store)
    in_order = spoil(store, merged.files[0], change)
    counted = profile(store, night, [in_order])
    assert profile(store, night, [spoil(store, in_order, {}, rows=slice(None, None, -1))]) == counted


def test_rows_that_are_in_no_file_are_counted_absent(store: Store) -> None:
    night, merged = merged_night(store)
    rows = profile(store, night, [spoil(store, merged.files[0], {}, rows=slice(2, None))])
    assert rows[shard_hex(ShardId(5))]["ids_absent"] == 2
    assert profile(store, night, [])[shard_hex(ShardId(9))]["ids_absent"] == 3


def test_a_row_both_answered_and_named_missing_is_counted_double(store: Store) -> None:
    night = ResultNight(store, {5: [2]}).deliver_all()
    merged = merge_order(store, night.order, night.parts_table(), missing_shards())
    named = {"night": "n", "order": "o", "generation": 1, "item_id": f"{5:016x}-000001", "source_uri": "", "reason": ""}
    night._table(layout.missing(night.order.key), [named], "missing_rows")
    assert profile(store, night, list(merged.files))[shard_hex(ShardId(5))]["ids_double"] == 1


def test_a_staged_file_that_was_changed_after_the_merge_is_refused(store: Store) -> None:
    night, merged = merged_night(store)
    spoil(store, merged.files[0], {"score": 0.1})
    with pytest.raises(RejectedError, match="not the file that was merged"):
        profile(store, night, list(merged.files))


def test_great_expectations_judges_names_the_failing_shards_and_the_verdict_is_kept(store: Store) -> None:
    night, merged = merged_night(store)
    spoilt = spoil(store, merged.files[0], {"label": "elephant"})
    judged = Merged(**{name: getattr(merged, name) for name in Merged.__dataclass_fields__} | {"files": (spoilt,)})
    suite = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "score", "min_value": 0.95}}
    verdict = check_order(store, night.order, judged, labels=LABELS, checking=Checking(suite=(suite,)))
    broken = {(check.suite, check.column) for check in verdict.checks if not check.success}
    assert broken == {("profile", "labels_unknown"), ("results_image", "score")}
    assert verdict.failing_shards == (shard_hex(ShardId(5)), shard_hex(ShardId(9)))
    assert len(verdict.checks) > 10
    assert load_verdict(store, night.order.key) == verdict
    page = store.read(layout.report(night.order.key, "checks.html")).decode()
    assert "labels_unknown" in page
    assert "did not pass" in page


def test_a_rule_that_is_broken_is_said_in_one_line_with_its_shards() -> None:
    failing = tuple(f"shard-{number}" for number in range(7))
    broken = Check(suite="s", expectation="at most 0", column="nulls", success=False, observed="3", failing=failing)
    five = "shard-0, shard-1, shard-2, shard-3, shard-4"
    assert in_words(broken) == f"s, nulls: at most 0, found 3; in {five} and 2 more"


def test_the_page_of_a_verdict_escapes_what_it_shows_and_links_nowhere() -> None:
    check = Check(suite="s", expectation="<script>", column="c", success=True, observed="1", failing=())
    page = verdict_page(Verdict(key="k", token="t", passed=True, checks=(check,), failing_shards=()))
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_an_exception_inside_a_result_is_found_flat_or_per_metric() -> None:
    crash = {"raised_exception": True, "exception_message": "no such column", "exception_traceback": ""}
    assert _crashes(crash) == "no such column"
    assert _crashes({"metric one": crash, "metric two": crash}) == "no such column"
    assert not _crashes({"raised_exception": False, "exception_message": None})
