"""A result file and its missing rows are written as a stream, a row group at a time, and staged once under one name."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import Contract, answer_columns
from fleetbatch.store import Store
from fleetbatch.units import MIB, Sha256

ROW_GROUP_BYTES: Final = 32 * MIB
_DISTINCT: Final = ("item_id", "source_uri")
"""Columns whose values hardly ever repeat."""


@dataclass(slots=True)
class RowFile:
    """One Parquet file of a contract's rows; a row group is written when `row_group_bytes` wait. No rows, no file."""

    path: Path
    contract: Contract
    row_group_bytes: int = ROW_GROUP_BYTES
    always: bool = False
    """Write the file also when no row comes."""
    rows: int = 0
    _writer: pq.ParquetWriter | None = None
    _waiting: list[pa.Table] = field(default_factory=list)
    _waiting_bytes: int = 0

    def __enter__(self) -> Self:
        """Open nothing before the first row comes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits, and the footer."""
        if kind is None and (self.rows or self.always):
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, rows: pa.Table) -> None:
        """Add rows that follow the contract."""
        if rows.num_rows:
            self.rows += rows.num_rows
            self._waiting.append(rows)
            self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= self.row_group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = self._open()
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting, self._waiting_bytes = [], 0

    def _open(self) -> pq.ParquetWriter:
        named = {"fleetbatch.contract": f"{self.contract.name} {self.contract.version}"}
        schema = self.contract.schema.with_metadata(named)
        return pq.ParquetWriter(
            self.path,
            schema,
            compression="zstd",
            use_dictionary=list(_repeating(self.contract)),  # type: ignore[arg-type] # the stubs know only yes and no
            write_page_checksum=True,
            write_page_index=True,
        )


def _repeating(of: Contract) -> Iterator[str]:
    """Yield the leaves whose values repeat: a dictionary of the others is built and thrown away, at half the time."""
    answers = set(answer_columns(of))
    for column in of.schema:
        if column.name not in _DISTINCT:
            for leaf, kind in _leaves(column.name, column.type):
                if column.name not in answers or not pa.types.is_floating(kind):
                    yield leaf


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the path, as Parquet names it, and the type of every column that a column becomes."""
    if isinstance(kind, pa.ListType | pa.FixedSizeListType):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif isinstance(kind, pa.StructType):
        for part in kind:
            yield from _leaves(f"{path}.{part.name}", part.type)
    else:
        yield path, kind


def stage(store: Store, path: Path, key: str) -> tuple[int, Sha256]:
    """Create a file in the store under a key that follows from its content; return its size and sha256."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = Sha256(hashlib.file_digest(file, "sha256").hexdigest())
    if not store.create_file(key, path) and store.size(key) != size:
        store.delete(key)  # another version of the writer staged it, and nothing points at it yet
        store.create_file(key, path)
    return size, digest
