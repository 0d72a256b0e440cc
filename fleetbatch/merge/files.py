"""Result files and the file of missing rows are written as a stream: a row group at a time, a file at a time."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import Contract, contract
from fleetbatch.nouns import OrderKey, StagedFile
from fleetbatch.store import Store
from fleetbatch.units import MIB, Sha256

_MISSING_ROWS: Final = 65_536
"""A row group of the file of missing rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging:
    """Dials of the merge; they bound its memory."""

    rows_per_file: int = 1_000_000
    row_group_bytes: int = 32 * MIB
    """A row group of a result file is written when this much waits."""


@dataclass(slots=True)
class ResultFiles:
    """Staged result files; a shard's rows stay in one file. What is complete when the block ends is in `staged`."""

    store: Store
    key: OrderKey
    token: str
    folder: Path
    contract: Contract
    dials: Merging
    staged: list[StagedFile] = field(default_factory=list)
    rows: int = 0
    dead: int = 0
    _writer: pq.ParquetWriter | None = None
    _in_file: int = 0
    _waiting: list[pa.Table] = field(default_factory=list)
    _waiting_bytes: int = 0

    def __enter__(self) -> Self:
        """Open nothing yet: a night without answers has no files."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stage the last file; after an error stage nothing more."""
        if kind is None and self._in_file:
            self._finish()
        elif self._writer is not None:
            self._writer.close()

    def add(self, results: pa.Table) -> None:
        """Add the rows of one shard."""
        if not results.num_rows:
            return
        if self._in_file and self._in_file + results.num_rows > self.dials.rows_per_file:
            self._finish()
        self.rows += results.num_rows
        self.dead += results.num_rows - results["error"].null_count
        self._in_file += results.num_rows
        self._waiting.append(results)
        self._waiting_bytes += results.nbytes
        if self._waiting_bytes >= self.dials.row_group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = _open(self._path(), self.contract)
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self.dials.rows_per_file)
            self._waiting, self._waiting_bytes = [], 0

    def _finish(self) -> None:
        self._flush()
        assert self._writer is not None
        self._writer.close()
        name, path = f"{self.token}-{len(self.staged):05d}.parquet", self._path()
        key = layout.staged(self.key, name)
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = Sha256(hashlib.file_digest(file, "sha256").hexdigest())
        if not self.store.create_file(key, path) and self.store.size(key) != size:
            self.store.delete(key)  # another version of the writer staged it, and nothing points at it yet
            self.store.create_file(key, path)
        path.unlink()
        self.staged.append(StagedFile(name=name, key=key, rows=self._in_file, size_bytes=size, sha256=digest))
        self._writer, self._in_file = None, 0

    def _path(self) -> Path:
        return self.folder / f"result-{len(self.staged):05d}.parquet"


@dataclass(slots=True)
class NamedMissing:
    """The file of missing rows; it exists also when nothing is missing."""

    path: Path
    rows: int = 0
    _writer: pq.ParquetWriter = field(init=False)
    _waiting: list[pa.Table] = field(default_factory=list)
    _waiting_rows: int = 0

    def __enter__(self) -> Self:
        """Open the file."""
        self._writer = _open(self.path, contract("missing_rows"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits, and the footer."""
        self._flush()
        self._writer.close()

    def add(self, rows: pa.Table) -> None:
        """Add the missing rows of one shard."""
        if rows.num_rows:
            self._waiting.append(rows)
            self._waiting_rows += rows.num_rows
            self.rows += rows.num_rows
        if self._waiting_rows >= _MISSING_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting, self._waiting_rows = [], 0


def _open(path: Path, table: Contract) -> pq.ParquetWriter:
    schema = table.schema.with_metadata({"fleetbatch.contract": f"{table.name} {table.version}"})
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True, write_page_index=True)
