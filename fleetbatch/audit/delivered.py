"""A stranger's Parquet file is opened in a child with little memory and a stop-watch, and leaves it as plain columns.

A few hundred bytes of Parquet may decode to hundreds of megabytes, or crash a reader: the child is the only one to feel
it, and the file is then simply not a part.
"""

import contextlib
import multiprocessing
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.units import MIB
from fleetbatch.workloads.bounds import Bounds, beyond

_BATCH_ROWS: Final = 256
_REASONS_MAX: Final = 10
_SERVE: Final = "import sys; from fleetbatch.audit.delivered import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a delivered part may be, whatever it claims."""

    memory_bytes: int = 1024 * MIB
    """Of the child, pyarrow itself included."""
    seconds: float = 30.0
    answer: Bounds = field(default_factory=Bounds)
    """What honest runners keep; the bytes of a row, and the answers of an item, are those on average over the part."""

    def answers_max(self, name: str, items: int) -> int:
        """Return how many rows a part of contract `name` may have for so many items."""
        return items if len(contract(name).key) == 1 else items * self.answer.item_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAPart:
    """Why a delivered file cannot be a part."""

    problems: tuple[str, ...]


class PartReader:
    """Opens delivered parts, one after another whatever threads ask, in a child that it replaces when one kills it."""

    def __init__(self, limits: Limits | None = None) -> None:
        """Start nothing yet."""
        self._limits = limits or Limits()
        self._pipe: Connection | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def read(self, data: bytes, name: str, rows: int) -> pa.Table | NotAPart:
        """Return the part as a table of contract `name` for exactly that many items, or why it is none."""
        with self._one_at_a_time:
            return self._read(data, name, rows)

    def _read(self, data: bytes, name: str, rows: int) -> pa.Table | NotAPart:
        pipe = self._open()
        try:
            pipe.send((data, name, rows))
            if not pipe.poll(self._limits.seconds):
                self.close()
                return NotAPart(problems=(f"reading it took more than {self._limits.seconds:.0f} s",))
            answer: bytes | tuple[str, ...] = pipe.recv()
        except (EOFError, OSError):
            self.close()
            return NotAPart(problems=("reading it took more memory than a part may, or crashed its reader",))
        if isinstance(answer, tuple):
            return NotAPart(problems=answer)
        return pa.ipc.open_stream(answer).read_all()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._pipe is not None:
            self._pipe.close()
        self._child = self._pipe = None

    def _open(self) -> Connection:
        if self._pipe is None:
            self._pipe, theirs = multiprocessing.Pipe()
            # Not a multiprocessing child: workers of a cluster are daemonic and may have none.
            number = theirs.fileno()
            self._child = subprocess.Popen([sys.executable, "-c", _SERVE, str(number)], pass_fds=[number])  # noqa: S603 # our own words
            theirs.close()
            self._pipe.send(self._limits)
        return self._pipe


def serve(number: int) -> None:
    """Read parts that come through the pipe of this file descriptor until the other end is gone."""
    pipe = Connection(number)
    limits: Limits = pipe.recv()
    pa.set_memory_pool(pa.system_memory_pool())  # pools of pyarrow's own reserve more than the limit
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            data, name, rows = pipe.recv()
            pipe.send(_answer(data, name, rows, limits))


def _answer(data: bytes, name: str, rows: int, limits: Limits) -> bytes | tuple[str, ...]:
    try:
        table = open_part(data, name, rows, limits)
    except RejectedError as error:
        return error.problems or (error.summary,)
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        return (f"it cannot be read: {str(error).partition(chr(10))[0][:300]}",)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def open_part(data: bytes, name: str, rows: int, limits: Limits) -> pa.Table:
    """Decode a part step by step; raise RejectedError or a pyarrow error as soon as something is not as it must be."""
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    strange = [column for column in file.schema_arrow.names if column not in contract(name).schema.names]
    _refuse_if([f"column {column[:80]!r} is not in contract {name!r}" for column in strange[:_REASONS_MAX]])
    said = file.metadata.num_rows
    if not rows <= said <= limits.answers_max(name, rows):
        _refuse_if([f"it holds {said} rows, {rows} were said"])
    batches, size, seen = [], 0, 0
    for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
        batches.append(batch)
        size, seen = size + batch.nbytes, seen + batch.num_rows
        if size > said * limits.answer.row_bytes or seen > said:
            _refuse_if([f"it decodes to more than {said} rows of {limits.answer.row_bytes} bytes"])
    table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    table.validate(full=True)
    if seen != said:
        _refuse_if([f"it decodes to {seen} rows, {said} were said"])
    table = conform(table, name)
    _refuse_if(list(dict.fromkeys(beyond(table, limits.answer).values()))[:_REASONS_MAX])
    return table.combine_chunks()


def form_problem(part: pa.Table, name: str, shard: pa.Table, row_groups: Sequence[int]) -> str:
    """Return what is wrong with the form of a part of contract `name`, or nothing.

    `shard` has the items that it answers (item_id, error), `row_groups` the row group of each. Pure.
    """
    place = pc.index_in(part["item_id"], value_set=shard["item_id"].combine_chunks())
    key = list(contract(name).key)
    if place.null_count or _out_of_order(place.to_numpy(), shard.num_rows, single=len(key) == 1):
        return "its ids are not those of the shard's rows, in their order"
    if part.group_by(key).aggregate([]).num_rows != part.num_rows:
        return f"it answers the same {' and '.join(key)} twice"
    if (part["row_group"].to_numpy() != np.asarray(row_groups)[place.to_numpy()]).any():
        return "its row groups are not those of the shard"
    if pc.any(pc.and_(pc.is_valid(shard["error"].take(place)), pc.is_null(part["error"]))).as_py():
        return "it answers rows that hold nothing to compute"
    return ""


def _out_of_order(places: npt.NDArray[np.int64], items: int, *, single: bool) -> bool:
    """Return whether an item is left out, comes before one that it follows or, where one answer is all, comes twice."""
    steps = np.diff(places, prepend=-1, append=items)
    return bool(((steps != 1) & (single | (steps != 0))).any())


def _refuse_if(problems: list[str]) -> None:
    if problems:
        summary = "the file is not a part"
        raise RejectedError(summary, problems)
