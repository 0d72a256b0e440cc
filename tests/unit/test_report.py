"""The report: numbers that add up, on a page that opens without a network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from result_nights import ResultNight, missing_shards

from fleetbatch import layout
from fleetbatch.merge import merge_order
from fleetbatch.nouns import Merged
from fleetbatch.report import Tally, summarise, tally_night, write_report
from fleetbatch.report.tally import Numbers
from fleetbatch.store import Store, open_store

STATS = {"leases": 3, "cars": 2, "resumed_shards": 1, "audited_rows": 1, "disagreements": 0, "energy_wh": 4.0}
TOLD = {"task_instances": 8, "seconds": 61.5, "table": "file:///table", "table_version": 7}
RATES = pa.Table.from_pylist(
    [
        {"workload": "image", "hardware_class": "ecu_2", "provider": "CPUExecutionProvider", "rows": 30, "busy_s": 2.0},
        {"workload": "image", "hardware_class": "ecu_2", "provider": "CPUExecutionProvider", "rows": 10, "busy_s": 2.0},
        {"workload": "video", "hardware_class": "ecu_2", "provider": "CPUExecutionProvider", "rows": 9, "busy_s": 1.0},
    ]
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store", deployment_key=b"k" * 32)


def night_of(store: Store) -> tuple[ResultNight, Merged]:
    night = ResultNight(store, {5: [2, 1], 9: [2]})
    rows = [night.answer(item, group) for item, group in night.items(5)]
    rows[2] = night.dead(*night.items(5)[2], error="<b>zero bytes</b>")
    night.deliver_rows(5, 0, 2, rows)
    return night, merge_order(store, night.order, night.parts_table(), missing_shards({9: "deadline"}))


def test_a_summary_holds_every_number_that_the_night_prints(store: Store) -> None:
    night, merged = night_of(store)
    tally = tally_night(store, night.order, merged, RATES)
    summary = summarise(night.order, merged, tally, STATS, TOLD)
    promised = (
        "night workload generation rows_in rows_out dead_letter_rows missing_rows shards leases resumed_shards "
        "audited_rows disagreements task_instances table table_version seconds"
    )
    assert set(promised.split()) <= set(summary)
    assert summary["rows_in"] == summary["rows_out"] + summary["dead_letter_rows"] + summary["missing_rows"]
    assert (summary["missing_reasons"], summary["state"]) == ({"deadline": 2}, "partial")
    assert summary["dead_letters"] == {"<b>zero bytes</b>": 1}


def test_a_class_has_the_rate_that_its_parts_measured_in_all_cells(store: Store) -> None:
    night, merged = night_of(store)
    [one] = tally_night(store, night.order, merged, RATES).classes
    assert (one.name, one.rows, one.rows_per_s) == ("ecu_2", 3, 10.0)
    assert one.energy_wh == pytest.approx(1.5)


def test_energy_is_called_measured_only_as_far_as_it_was(store: Store) -> None:
    night, merged = night_of(store)
    tally = tally_night(store, night.order, merged, RATES)
    assert (tally.answers, tally.measured_wh) == (3, 0)
    assert '<p class="faint">Estimated from each car' in page(store, night, merged, tally)
    whole = replace(tally, measured_wh=tally.energy_wh)
    assert "Measured by the cars." in page(store, night, merged, whole)
    part = replace(tally, measured_wh=0.5)
    assert "0.50 Wh were measured by the cars and 1.00 Wh are estimated" in page(store, night, merged, part)


def test_yes_and_no_are_told_as_a_share(store: Store) -> None:
    night, merged = night_of(store)
    numbers = (Numbers(column="reencoded", yes_or_no=True, known=8, least=0, mean=0.25, most=1),)
    told = page(store, night, merged, replace(tally_night(store, night.order, merged, RATES), numbers=numbers))
    assert '<td>reencoded</td><td class="n">8</td><td>25.0 %</td>' in told


def test_accuracy_is_known_where_the_source_says_the_label(store: Store) -> None:
    night = ResultNight(store, {5: [3]})
    uris = ["road-signs://1/0#stop", "road-signs://1/1#yield", "road-signs://1/2+broken#stop"]
    sources: list[dict[str, Any]] = [
        {"item_id": item, "shard_id": 5, "row_group": group, "source_uri": uri}
        for (item, group), uri in zip(night.items(5), uris, strict=True)
    ]
    night._table(layout.sources(night.order.key), sources, "sources")
    rows = [night.answer(item, group) for item, group in night.items(5)]
    night.deliver_rows(5, 0, 1, [*rows[:2], night.dead(*night.items(5)[2])])
    merged = merge_order(store, night.order, night.parts_table(), missing_shards())
    tally = tally_night(store, night.order, merged, RATES)
    assert (tally.labelled_rows, tally.right_rows, tally.accuracy) == (2, 1, 0.5)


def test_a_night_without_results_still_has_a_report(store: Store) -> None:
    night = ResultNight(store, {5: [3]})
    merged = merge_order(store, night.order, night.parts_table(), missing_shards({5: "deadline"}))
    tally = tally_night(store, night.order, merged, RATES.slice(0, 0))
    assert (tally.accuracy, tally.missing) == (None, (("deadline", 3),))
    assert "all 3" not in page(store, night, merged, tally)


def test_the_page_opens_off_line_and_escapes_what_strangers_wrote(store: Store) -> None:
    night, merged = night_of(store)
    text = page(store, night, merged, tally_night(store, night.order, merged, RATES))
    assert "Partial: 2 of 5 rows are missing." in text
    assert "deadline" in text
    assert "<b>zero" not in text
    assert not any(word in text for word in ("http:", "https:", "<script", "src="))


def page(store: Store, night: ResultNight, merged: Merged, tally: Tally) -> str:
    summary = summarise(night.order, merged, tally, STATS, TOLD)
    key = write_report(store, night.order.key, summary, tally, {"polars": "pl.scan_delta(...)"})
    return store.read(key).decode()


def test_reasons_beyond_the_ten_most_frequent_are_counted(store: Store) -> None:
    night = ResultNight(store, {5: [14], 9: [2]})
    rows = [
        night.dead(item, group, error=f"broken in way {max(0, n - 1):02}")
        for n, (item, group) in enumerate(night.items(5))
    ]
    night.deliver_rows(5, 0, 1, rows)
    merged = merge_order(store, night.order, night.parts_table(), missing_shards({9: "deadline"}))
    tally = tally_night(store, night.order, merged, RATES)
    assert tally.dead_letters[0] == ("broken in way 00", 2)
    assert tally.dead_letters[10:] == (("3 other reasons", 3),)
    assert sum(count for _, count in tally.dead_letters) == merged.dead_letter_rows
    assert "3 other reasons" in page(store, night, merged, tally)
