"""Trusted machines answer rows in a child with a stop-watch, as cars do: what a row does to it, no other order feels.

A row at which the child hangs or ends is dead, with the reason; the rows beside it are answered one by one.
"""

import math
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import pyarrow as pa

from fleetbatch.errors import FleetbatchError, RejectedError, TransientError
from fleetbatch.workloads import (
    Answer,
    Device,
    answer_rows,
    open_workload,
    rows_at_once,
    why_ended,
    with_dead,
    workload,
)

TRUSTED: Final = Device(provider="CPUExecutionProvider", threads=1)
"""The engine runs a process per core."""
_SERVE: Final = "import sys; from fleetbatch.audit.answering import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a child is waited for."""

    row_s: float = 120.0
    """What a car gives a row."""
    open_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an order's rows are answered with; orders of one recipe share an opened model."""

    workload: str
    model_sha256: str
    options: tuple[tuple[str, str], ...]


@dataclass(slots=True, kw_only=True)
class _Child:
    recipe: Recipe
    process: "subprocess.Popen[bytes]"
    pipe: Connection
    row_s: float = math.inf
    """What the last rows took each; infinite before the first."""


class Answerer:
    """Answers rows in a child that has one recipe open, and that is replaced when a row ends it.

    Threads wait for each other: a cluster's worker may have several.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        """Start nothing yet."""
        self._patience = patience or Patience()
        self._child: _Child | None = None
        self._one_at_a_time = threading.Lock()

    def answer(self, recipe: Recipe, model: Callable[[], bytes | None], rows: pa.Table, *, row_group: int) -> pa.Table:
        """Return the answers of rows of contract `shard`; `model` is asked for its bytes when it must be opened.

        Raises RejectedError when the workload's code or the model cannot be used, TransientError when the world was
        not ready.
        """
        with self._one_at_a_time:
            return pa.concat_tables(list(self._answers(recipe, model, rows, row_group)))

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            self._child.process.kill()
            self._child.process.wait()
            self._child.pipe.close()
        self._child = None

    def _answers(
        self, recipe: Recipe, model: Callable[[], bytes | None], rows: pa.Table, row_group: int
    ) -> Iterator[pa.Table]:
        start = 0
        while start < max(rows.num_rows, 1):
            child = self._open(recipe, model)
            some, began = rows.slice(start, rows_at_once(child.row_s, self._patience.row_s)), time.monotonic()
            yield self._some(recipe, model, some, row_group)
            child.row_s, start = (time.monotonic() - began) / max(some.num_rows, 1), start + max(some.num_rows, 1)

    def _some(self, recipe: Recipe, model: Callable[[], bytes | None], rows: pa.Table, row_group: int) -> pa.Table:
        child = self._open(recipe, model)
        found = self._ask(child, (_stream(rows), row_group), self._patience.row_s)
        if not isinstance(found, str):
            return pa.ipc.open_stream(found).read_all()
        if rows.num_rows > 1:
            each = [rows.slice(number, 1) for number in range(rows.num_rows)]
            return pa.concat_tables([self._some(recipe, model, one, row_group) for one in each])
        return answer_rows(workload(recipe.workload), _nothing, with_dead(rows, {0: found}), row_group=row_group)

    def _open(self, recipe: Recipe, model: Callable[[], bytes | None]) -> _Child:
        if self._child is None or self._child.recipe != recipe:
            self.close()
            data = model()
            ours, theirs = multiprocessing.Pipe()
            # Not a multiprocessing child: workers of a cluster are daemonic and may have none.
            process = subprocess.Popen(  # noqa: S603 (our own words)
                [sys.executable, "-c", _SERVE, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
            theirs.close()
            self._child = _Child(recipe=recipe, process=process, pipe=ours)
            try:
                why = self._ask(self._child, (recipe, data), self._patience.open_s, what="it")
            except FleetbatchError:
                self.close()
                raise
            if isinstance(why, str):
                message = f"workload {recipe.workload!r} was not opened with model {recipe.model_sha256[:12]}: {why}"
                raise TransientError(message)
        return self._child

    def _ask(self, child: _Child, question: object, patience_s: float, *, what: str = "this row") -> bytes | str:
        """Return what the child answers, or why it never will: then it is gone."""
        try:
            child.pipe.send(question)
            if not child.pipe.poll(patience_s):
                self.close()
                return f"given up: {what} took more than {patience_s:g} s"
            match child.pipe.recv():
                case FleetbatchError() as error:
                    raise error
                case bytes() as answers:
                    return answers
                case strange:
                    raise AssertionError(strange)
        except (EOFError, ConnectionError):
            ended = child.process.wait()
            self.close()
            if not (why := why_ended(ended)):
                message = f"the process that answers was ended from outside ({ended})"
                raise TransientError(message) from None
            return why


def serve(number: int) -> None:
    """Open a recipe and answer rows that come through the pipe of this file descriptor until its other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the parent says when to end
    pipe, told = Connection(number), queue.SimpleQueue[Any]()
    threading.Thread(target=_listen, args=(pipe, told), daemon=True).start()
    recipe, model = told.get()
    answer = _opened(pipe, recipe, model)
    while True:
        rows, row_group = told.get()
        try:
            table = pa.ipc.open_stream(rows).read_all()
            pipe.send(_stream(answer_rows(workload(recipe.workload), answer, table, row_group=row_group)))
        except (RejectedError, TransientError) as error:
            pipe.send(error)


def _listen(pipe: Connection, told: "queue.SimpleQueue[Any]") -> None:
    """Hear the parent while the rest computes; end the whole process at once when it is gone."""
    while True:
        try:
            told.put(pipe.recv())
        except (EOFError, ConnectionError):
            os._exit(0)


def _opened(pipe: Connection, recipe: Recipe, model: bytes | None) -> Answer:
    options: Mapping[str, str] = dict(recipe.options)
    try:
        answer = open_workload(recipe.workload, model, TRUSTED, options)
    except (RejectedError, TransientError) as error:
        pipe.send(error)
        sys.exit()
    pipe.send(b"opened")
    return answer


def _nothing(rows: pa.Table) -> pa.Table:
    raise AssertionError(rows)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
