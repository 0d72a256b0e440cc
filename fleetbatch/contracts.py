"""A column is declared once, in schemas/*.odcs.yaml; tables are conformed where they are read or written."""

import functools
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fleetbatch.errors import RejectedError

WORKLOADS_GROUP: Final = "fleetbatch.workloads"
"""Entry points by which a package brings a workload; the package's contracts lie in its folder `schemas`."""

_PACKAGE = Path(__file__).parent
_WHOLE: tuple[pa.DataType, ...] = (
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
)
_PLAIN: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "bool": pa.bool_(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date32": pa.date32(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
    **{str(kind): kind for kind in _WHOLE},
}
_LIST = re.compile(r"list<(?P<item>.+)>(\[(?P<size>\d+)])?")
_STRUCT = re.compile(r"struct<(?P<fields>.+)>")
_COMMA = re.compile(r",\s*(?=[a-z_]+:)")
"""Between the fields of a struct; structs hold plain types and lists of them, never structs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One released version of a table: its Arrow schema (nullable = not required) and its quality rules."""

    name: str
    version: str
    schema: pa.Schema
    key: tuple[str, ...]
    """The columns that together are unique."""
    required: tuple[str, ...]
    """The columns that hold no null."""
    expectations: tuple[Mapping[str, Any], ...]
    """Great Expectations rules, as {"type": ..., "kwargs": ...}."""
    headline: str | None
    """The column whose values sum a row up for a person (customProperties of the table); None when there is none.

    `column.field` is that field of the structs in a column of lists."""
    ranges: Mapping[str, tuple[float, float]]
    """Lowest and highest value of numbers (logicalTypeOptions); infinite where one side is not bounded."""


def schemas_folder() -> Path:
    """Return where the contracts are: inside the wheel, or beside the package in a checkout."""
    inside = _PACKAGE / "schemas"
    return inside if inside.is_dir() else _PACKAGE.parent / "schemas"


@functools.cache
def contract(name: str) -> Contract:
    """Return a table's contract; raise RejectedError when there is none of that name."""
    path = _contract_file(name)
    document = yaml.safe_load(path.read_text())
    [table] = document["schema"]
    columns = table["properties"]
    return Contract(
        name=name,
        version=document["version"],
        schema=pa.schema(
            [pa.field(c["name"], arrow_type(c["physicalType"]), nullable=not c.get("required", False)) for c in columns]
        ),
        key=tuple(c["name"] for c in columns if c.get("primaryKey", False)),
        required=tuple(c["name"] for c in columns if c.get("required", False)),
        expectations=tuple(
            rule["implementation"] for rule in table.get("quality", []) if rule.get("engine") == "greatExpectations"
        ),
        headline=next(
            (own["value"] for own in table.get("customProperties", []) if own["property"] == "headline"), None
        ),
        ranges={c["name"]: bounds for c in columns if (bounds := _range(c.get("logicalTypeOptions", {})))},
    )


def _contract_file(name: str) -> Path:
    file = f"{name}.odcs.yaml"
    if (ours := schemas_folder() / file).is_file():
        return ours
    folders = [schemas_folder(), *_schemas_of_others()]
    for folder in folders[1:]:
        if (folder / file).is_file():
            return folder / file
    known = ", ".join(sorted(p.name.removesuffix(".odcs.yaml") for f in folders for p in f.glob("*.odcs.yaml")))
    summary = f"there is no contract {name!r}; known are {known}"
    raise RejectedError(summary)


def _schemas_of_others() -> Iterator[Path]:
    """Yield the folders `schemas` of the packages that bring workloads; none of them is imported."""
    for package in sorted({point.module.partition(".")[0] for point in entry_points(group=WORKLOADS_GROUP)}):
        found = find_spec(package)
        for place in (found and found.submodule_search_locations) or ():
            yield Path(place) / "schemas"


def _range(options: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = options.get("minimum"), options.get("maximum")
    if low is None and high is None:
        return None
    return (-math.inf if low is None else low, math.inf if high is None else high)


def arrow_type(text: str) -> pa.DataType:
    """Return the Arrow type that a physicalType names.

    Besides plain types: `list<float>`, `list<uint8>[97]` (fixed size), `struct<label: string, score: float>`.
    """
    if text in _PLAIN:
        return _PLAIN[text]
    if listed := _LIST.fullmatch(text):
        return pa.list_(arrow_type(listed["item"]), int(listed["size"] or -1))
    if struct := _STRUCT.fullmatch(text):
        fields = [field.partition(":") for field in _COMMA.split(struct["fields"])]
        return pa.struct([pa.field(name, arrow_type(kind.strip())) for name, _, kind in fields])
    message = f"unknown physicalType {text!r} in a contract"
    raise ValueError(message)


def conform(table: pa.Table, name: str, *, schema: pa.Schema | None = None) -> pa.Table:
    """Return the table with the contract's columns, order and types, or raise RejectedError listing every difference.

    Absent columns that are not required are filled with nulls; a type is changed only where no value can change.
    `schema` is the contract's with other types for the same values, such as codes for texts; the table comes out in it.
    """
    known = contract(name)
    if schema is None and _is_as_declared(table, known):
        return table
    kinds = known.schema
    schema = schema or kinds
    names, wanted = table.column_names, schema.names
    problems = [f"column {c!r} is not in the contract" for c in names if c not in wanted]
    exact = names == wanted and table.schema.types == schema.types
    columns = []
    for place, field in enumerate(schema):
        column = table.column(place) if exact else _column(table, field, kinds.field(field.name).type, problems)
        if not field.nullable and column.null_count:
            problems.append(f"column {field.name!r} has {column.null_count} nulls and is required")
        columns.append(column)
    if problems:
        summary = f"the table breaks contract {name!r} {known.version}"
        raise RejectedError(summary, problems)
    return pa.Table.from_arrays(columns, schema=schema)


def answer_columns(of: Contract) -> list[str]:
    """Return the columns of a contract of results that are the workload's own, key and error left out."""
    known = {*contract("results").schema.names, *of.key}
    return [name for name in of.schema.names if name not in known]


def empty(name: str) -> pa.Table:
    """Return the contract's table without rows."""
    return contract(name).schema.empty_table()


def _is_as_declared(table: pa.Table, of: Contract) -> bool:
    """Return whether a table keeps its contract to the letter: asked of every row group of a cut."""
    exact = table.schema.equals(of.schema, check_metadata=True)
    return exact and not any(table.column(name).null_count for name in of.required)


def _column(table: pa.Table, field: "pa.Field[Any]", kind: pa.DataType, problems: list[str]) -> "pa.ChunkedArray[Any]":
    if table.column_names.count(field.name) > 1:
        problems.append(f"column {field.name!r} is there twice")
        return pa.chunked_array([], type=field.type)
    if field.name not in table.column_names:
        if field.nullable:
            return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
        problems.append(f"column {field.name!r} is missing")
        return pa.chunked_array([], type=field.type)
    column = table[field.name]
    if column.type == field.type:
        return column
    try:
        plain = column.cast(kind, safe=True)
        return plain if kind == field.type else plain.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        problems.append(f"column {field.name!r} is {column.type}, the contract says {kind} ({reason})")
        return pa.chunked_array([], type=field.type)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a small table as a Parquet file's bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def parquet_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a small Parquet file's bytes, read on this thread alone.

    Arrow's own threads let go of what they read when they get to it, and for that need an interpreter that is still
    there: a process that ended just after its answer was aborted by them.
    """
    wanted = None if columns is None else list(columns)
    return pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(columns=wanted, use_threads=False)
