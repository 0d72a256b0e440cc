"""The worker child: one core, one model, one row group in work and the next one on its way.

A process of its own, so that a hung inference can be killed without losing the agent. It ends when its pipe closes, so
it never outlives a runner that was killed.
"""

import base64
import math
import os
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, TypeAlias

import pyarrow as pa

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.inference import load_runtime
from fleetbatch.protocol import Lease
from fleetbatch.runner.allocator import Heap, keep_freed_memory, let_go_of_libraries
from fleetbatch.runner.cache import fetch_bundle
from fleetbatch.runner.download import Downloads
from fleetbatch.runner.frames import (
    Failed,
    FromWorker,
    GroupDone,
    Share,
    Spare,
    Work,
    read_frame,
    to_worker,
    write_frame,
)
from fleetbatch.runner.memory import refuse_too_large
from fleetbatch.runner.remote import RemoteShard
from fleetbatch.runner.whereabouts import Whereabouts
from fleetbatch.workloads import (
    Answer,
    Device,
    Workload,
    answer_rows,
    blamed,
    open_workload,
    rows_at_once,
    with_dead,
    workload,
)

ROW_LIMIT_S: Final = 120.0

SPARE_BYTES_MAX: Final = 4 << 20
"""More is not given up at once: it passes through the runner's memory."""
SPARE_S_MIN: Final = 0.02
"""Less than this is not shared: it is done about when another would have it."""
FEW_LIMIT_S: Final = 0.4
"""Near a lease's end rows are computed together as if each might take so long at most: for .05 s."""

Told: TypeAlias = "tuple[Work, Future[RemoteShard] | None]"
"""What to compute, and its bytes, which are on their way unless they came with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What the workers of this car are started with."""

    workers: int
    """One a core."""
    memory_bytes: int
    """What each may use."""
    provider: str
    precision: str
    cache: Path
    row_limit_s: float = ROW_LIMIT_S
    """A row that takes longer is given up: it becomes a dead letter that says so."""


@dataclass(slots=True, kw_only=True)
class Opened:
    """A workload with an order's model and options: ready to answer on this provider, in this process."""

    wanted: tuple[str, str, dict[str, str]]
    kind: Workload
    answer: Answer
    row_s: float = math.inf
    """What the last rows took each; infinite before the first."""


@dataclass(slots=True, kw_only=True)
class Reader:
    """Fetches row groups, one ahead of the computing; it holds the shard of one lease."""

    worker_bytes: int
    downloads: Downloads = field(default_factory=Downloads)
    bytes_per_s: float = 0.0
    _shard: tuple[str, RemoteShard] | None = None

    def fetch(self, work: Work) -> RemoteShard:
        """Return the shard that has a row group's bytes; raise RejectedError for what does not fit or was changed."""
        lease, shard = work.lease, self._open(work.lease)
        refuse_too_large(
            self.worker_bytes, model_bytes=lease.model_bytes, group_bytes=shard.group_bytes(work.row_group)
        )
        began = time.monotonic()
        size_bytes = shard.fetch(work.row_group)
        self.bytes_per_s = size_bytes / max(time.monotonic() - began, 1e-3)
        return shard

    def read(self, work: Work, shard: RemoteShard) -> pa.Table:
        """Return a fetched row group's rows; raise RejectedError for a changed bit, or for a picture that is too large.

        The thread that computes calls this: so a row group is open only while it is computed.
        """
        rows = shard.read(work.row_group)
        with blamed(f"workload {work.lease.workload!r} cannot say what a row takes"):
            row_bytes = workload(work.lease.workload).row_bytes(rows)
        refuse_too_large(
            self.worker_bytes, model_bytes=work.lease.model_bytes, group_bytes=rows.nbytes, row_bytes=row_bytes
        )
        return rows

    def _open(self, lease: Lease) -> RemoteShard:
        if self._shard is None or self._shard[0] != lease.lease_id:
            key = base64.urlsafe_b64decode(lease.shard_key + "==")
            shard = RemoteShard(
                lambda start, stop: self.downloads.span(lease.shard_url, start, stop), lease.shard_bytes, key
            )
            if shard.row_groups != lease.row_groups:
                summary = f"the shard has {shard.row_groups} row groups, the lease says {lease.row_groups}"
                raise RejectedError(summary)
            self._shard = lease.lease_id, shard
        return self._shard[1]


