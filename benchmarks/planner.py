"""What a round costs and how much it may have missed: 10,000, 100,000 and a million cars, five shards a car.

As a script, `planner.py CARS LOAD` plans one evening of that size and prints the figures. The certified `gap`
is that of the rounds whose time is told and of what a round maximises, where late work counts for less; `gap_in_full`,
which no certificate bounds, is what the same plan leaves where late work counts like any other, beside the bound of a
second round that knows no risk. `verify_cpu_s` is one verification, the certificate's value and bound included.
Smaller fleets follow in the same process, so that growth is
measured under the same weather: time by cars, as a share of the smaller fleet's. What a round costs whatever its size
(the program over classes) makes the ratio from ten thousand cars small; whether the passes grow faster than cars shows
from a hundred thousand.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import feather

from benchmarks.planner_fleet import NIGHT_S, NOW, Evening, evening, policy
from benchmarks.run import Bench, Subject, tell
from fleetbatch.planner import Round, plan_round, verify_round

ROUNDS = 5
SMALL = 10_000
MIDDLE = 100_000
KEYS = 5_000_000

BENCH = Bench(
    name="planner",
    subjects=(
        Subject(name="ours", script="benchmarks/planner.py", arguments=("10000", "1.0")),
        Subject(name="ours", script="benchmarks/planner.py", arguments=("100000", "1.0")),
        Subject(name="ours", script="benchmarks/planner.py", arguments=("1000000", "1.0")),
        Subject(name="ours", script="benchmarks/planner.py", arguments=("1000000", "1.3")),
        Subject(name="ours", script="benchmarks/planner_individuals.py", arguments=("classes",)),
        Subject(name="LP on individuals", script="benchmarks/planner_individuals.py", arguments=("individuals",)),
        Subject(name="min-cost flow", script="benchmarks/planner_flow.py", lock="infra/locks/bench-ortools.txt"),
        *(
            Subject(name=rule, script="benchmarks/planner_pulls.py", arguments=(rule,))
            for rule in ("ours", "CWC", "first come", "random pull")
        ),
        Subject(name="ours", script="benchmarks/planner_weighing.py", arguments=("ours",)),
        Subject(
            name="numba",
            script="benchmarks/planner_weighing.py",
            arguments=("numba",),
            lock="infra/locks/bench-numba.txt",
        ),
    ),
)


def main(cars: int, load: float) -> None:
    e, inputs_mb = loaded(cars, load)
    plan_round(e.cars.slice(0, 300), e.shards.slice(0, 900), NOW, e.policy)  # imports and contracts, once a process
    name = f"{cars:,} cars, load {load}"
    before = resident_mb()
    first = plan_round(e.cars, e.shards, NOW, e.policy)
    tell(f"{name}: round_extra_mb", resident_mb() - before, "MB")
    spent_s = rounds_s(e)
    tell(f"{name}: round_cpu_s", spent_s, "s")
    tell(f"{name}: gap", first.certificate.gap, "share")
    tell(f"{name}: gap_in_full", gap_in_full(e, first), "share")
    tell(f"{name}: pieces", first.assignments.num_rows, "pieces")
    tell(f"{name}: pieces_per_cpu_s", first.assignments.num_rows / spent_s, "1/s")
    broken: list[int] = []
    tell(f"{name}: verify_cpu_s", cpu_s(lambda: broken.append(violations(e, first))), "s")
    tell(f"{name}: violations", broken[0], "rows")
    if cars > SMALL:
        beside(e, cars, load, spent_s, inputs_mb)


def beside(e: Evening, cars: int, load: float, spent_s: float, inputs_mb: float) -> None:
    """Measure in the same process what a round is compared with."""
    name = f"{cars:,} cars, load {load}"
    for fewer in (count for count in (SMALL, MIDDLE) if count < cars):
        ratio = spent_s / rounds_s(evening(fewer, load=load)) / (cars / fewer)
        tell(f"{name}: growth_ratio from {fewer:,}", ratio, "share")
    keys = np.random.default_rng(0).random(KEYS)
    tell(f"{name}: beside it, one argsort of {KEYS:,} keys", cpu_s(lambda: np.argsort(keys)), "s")
    tell(f"{name}: beside it, a copy of {inputs_mb:.0f} MB of inputs", cpu_s(lambda: copy(e)), "s")
    whole = plan_round(e.cars, e.shards, NOW, policy(commit_s=NIGHT_S))
    night_s = cpu_s(lambda: plan_round(e.cars, e.shards, NOW, policy(commit_s=NIGHT_S)))
    tell(f"{name}: whole night expanded, CPU", night_s, "s")
    tell(f"{name}: whole night expanded, pieces_per_cpu_s", whole.assignments.num_rows / night_s, "1/s")


def gap_in_full(e: Evening, found: Round) -> float:
    """Return what the plan leaves where late work counts in full, beside the bound of a policy that knows no risk."""
    bold = replace(e.policy, upsets_per_hour=0.0, buffer_worth=1.0)
    return 1.0 - found.certificate.value_in_full / plan_round(e.cars, e.shards, NOW, bold).certificate.upper_bound


def rounds_s(e: Evening) -> float:
    """Return the CPU seconds of a round, the median of a few."""
    return statistics.median(cpu_s(lambda: plan_round(e.cars, e.shards, NOW, e.policy)) for _ in range(ROUNDS))


def violations(e: Evening, found: Round) -> int:
    """Return how many rows break a rule, by verify_round."""
    return sum(one.rows for one in verify_round(e.cars, e.shards, NOW, e.policy, found))


def loaded(cars: int, load: float) -> tuple[Evening, float]:
    """Return an evening that another process made, so that this one's memory is the planner's; and its size in MB."""
    with tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as folder:
        make = ["-m", "benchmarks.planner_fleet", str(cars), str(load), folder]
        subprocess.run([sys.executable, *make], check=True, cwd=Path(__file__).parents[1])
        tables = [
            feather.read_table(str(Path(folder) / f"{name}.arrow"), memory_map=False) for name in ("cars", "shards")
        ]
    size = sum(table.nbytes for table in tables) / 1e6
    return Evening(cars=tables[0], shards=tables[1], policy=policy()), size


def copy(e: Evening) -> list[np.ndarray]:
    """Copy every buffer of the inputs once."""
    tables: list[pa.Table] = [e.cars, e.shards]
    found = [buffer for t in tables for c in t.columns for chunk in c.chunks for buffer in chunk.buffers() if buffer]
    return [np.asarray(memoryview(buffer)).copy() for buffer in found]


def cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def resident_mb() -> float:
    """Return the highest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
