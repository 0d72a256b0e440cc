"""Ten million rows merged, checked and published, beside polars that only reads the same parts and writes them.

Both run as a night's step does (its environment). CPU of this process; that of the judge, Great Expectations in a
process of its own, is told apart: it sees a row per shard, and takes the same for ten rows as for ten million.
"""

import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.result_rows import LABELS, SHARD_ROWS, synthetic_order, write_night
from benchmarks.run import ROOT, Bench, Subject, tell
from fleetbatch.checks import check_order
from fleetbatch.engine import ENVIRONMENT
from fleetbatch.merge import merge_order
from fleetbatch.publish import publish_order
from fleetbatch.store import open_store

SHARDS = 160
ROWS = SHARDS * SHARD_ROWS
INPUT = ROOT / ".bench" / "publish-input"
KEY = bytes(32)
MISSING = pa.table({"shard_id": pa.array([], pa.uint64()), "reason": pa.array([], pa.string())})

BENCH = Bench(
    name="publish",
    subjects=(
        Subject(name="ours", script="benchmarks/publish.py", arguments=("ours",)),
        Subject(name="polars rewrite", script="benchmarks/publish.py", arguments=("rewrite",)),
    ),
    prepare="benchmarks/publish.py",
    environment=ENVIRONMENT,
)


def make_input() -> None:
    """Write the night once; it takes about a minute."""
    if (INPUT / "parts.parquet").exists():
        return
    shutil.rmtree(INPUT, ignore_errors=True)
    store = open_store((INPUT / "store").as_uri(), deployment_key=KEY)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # polars' threads do not outlive a fork
        night = write_night(store, shards=SHARDS, pool=pool)
    pq.write_table(night.parts, INPUT / "parts.parquet")


def ours() -> None:
    """Tell what each step costs on a store of its own."""
    with TemporaryDirectory(prefix="fleetbatch-bench-", dir=INPUT) as folder:
        shutil.copytree(INPUT / "store", Path(folder) / "store", copy_function=os.link)
        store = open_store((Path(folder) / "store").as_uri(), deployment_key=KEY)
        order, parts, before = synthetic_order(), pq.read_table(INPUT / "parts.parquet"), time.process_time()
        merged = _step("merge", lambda: merge_order(store, order, parts, MISSING))
        verdict = _step("check", lambda: check_order(store, order, merged, labels=LABELS))
        assert verdict.passed, verdict
        published = _step("publish", lambda: publish_order(store, order, merged, now=datetime.now(UTC)))
        assert merged.rows_out == ROWS, published
        _whole(time.process_time() - before)
        judged = resource.getrusage(resource.RUSAGE_CHILDREN)
        tell("judge", judged.ru_utime + judged.ru_stime, "CPU s")


def rewrite() -> None:
    """Tell what reading and writing alone cost."""
    with TemporaryDirectory(prefix="fleetbatch-bench-", dir=INPUT) as folder:
        before = time.process_time()
        pl.scan_parquet(str(INPUT / "store" / "**" / "parts" / "**" / "*.parquet")).sink_parquet(
            f"{folder}/all.parquet"
        )
        _whole(time.process_time() - before)
        assert pq.read_metadata(f"{folder}/all.parquet").num_rows == ROWS


Done = TypeVar("Done")


def _step(name: str, work: Callable[[], Done]) -> Done:
    before = time.process_time()
    done = work()
    tell(name, time.process_time() - before, "CPU s")
    return done


def _whole(cpu_s: float) -> None:
    tell("rows_per_cpu_s", ROWS / cpu_s, "1/s")
    tell("peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, "MB")


if __name__ == "__main__":
    {"ours": ours, "rewrite": rewrite}.get(" ".join(sys.argv[1:]), make_input)()
