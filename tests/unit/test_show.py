"""What a person reads of a night."""

from typing import Any

import pytest

from fleetbatch.cli.show import print_summary

SUMMARY: dict[str, Any] = {
    "night": "2026-11-22",
    "order": "photos",
    "generation": 1,
    "workload": "image",
    "rows_in": 2000,
    "rows_out": 1990,
    "dead_letter_rows": 4,
    "missing_rows": 6,
    "missing_reasons": {"not computed by the deadline, 2026-11-22 22:00 UTC": 6},
    "shards": 24,
    "leases": 26,
    "resumed_shards": 2,
    "audited_rows": 52,
    "disagreements": 0,
    "accuracy": None,
    "energy_wh": 0.643,
    "task_instances": 7,
    "table": "/[home]/store/tables/photos/results",
    "table_version": 1,
    "report": "/[home]/store/report/index.html",
    "seconds": 61.4,
    "open": {"polars": 'pl.scan_delta("/[home]").collect()', "duckdb": "FROM read_parquet(['/[home]/a.parquet'])"},
}


def shown(capsys: pytest.CaptureFixture[str], **changed: object) -> str:
    print_summary({**SUMMARY, **changed})
    return " ".join(capsys.readouterr().out.split())


def test_a_person_reads_what_came_in_what_came_out_and_what_is_missing_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = shown(capsys)
    for words in (
        "came in 2,000 rows in 24 shards",
        "1,990 rows answered, 4 dead letters",
        "6 rows, named in missing_rows: 6 not computed by the deadline, 2026-11-22 22:00 UTC",
        "polars (Python) pl.scan_delta",
        "DuckDB (SQL) FROM read_parquet",
    ):
        assert words in said


def test_accuracy_is_told_only_where_labels_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert "accuracy" not in shown(capsys)
    assert "accuracy 98.76 %" in shown(capsys, accuracy=0.98764)


def test_energy_is_called_measured_only_as_far_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert "to compute, estimated" in shown(capsys)
    assert "to compute, measured" in shown(capsys, measured_wh=0.6, counted_wh=0.6)
    assert "to compute, 50 % of it measured" in shown(capsys, measured_wh=0.3, counted_wh=0.6)


def test_a_path_in_square_brackets_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys).count("/[home]/store/") == 2


def test_a_night_that_was_published_before_says_so_first(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, no_op=True)
    assert said.startswith("Night 2026-11-22 of photos is published already, generation 1. Nothing was computed;")
