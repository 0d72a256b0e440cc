import json
from pathlib import Path

import jsonschema
import open_data_contract_standard.model as odcs
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.contracts import arrow_type, conform, contract, empty, schemas_folder
from fleetbatch.errors import RejectedError

CONTRACTS = sorted(schemas_folder().glob("*.odcs.yaml"))
STANDARD = json.loads((Path(odcs.__file__).parent / "schema.json").read_text())


def _names() -> list[str]:
    return [path.name.removesuffix(".odcs.yaml") for path in CONTRACTS]


@pytest.mark.parametrize("path", CONTRACTS, ids=_names())
def test_every_contract_is_valid_by_the_standards_own_schema_and_package(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), STANDARD)
    assert odcs.OpenDataContractStandard.from_file(str(path)).apiVersion == "v3.1.0"


@pytest.mark.parametrize("name", _names())
def test_an_empty_table_of_every_contract_conforms_to_it(name: str) -> None:
    assert conform(empty(name), name).schema == contract(name).schema


def test_conform_orders_columns_and_fills_what_may_be_absent() -> None:
    table = pa.table({"source_uri": ["a"], "row_group": [0], "shard_id": [5], "item_id": ["5-0"]})
    assert conform(table, "sources").column_names == ["item_id", "shard_id", "row_group", "source_uri", "answers"]
    shard = conform(pa.table({"item_id": ["x"]}), "shard")
    assert shard["bytes"].null_count == 1


def test_the_error_lists_every_difference_at_once() -> None:
    table = pa.table({"item_id": [None], "shard_id": ["five"], "row_group": [1 << 40], "surprise": [1]})
    with pytest.raises(RejectedError) as caught:
        conform(table, "sources")
    problems = "\n".join(caught.value.problems)
    for word in ("surprise", "1 nulls", "'shard_id' is string", "'row_group'", "'source_uri' is missing"):
        assert word in problems


def test_a_column_that_stands_twice_is_refused() -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["item_id", "item_id"])
    with pytest.raises(RejectedError, match="there twice"):
        conform(table, "shard")


def test_lists_and_structs_are_named_as_arrow_prints_them() -> None:
    box = pa.struct(
        [pa.field("label", pa.string()), pa.field("sides", pa.list_(pa.float32())), pa.field("n", pa.int8())]
    )
    assert arrow_type("list<struct<label: string, sides: list<float>, n: int8>>") == pa.list_(box)
    with pytest.raises(ValueError, match="unknown physicalType"):
        arrow_type("struct<label>")


def test_an_unknown_contract_is_refused_with_the_known_names() -> None:
    with pytest.raises(RejectedError, match="manifest"):
        contract("nonsense")


@given(st.sampled_from(["int32", "string", "double"]), st.integers(1, 200))
def test_list_types_nest_and_may_have_a_fixed_size(item: str, size: int) -> None:
    assert arrow_type(f"list<{item}>") == pa.list_(arrow_type(item))
    assert arrow_type(f"list<list<{item}>>[{size}]") == pa.list_(pa.list_(arrow_type(item)), size)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=20))
def test_conform_never_changes_a_value(values: list[int]) -> None:
    ids = [f"{i}" for i in range(len(values))]
    table = pa.table({"item_id": ids, "shard_id": values, "row_group": values, "source_uri": ids})
    assert conform(table, "sources")["row_group"].to_pylist() == values