@dataclass(slots=True, kw_only=True)
class Bench:
    """Where a worker works: its hardware, its cache, and what it opened last."""

    device: Device
    cache: Path
    reader: Reader
    whereabouts: Whereabouts
    downloads: Downloads = field(default_factory=Downloads)
    heap: Heap = field(default_factory=Heap)
    row_limit_s: float = ROW_LIMIT_S
    opened: Opened | None = None
    share_of: str = ""
    """The lease of which another, who is idle, waits for half of what is not begun here."""

    def compute(self, work: Work, fetched: "Future[RemoteShard] | None") -> Iterator[FromWorker]:
        """Yield what is given up of a row group, and the answers of the rest; or why this lease fails here."""
        try:
            opened = self._open(work.lease)
            answers = yield from self._answer(opened, work, self._rows(work, fetched))
        except RejectedError as error:
            yield Failed(lease_id=work.lease.lease_id, refused=True, detail=str(error))
        except TransientError as error:
            yield Failed(lease_id=work.lease.lease_id, refused=False, detail=str(error))
        else:
            yield GroupDone(
                lease_id=work.lease.lease_id,
                row_group=work.row_group,
                start=work.start,
                answers=_stream(answers),
                down_bytes_per_s=self.reader.bytes_per_s,
            )

    def _rows(self, work: Work, fetched: "Future[RemoteShard] | None") -> pa.Table:
        if fetched is None:
            rows = pa.ipc.open_stream(work.rows).read_all()  # some may have been given up since they came
        else:
            rows = self.reader.read(work, fetched.result()).slice(work.start)
        return rows.slice(0, _length(work))

    def _open(self, lease: Lease) -> Opened:
        """Return what answers the lease's rows; a model is opened, and its goldens checked, once per process."""
        wanted = (lease.workload, lease.model_sha256, lease.options)
        if self.opened is None or self.opened.wanted != wanted:
            self.opened = None  # one in memory
            kind = workload(lease.workload)
            answer = open_workload(lease.workload, self._model(lease), self.device, lease.options)
            self.opened = Opened(wanted=wanted, kind=kind, answer=answer)
            self.heap.give_back()
        return self.opened

    def _model(self, lease: Lease) -> bytes | None:
        if not lease.model_sha256:
            return None
        return fetch_bundle(
            self.downloads, self.cache, sha256=lease.model_sha256, url=lease.model_url, size=lease.model_bytes
        )

    def _answer(self, opened: Opened, work: Work, rows: pa.Table) -> Generator[Spare, None, pa.Table]:
        """Ask the workload for a few rows at a time, and say which before each time; give up rows when asked."""
        rows = with_dead(rows, {row - work.start: why for row, why in work.dead.items()})
        limit_s = min(self.row_limit_s, FEW_LIMIT_S) if work.few else self.row_limit_s
        pieces, start = [], 0
        while start < rows.num_rows:
            if self.share_of == work.lease.lease_id and (kept := shared(rows, start, opened.row_s)) < rows.num_rows:
                self.share_of = ""
                yield _spare(work, rows, kept)
                rows = rows.slice(0, kept)
            some = rows.slice(start, 1 if work.one_by_one else rows_at_once(opened.row_s, limit_s))
            place, began = work.start + start, time.monotonic()
            self.whereabouts.enter(work.row_group, place, place + some.num_rows)
            pieces.append(answer_rows(opened.kind, opened.answer, some, row_group=work.row_group))
            opened.row_s, start = (time.monotonic() - began) / some.num_rows, start + some.num_rows
        self.whereabouts.leave()
        self.heap.settle()
        return pa.concat_tables(pieces)


def shared(rows: pa.Table, start: int, row_s: float) -> int:
    """Return where the later half of the rows from `start` on begins; their number where that is not worth it. Pure."""
    stop = rows.num_rows
    if (stop - start) * row_s < SPARE_S_MIN:
        return stop
    kept = (start + stop + 1) // 2
    while kept < stop and rows.slice(kept).nbytes > SPARE_BYTES_MAX:
        kept = (kept + stop + 1) // 2
    return kept


def _spare(work: Work, rows: pa.Table, kept: int) -> Spare:
    return Spare(
        lease_id=work.lease.lease_id,
        row_group=work.row_group,
        start=work.start + kept,
        stop=work.start + rows.num_rows,
        rows=_stream(rows.slice(kept)),
    )


def load() -> None:
    """Load what every worker needs and loads late."""
    load_runtime()
    pa.array([0])  # with the first array pyarrow looks for pandas, which a car has no other use for
    let_go_of_libraries()


def work(settings: WorkerSettings, descriptors: Sequence[int]) -> None:
    """Obey the runner at the other end of the pipes until it is gone: its words, our answers, and our whereabouts."""
    told, says, whereabouts = descriptors
    keep_freed_memory()
    bench = Bench(
        device=Device(provider=settings.provider, threads=1, precision=settings.precision),
        cache=settings.cache,
        reader=Reader(worker_bytes=settings.memory_bytes),
        whereabouts=Whereabouts(whereabouts),
        row_limit_s=settings.row_limit_s,
    )
    waiting: queue.SimpleQueue[Told] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(os.fdopen(told, "rb"), bench, waiting), daemon=True).start()
    with os.fdopen(says, "wb") as out:
        while True:
            for said in bench.compute(*waiting.get()):
                write_frame(out, said)


def _listen(pipe: IO[bytes], bench: Bench, told: "queue.SimpleQueue[Told]") -> None:
    """Fetch what the runner says while the rest computes; end the whole process at once when the runner is gone."""
    with ThreadPoolExecutor(max_workers=1) as fetching:
        while (frame := read_frame(pipe)) is not None:
            said = to_worker(frame)
            if isinstance(said, Share):
                bench.share_of = said.lease_id
            else:
                told.put((said, None if said.rows else fetching.submit(bench.reader.fetch, said)))
        os._exit(0)


def _length(work: Work) -> int | None:
    return None if work.stop is None else work.stop - work.start


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
