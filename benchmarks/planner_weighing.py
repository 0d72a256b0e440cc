"""What numpy alone costs beside numba, on the round's busiest loop: how many row groups of each piece are expected.

`ours` weighs the pieces of a round of 100,000 cars in numpy; `numba` compiles the same loop and asks ours for the
pieces. It is about twice as fast here. The planner does without: this loop is a twentieth of a round, and all the four
that a compiler helps most save less than a tenth of one (fleetbatch/planner/README.md).
"""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
POINTS = 97
SLOT_S, ONE, HALF = np.float32(900.0), np.float32(1.0), np.float32(0.5)
TURNS = 5
Array = np.ndarray[Any, Any]


def ours() -> None:
    from benchmarks.planner_fleet import NOW, evening
    from fleetbatch.planner import plan_round
    from fleetbatch.planner.inputs import read_inputs
    from fleetbatch.planner.weighing import AT_A_TIME, expected_row_groups

    arrays = pieces()

    def weigh() -> Array:
        parts = [slice(at, at + AT_A_TIME) for at in range(0, len(arrays["car"]), AT_A_TIME)]
        columns = [[arrays[name][part] for name in ("car", "ends", "tau", "count")] for part in parts]
        return np.concatenate([expected_row_groups(arrays["survival"], *column) for column in columns])

    tell(weigh)
    e = evening(100_000, load=1.0)
    read_inputs(e.cars, e.shards, e.policy)
    spent = min(cpu_s(lambda: plan_round(e.cars, e.shards, NOW, e.policy)) for _ in range(TURNS))
    print(json.dumps({"metric": "the round around it, CPU", "value": spent, "unit": "s"}))


def compiled() -> None:
    import numba  # type: ignore[import-not-found] # only in its own environment

    command = [str(ROOT / ".venv/bin/python"), "-m", "benchmarks.planner_weighing", "write"]
    arrays = np.load(io.BytesIO(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout))
    survival, car, ends, tau, count = (arrays[name] for name in ("survival", "car", "ends", "tau", "count"))

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator] # numba has no stubs here
    def weigh(survival: Array, car: Array, ends: Array, tau: Array, count: Array) -> Array:
        total = np.zeros(len(car), np.float32)
        for piece in range(len(car)):
            step, last = max(tau[piece], np.float32(1e-9)) / SLOT_S, ends[piece] / SLOT_S
            first = max(last - (count[piece] - ONE) * step, np.float32(0.0))
            slot = min(int(first), POINTS - 2)
            left, groups, low = last - np.float32(slot), count[piece], np.float32(survival[car[piece], slot])
            half, per_slot, found = step * HALF, ONE / step, groups * low
            ahead = groups * (left + half - half * groups)
            for point in range(slot + 1, min(int(last), POINTS - 2) + 1):
                high = np.float32(survival[car[piece], point])
                left -= ONE
                groups = np.ceil(left * per_slot)
                beyond = (left + half - half * groups) * groups
                found += (high - low) * (ahead - beyond)
                low, ahead = high, beyond
            high = np.float32(survival[car[piece], min(int(last), POINTS - 2) + 1])
            total[piece] = (found + (high - low) * ahead) / np.float32(255.0)
        return total

    tell(lambda: weigh(survival, car, ends, tau, count))


def pieces() -> dict[str, Array]:
    """Return the pieces of a round, and the curves of its cars."""
    from benchmarks.planner_fleet import NOW, evening
    from fleetbatch.planner import plan_round
    from fleetbatch.planner.inputs import read_inputs

    e = evening(100_000, load=1.0)
    cars, shards = read_inputs(e.cars, e.shards, e.policy)
    found = plan_round(e.cars, e.shards, NOW, e.policy).assignments
    shard = np.searchsorted(shards.shard_id, found["shard_id"].to_numpy())
    count = (found["rg_end"].to_numpy() - found["rg_start"].to_numpy()).astype(np.float64)
    ends, begins = found["end_s"].to_numpy().astype(np.float64), found["start_s"].to_numpy()
    car = np.searchsorted(cars.car_id, found["car_id"].to_numpy())
    fetch = shards.bytes(shard) / cars.link[car]
    tau = (ends - begins - fetch) / count
    numbers = {"ends": ends, "tau": tau, "count": count}
    singles: dict[str, Array] = {name: one.astype(np.float32) for name, one in numbers.items()}
    return {"survival": cars.survival, "car": car, **singles}


def write() -> None:
    """Write the pieces to standard output, for a process that cannot import ours."""
    np.savez(sys.stdout.buffer, **pieces())  # type: ignore[arg-type] # the stubs take no mapping


def tell(weigh: Any) -> None:  # noqa: ANN401 a function of nothing, compiled or not
    """Print what it costs, after a first call, and its sum, which says that both do the same."""
    total = float(weigh().sum())
    spent = min(cpu_s(weigh) for _ in range(TURNS))
    print(json.dumps({"metric": "weighing a round's pieces, CPU", "value": spent, "unit": "s"}))
    print(json.dumps({"metric": "row groups expected", "value": total, "unit": "row groups"}))


def cpu_s(work: Any) -> float:  # noqa: ANN401 a function of nothing
    """Return the CPU seconds of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    {"ours": ours, "numba": compiled, "write": write}[sys.argv[1]]()
