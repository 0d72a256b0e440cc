"""The worker child: opens model and shard, computes row group by row group, holds one at a time.

A process of its own, so that a hung inference can be killed without losing the agent. It ends when its pipe closes, so
it never outlives a runner that was killed.
"""

import argparse
import base64
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pyarrow as pa

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.protocol import Lease
from fleetbatch.runner.cache import fetch_bundle
from fleetbatch.runner.client import open_http
from fleetbatch.runner.frames import Failed, GroupDone, Work, read_frame, work_of, write_frame
from fleetbatch.runner.remote import RemoteShard, http_fetch
from fleetbatch.workloads import Answer, Device, Workload, answer_rows, workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A workload with an order's model and options: ready to answer on this provider, in this process."""

    lease: tuple[str, str, dict[str, str]]
    kind: Workload
    answer: Answer


@dataclass(slots=True, kw_only=True)
class Bench:
    """Where a worker works: its hardware, its cache, and what it opened last."""

    device: Device
    cache: Path
    http: httpx.Client
    opened: Opened | None = None
    down_bytes_per_s: float = 0.0


def compute(bench: Bench, work: Work, out: IO[bytes]) -> None:
    """Compute a lease's row groups and say each as it is done; a lease that cannot be done ends with `Failed`."""
    lease = work.lease
    try:
        opened = _opened(bench, lease)
        key = base64.urlsafe_b64decode(lease.shard_key + "==")
        shard = RemoteShard(http_fetch(bench.http, lease.shard_url), lease.shard_bytes, key)
        if shard.row_groups != lease.row_groups:
            summary = f"the shard has {shard.row_groups} row groups, the lease says {lease.row_groups}"
            raise RejectedError(summary)  # noqa: TRY301 (one place sorts the errors by who acts)
        for row_group in range(work.start, lease.row_groups):
            write_frame(out, _compute_group(bench, lease, shard, row_group, opened))
    except RejectedError as error:
        write_frame(out, Failed(lease_id=lease.lease_id, refused=True, detail=str(error)))
    except TransientError as error:
        write_frame(out, Failed(lease_id=lease.lease_id, refused=False, detail=str(error)))


def main() -> None:
    """Obey the runner at the other end of stdin until it is gone."""
    parser = argparse.ArgumentParser(prog="python -m fleetbatch.runner.worker")
    parser.add_argument("--provider", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", default="")
    parser.add_argument("--cache", type=Path, required=True)
    told = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner says when to end
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not break the frames
    orders: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, orders), daemon=True).start()
    device = Device(provider=told.provider, threads=told.threads, precision=told.precision)
    bench = Bench(device=device, cache=told.cache, http=open_http())
    while True:
        compute(bench, orders.get(), out)


def _listen(pipe: IO[bytes], orders: queue.SimpleQueue[Work]) -> None:
    """Hand over what the runner says; end the whole process at once when the runner is gone."""
    while (frame := read_frame(pipe)) is not None:
        orders.put(work_of(frame))
    os._exit(0)


def _opened(bench: Bench, lease: Lease) -> Opened:
    """Return what answers the lease's rows; a model is opened, and its goldens checked, once per process."""
    wanted = (lease.workload, lease.model_sha256, lease.options)
    if bench.opened is None or bench.opened.lease != wanted:
        bench.opened = None  # one in memory
        kind = workload(lease.workload)
        answer = kind.open(_model(bench, lease), bench.device, lease.options)
        bench.opened = Opened(lease=wanted, kind=kind, answer=answer)
    return bench.opened


def _model(bench: Bench, lease: Lease) -> bytes | None:
    if not lease.model_sha256:
        return None
    fetched = fetch_bundle(
        bench.http, bench.cache, sha256=lease.model_sha256, url=lease.model_url, size=lease.model_bytes
    )
    bench.down_bytes_per_s = fetched.bytes_per_s or bench.down_bytes_per_s
    return fetched.data


def _compute_group(bench: Bench, lease: Lease, shard: RemoteShard, row_group: int, opened: Opened) -> GroupDone:
    began = time.monotonic()
    rows = shard.read(row_group)
    took = max(time.monotonic() - began, 1e-3)
    bench.down_bytes_per_s = rows.nbytes / took
    answers = answer_rows(opened.kind, opened.answer, rows, row_group=row_group)
    return GroupDone(
        lease_id=lease.lease_id,
        row_group=row_group,
        busy_s=time.monotonic() - began,
        answers=_stream(answers),
        down_bytes_per_s=bench.down_bytes_per_s,
    )


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


if __name__ == "__main__":
    main()
