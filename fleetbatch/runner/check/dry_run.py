"""A small night inside the car: a sealed shard, served on the loopback, computed by the very workers of the runner."""

import base64
import io
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch.bundle import Bundle, open_bundle
from fleetbatch.contracts import conform, contract
from fleetbatch.errors import TransientError
from fleetbatch.protocol import Lease
from fleetbatch.runner.crew import Crew, FromCrew, Lost
from fleetbatch.runner.frames import Failed
from fleetbatch.runner.worker import WorkerSettings
from fleetbatch.sealing import KEY_BYTES, seal

MODEL: Final = Path(__file__).parents[2] / "models" / "road_signs.zip"
ROW_GROUPS: Final = 400
"""More than any car computes while it is watched, so that it is at work when it is stopped."""
ROW_GROUP_ROWS: Final = 64
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What was measured."""

    first_s: float
    """From the start of the workers to the first answers."""
    rows_per_s: float
    peak_bytes: int
    """Of the largest worker."""
    stop_s: float
    """From the word to the end of the last worker, in mid-work."""
    refused: str = ""
    """Why the workers would not compute."""


def dry_run(settings: WorkerSettings, data: bytes, *, seconds: float) -> DryRun:
    """Compute a bundle's own goldens for that long, then stop in mid-work."""
    key = secrets.token_bytes(KEY_BYTES)
    bundle = open_bundle(data, expected_sha256=None)
    shard = _shard(bundle, key)
    heard: queue.SimpleQueue[FromCrew] = queue.SimpleQueue()
    crew = Crew(settings, heard.put)
    with _served({"/shard": shard, "/model": data}) as origin:
        began = time.monotonic()
        crew.start(_lease(bundle, origin, key, len(data), len(shard)), range(ROW_GROUPS))
        try:
            return _watch(crew, heard, began, seconds)
        finally:
            crew.close()


def _watch(crew: Crew, heard: "queue.SimpleQueue[FromCrew]", began: float, seconds: float) -> DryRun:
    first_at, groups, peak = 0.0, 0, 0
    while not first_at or time.monotonic() - first_at < seconds:
        try:
            message = heard.get(timeout=PATIENCE_S)
        except queue.Empty as error:
            summary = f"the workers answered nothing for {PATIENCE_S:g} s"
            raise TransientError(summary) from error
        came = crew.note(message)
        if isinstance(came, Failed | Lost):
            return _refused(came.detail)
        if came is None:
            continue
        first_at = first_at or time.monotonic()
        groups += 1
        peak = max([peak, *(one.memory_info().rss for one in psutil.Process().children(recursive=True))])
    rate = (groups - 1) * ROW_GROUP_ROWS / (time.monotonic() - first_at)
    told_at = time.monotonic()
    crew.kill(idle_too=True)
    stopped_s = time.monotonic() - told_at
    return DryRun(first_s=first_at - began, rows_per_s=rate, peak_bytes=peak, stop_s=stopped_s)


def _refused(why: str) -> DryRun:
    return DryRun(first_s=0.0, rows_per_s=0.0, peak_bytes=0, stop_s=0.0, refused=why)


def _shard(bundle: Bundle, key: bytes) -> bytes:
    pictures = [golden.content for golden in bundle.content.goldens]
    rows = [{"item_id": f"check-{n}", "bytes": pictures[n % len(pictures)]} for n in range(ROW_GROUP_ROWS)]
    table = conform(pa.Table.from_pylist(rows, schema=contract("shard").schema), "shard")
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, encryption_properties=seal(key)) as writer:
        for _ in range(ROW_GROUPS):
            writer.write_table(table)
    return file.getvalue()


def _lease(bundle: Bundle, origin: str, key: bytes, model_bytes: int, shard_bytes: int) -> Lease:
    return Lease(
        lease_id="check",
        fence=0,
        shard_id="0" * 16,
        order_key="",
        workload=bundle.manifest.workload,
        options={},
        model_sha256=bundle.sha256,
        model_url=f"{origin}/model",
        model_bytes=model_bytes,
        shard_url=f"{origin}/shard",
        shard_bytes=shard_bytes,
        shard_sha256="",
        shard_key=base64.urlsafe_b64encode(key).decode().rstrip("="),
        row_groups=ROW_GROUPS,
        start=0,
        expires_in_s=600.0,
        beat_every_s=60.0,
        part_every_s=60.0,
    )


@contextmanager
def _served(objects: dict[str, bytes]) -> Iterator[str]:
    """Serve bytes and ranges of them on the loopback; give the origin."""

    class Objects(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data, asked = objects[self.path], self.headers.get("range")
            if asked:
                start, stop = (int(number) for number in asked.removeprefix("bytes=").split("-"))
                data = data[start : stop + 1]
            self.send_response(206 if asked else 200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: workers are stopped in the midst of a download, on purpose."""

    server = Server(("127.0.0.1", 0), Objects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
