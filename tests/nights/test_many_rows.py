"""A hundred million result rows are merged, checked and published in little memory, here and on a cluster."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
import pyarrow as pa
import pytest

from benchmarks.result_rows import LABELS, PARTS, SHARD_ROWS, ResultRows, write_night
from fleetbatch.checks import check_order
from fleetbatch.engine import open_engine
from fleetbatch.merge import merge_order
from fleetbatch.nouns import Merged
from fleetbatch.publish import publish_order
from fleetbatch.store import open_store
from fleetbatch.units import MIB

SHARDS: Final = 1_600
MEMORY_MAX: Final = 2048 * MIB
NOW: Final = datetime(2026, 11, 23, 5, tzinfo=UTC)


class Peaks:
    """The most memory that this process and each of its descendants ever held."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self._over = threading.Event()

    def look(self) -> None:
        """Look until it is over; the kernel keeps each process's peak."""
        while not self._over.wait(0.5):
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                self.bytes[process.pid] = max(self.bytes.get(process.pid, 0), _peak_bytes(process.pid))

    def end(self) -> None:
        self._over.set()


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


@contextmanager
def watched() -> Iterator[Peaks]:
    peaks = Peaks()
    watch = threading.Thread(target=peaks.look)
    watch.start()
    try:
        yield peaks
    finally:
        peaks.end()
        watch.join()


def morning(home: Path, night: ResultRows, engine: str) -> Merged:
    """Merge, check and publish as the steps do, through an engine."""
    store, started = open_store(home.as_uri(), deployment_key=b"k" * 32), time.perf_counter()
    missing = pa.table({"shard_id": pa.array([], pa.uint64()), "reason": pa.array([], pa.string())})
    with watched() as peaks, open_engine(engine) as pool:
        merged = merge_order(store, night.order, night.parts, missing, pool=pool)
        assert check_order(store, night.order, merged, labels=LABELS, pool=pool).passed
        publish_order(store, night.order, merged, now=NOW)
    print(
        f"\n{engine.partition(':')[0]}: {merged.rows_out:,} rows in {len(merged.files)} files, "
        f"{time.perf_counter() - started:.0f} s, peaks of {len(peaks.bytes)} processes in MiB: "
        f"{sorted(found // 2**20 for found in peaks.bytes.values())[-4:]}"
    )
    assert max(peaks.bytes.values()) <= MEMORY_MAX
    return merged


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")  # the cluster's own, while it starts and stops
def test_a_hundred_million_rows_are_published_alike_here_and_on_a_cluster_within_two_gibibytes_a_process(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with open_engine("local") as pool:
        night = write_night(open_store(here.as_uri(), deployment_key=b"k" * 32), shards=SHARDS, pool=pool)
    assert night.parts.num_rows == SHARDS * PARTS
    shutil.copytree(here, there, copy_function=os.link)
    merged = morning(here, night, "local")
    assert (merged.rows_in, merged.rows_out, merged.missing_rows) == (SHARDS * SHARD_ROWS,) * 2 + (0,)
    from distributed import LocalCluster  # slow to import: here alone

    dials = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with LocalCluster(**dials) as cluster:  # type: ignore[no-untyped-call] # distributed has no types
        assert morning(there, night, f"dask://{cluster.scheduler_address.removeprefix('tcp://')}") == merged
