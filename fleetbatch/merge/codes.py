"""Texts that repeat go through the merge as dictionary codes: read, joined and written without being spelt out. Pure.

What is written reads as texts all the same: codes are how Parquet keeps them, and the file names the contract's schema.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import conform, contract

_DISTINCT: Final = ("item_id", "source_uri")
"""Columns whose values hardly ever repeat."""
CODES: Final = pa.dictionary(pa.int32(), pa.string())
"""What a text that repeats is."""


@functools.cache
def coded_schema(name: str) -> pa.Schema:
    """Return a contract's schema with codes for texts that repeat, also within lists and structs."""
    return pa.schema(
        field if field.name in _DISTINCT else field.with_type(_coded(field.type)) for field in contract(name).schema
    )


def _coded(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string(kind):
        return CODES
    if isinstance(kind, pa.ListType):
        return pa.list_(kind.value_field.with_type(_coded(kind.value_type)))
    if isinstance(kind, pa.StructType):
        return pa.struct([part.with_type(_coded(part.type)) for part in kind])
    return kind


@functools.cache
def coded_leaves(name: str) -> tuple[str, ...]:
    """Return the leaves that are codes, as Parquet names them.

    The dictionary of any other leaf is built and thrown away, at half the time of its writing.
    """
    schema = coded_schema(name)
    return tuple(
        leaf for field in schema for leaf, kind in _leaves(field.name, field.type) if pa.types.is_dictionary(kind)
    )


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the path, as Parquet names it, and the type of every column that a column becomes."""
    if isinstance(kind, pa.ListType | pa.FixedSizeListType):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif isinstance(kind, pa.StructType):
        for part in kind:
            yield from _leaves(f"{path}.{part.name}", part.type)
    else:
        yield path, kind


def read_coded(data: bytes, name: str) -> pa.Table:
    """Read a Parquet file of a contract's rows; raise RejectedError when it breaks the contract."""
    source = pa.BufferReader(data)
    footer = pq.read_metadata(source)
    there = {footer.schema.column(number).path for number in range(footer.num_columns)}
    leaves = [leaf for leaf in coded_leaves(name) if leaf in there]
    file = pq.ParquetFile(source, metadata=footer, read_dictionary=leaves)
    return conform_coded(file.read(use_threads=False), name)


def conform_coded(table: pa.Table, name: str) -> pa.Table:
    """Return the table as `conform` does, in the contract's coded schema."""
    return conform(table, name, schema=coded_schema(name))


def beside(table: pa.Table, known: Mapping[str, Any], name: str, **columns: "pa.Array[Any]") -> pa.Table:
    """Return the table and, beside it, what is known of all its rows alike and further columns, by contract `name`."""
    kinds = coded_schema(name)
    alike = {column: repeated(value, table.num_rows, kinds.field(column).type) for column, value in known.items()}
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **alike, **columns})


def repeated(value: Any, rows: int, kind: pa.DataType) -> "pa.Array[Any]":  # noqa: ANN401 # whatever a column holds
    """Return a column that holds the same value in every row; texts are coded, and all such columns share their codes.

    Ten columns of a result hold one value each in a part: codes of their own would be half a gigabyte of zeros in a
    night of ten million rows.
    """
    if kind == CODES and value is not None:
        return pa.DictionaryArray.from_arrays(_zeros(rows.bit_length()).slice(0, rows), pa.array([value], pa.string()))
    one: Any = pa.scalar(value, kind)
    column: pa.Array[Any] = pa.repeat(one, rows)
    return column


@functools.cache
def _zeros(bits: int) -> "pa.Array[Any]":
    return pa.array(np.zeros(1 << bits, np.int32))


def either(flags: npt.NDArray[np.bool_], no: str, yes: str) -> "pa.Array[Any]":
    """Return a coded column that holds one text where a flag is set, and another elsewhere."""
    return pa.DictionaryArray.from_arrays(flags.astype(np.int32), pa.array([no, yes]))
