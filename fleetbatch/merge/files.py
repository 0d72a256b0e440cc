"""A result file and its missing rows are written as a stream, a row group at a time, and staged once under one name."""

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import Contract, answer_columns
from fleetbatch.merge.codes import coded_leaves, coded_schema
from fleetbatch.store import Store
from fleetbatch.units import MIB, Sha256

ROW_GROUP_BYTES: Final = 32 * MIB
_BATCH_ROWS: Final = 65_536
"""The writer sums codes up batch by batch, which costs as much as writing them when batches are small."""


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
        """Add rows that follow the contract, texts that repeat as codes."""
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
            table = pa.concat_tables(self._waiting).unify_dictionaries()  # codes of two dictionaries are spelt out
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting, self._waiting_bytes = [], 0

    def _open(self) -> pq.ParquetWriter:
        schema, coded = self.contract.schema, coded_schema(self.contract.name)
        answers = set(answer_columns(self.contract))
        others = [field.name for field in schema if field.name not in answers and not pa.types.is_nested(field.type)]
        named = {"fleetbatch.contract": f"{self.contract.name} {self.contract.version}"}
        named["ARROW:schema"] = base64.b64encode(schema.serialize().to_pybytes()).decode()
        return pq.ParquetWriter(
            self.path,
            coded.with_metadata(named),
            compression="zstd",
            store_schema=False,  # that of the codes; the file says the contract's
            use_dictionary=list(coded_leaves(self.contract.name)),  # type: ignore[arg-type] # the stubs know only yes and no
            write_page_checksum=True,
            write_page_index=True,
            write_statistics=others,  # rows stand in the order of the input: no reader skips by what is in an answer
            write_batch_size=_BATCH_ROWS,
        )


def stage(store: Store, path: Path, key: str) -> tuple[int, Sha256]:
    """Create a file in the store under a key that follows from its content; return its size and sha256."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = Sha256(hashlib.file_digest(file, "sha256").hexdigest())
    if not store.create_file(key, path) and store.size(key) != size:
        store.delete(key)  # another version of the writer staged it, and nothing points at it yet
        store.create_file(key, path)
    return size, digest
