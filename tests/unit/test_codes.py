"""Texts as codes within the merge: what is read and written is what the contract says, to the last value."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.merge.codes import coded_leaves, coded_schema, conform_coded, either, read_coded, repeated
from fleetbatch.merge.files import RowFile

ROWS: list[dict[str, Any]] = [
    {
        "item_id": "a-0",
        "row_group": 0,
        "label": "stop",
        "score": 0.9,
        "labels": ["stop", "yield"],
        "scores": [0.9, 0.1],
    },
    {"item_id": "a-1", "row_group": 0, "label": None, "labels": None, "error": "not a picture"},
    {"item_id": "a-2", "row_group": 1, "label": "yield", "score": 0.8, "labels": ["yield", "stop"], "scores": []},
]


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def missing_rows(reason: str, *items: str) -> pa.Table:
    row = {"source_uri": "s3://a", "night": "2026-11-22", "order": "signs", "generation": 1, "reason": reason}
    return conform(pa.Table.from_pylist([{"item_id": item, **row} for item in items]), "missing_rows")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_part_reads_alike_however_its_writer_kept_texts(kind: pa.DataType) -> None:
    table = pa.Table.from_pylist(ROWS)
    delivered = parquet(table.set_column(table.column_names.index("label"), "label", table["label"].cast(kind)))
    assert read_coded(delivered, "answers_image").equals(conform_coded(table, "answers_image"))
    assert read_coded(delivered, "answers_image").cast(contract("answers_image").schema) == conform(
        table, "answers_image"
    )


def test_a_part_without_a_column_that_may_be_absent_has_nulls_there() -> None:
    found = read_coded(parquet(pa.Table.from_pylist(ROWS).drop(["label", "labels"])), "answers_image")
    assert found.schema == coded_schema("answers_image")
    assert found["labels"].null_count == found["label"].null_count == len(ROWS)


def test_a_part_whose_column_is_of_another_kind_is_refused_in_the_contracts_words() -> None:
    odd = pa.Table.from_pylist([{**ROWS[0], "labels": 5}])
    with pytest.raises(RejectedError) as refused:
        read_coded(parquet(odd), "answers_image")
    assert any("'labels' is int64, the contract says list<" in problem for problem in refused.value.problems)


def test_codes_of_different_files_become_one_file_of_texts_with_the_contracts_schema(tmp_path: Path) -> None:
    parts = [missing_rows("deadline", "a", "b"), missing_rows("recalled", "c"), missing_rows("deadline", "d")]
    with RowFile(tmp_path / "rows.parquet", contract("missing_rows")) as file:
        for part in parts:
            file.add(conform_coded(part, "missing_rows"))
    assert pq.read_table(tmp_path / "rows.parquet") == pa.concat_tables(parts)
    assert pq.read_schema(tmp_path / "rows.parquet").remove_metadata() == contract("missing_rows").schema
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(pl.DataFrame(pa.concat_tables(parts)))
    reasons = pq.read_metadata(tmp_path / "rows.parquet").row_group(0).column(5)
    assert (reasons.path_in_schema, "RLE_DICTIONARY" in reasons.encodings) == ("reason", True)


def test_texts_that_never_repeat_outgrow_their_dictionary_and_lose_nothing(tmp_path: Path) -> None:
    rows = missing_rows("", *map(str, range(20_000)))
    rows = rows.set_column(
        5, rows.schema.field(5), pa.array([f"{number} {'because ' * 20}" for number in range(20_000)])
    )
    with RowFile(tmp_path / "rows.parquet", contract("missing_rows")) as file:
        file.add(conform_coded(rows, "missing_rows"))
    assert pq.read_table(tmp_path / "rows.parquet").equals(rows)


def test_texts_within_lists_of_structs_are_codes_too() -> None:
    assert "detections.list.element.label" in coded_leaves("results_video")
    assert "detections.list.element.score" not in coded_leaves("results_video")


def test_a_column_of_one_value_and_one_of_two() -> None:
    codes = coded_schema("results_image").field("provider").type
    assert repeated("cpu", 2, codes).to_pylist() == ["cpu", "cpu"]
    assert repeated(None, 2, codes).null_count == 2
    assert repeated(0.5, 2, pa.float32()).to_pylist() == [0.5, 0.5]
    flags = pa.array([True, False]).to_numpy(zero_copy_only=False)
    assert either(flags, "sampled", "audited").to_pylist() == ["audited", "sampled"]
