"""What is about to be published is looked at where it lies: sizes, footers, schema, row counts."""

import struct
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Merged, StagedFile
from fleetbatch.store import MissingObject, Store

_TAIL: Final = 64 * 1024
_END: Final = 8
"""A Parquet file ends with the footer's length (4 bytes) and "PAR1"."""


def refuse_other_files(store: Store, merged: Merged, keys: dict[str, str], name: str) -> None:
    """Raise RejectedError naming every published file that is not the staged one, or whose rows do not add up."""
    problems: list[str] = []
    rows = 0
    for file in merged.files:
        rows += _rows(store, file, keys[file.name], name, problems)
    if not problems and rows != merged.answers:
        problems.append(f"the footers hold {rows} rows, {merged.answers} were merged")
    if merged.rows_in != merged.rows_out + merged.dead_letter_rows + merged.missing_rows:
        problems.append("rows in are not rows out, dead letters and missing rows together")
    if problems:
        summary = f"{merged.key} cannot be published as it was merged"
        raise RejectedError(summary, problems)


def read_footer(store: Store, key: str, size: int) -> pq.FileMetaData:
    """Read a Parquet file's footer by range; raise MissingObject or a pyarrow error when there is none."""
    tail = store.read_range(key, max(0, size - _TAIL), size)
    length = struct.unpack("<I", tail[-_END:-4])[0] + _END
    if length > len(tail):
        tail = store.read_range(key, max(0, size - length), size)
    return pq.read_metadata(pa.BufferReader(tail))


def _rows(store: Store, file: StagedFile, key: str, name: str, problems: list[str]) -> int:
    size = store.size(key)
    if size != file.size_bytes:
        problems.append(f"{key} has {size} bytes, the staged file had {file.size_bytes}")
        return 0
    try:
        footer = read_footer(store, key, size)
    except (MissingObject, pa.ArrowInvalid, struct.error) as error:
        problems.append(f"{key} is not a Parquet file: {error}")
        return 0
    if not footer.schema.to_arrow_schema().remove_metadata().equals(contract(name).schema):
        problems.append(f"{key} does not have the columns of contract {name!r}")
    if footer.num_rows != file.rows:
        problems.append(f"{key} holds {footer.num_rows} rows, {file.rows} were merged")
    return footer.num_rows
