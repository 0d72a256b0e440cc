"""The rules of volunteer computing and a published greedy beside our rounds: one night lived by each, cars that leave.

`first come` gives the next shard of the queue to whoever is free; `random pull` gives any; `CWC` takes shards by
priority and size and puts each where it ends first (Arslan et al., CoNEXT 2012). Ours and CWC plan anew every quarter
of an hour. Who leaves loses the row group in work, and another car goes on. Done row groups count by priority, less the
energy, against the bound of somebody who knows all the curves; one draw of departures wobbles by a few tenths of a
percent, and is the same for all.
"""

import heapq
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.planner_fleet import NIGHT_S, NOW, Evening, evening
from benchmarks.run import tell
from fleetbatch.planner import Reason, given_away, plan_round

CARS = 2000
LOAD = 1.3
STEP_S = 900.0
LOOK_AHEAD = 30
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Choose = Callable[[int, float], int]
"""A free car and the time: the shard that it begins, -1 for none."""


class Night:
    """How a night stands; times in seconds from its start."""

    def __init__(self, e: Evening, seed: int) -> None:
        """Draw who leaves when."""
        self.e, self.energy, self.ids = e, 0.0, e.shards["shard_id"].to_numpy()
        names = ("hw", "consent", "speed", "link_down_Bps", "ready_s", "limit_s")
        self.c = {name: e.cars[name].to_numpy().astype(np.float64) for name in names}
        names = ("workload", "work_units", "size_B", "row_groups", "priority", "deadline_s")
        self.s = {name: e.shards[name].to_numpy().astype(np.float64) for name in names}
        self.s["units"] = self.s["work_units"] / self.s["row_groups"]
        self.s["bytes"] = self.s["size_B"] / self.s["row_groups"]
        curves: Any = e.cars["survival"].combine_chunks()
        self.survival: Floats = curves.flatten().to_numpy().reshape(-1, 97) / 255.0
        luck, grid = np.random.default_rng(seed).random(CARS), np.arange(97) * 900.0
        leaves = [np.interp(-one, -curve, grid) for one, curve in zip(luck, self.survival, strict=True)]
        self.gone = np.minimum(np.array(leaves), self.c["limit_s"])
        self.free = self.c["ready_s"].copy()
        self.done = np.zeros(len(self.ids), np.int64)
        self.running = np.full(CARS, -1)
        self.held = np.zeros(len(self.ids), bool)

    def row_group_s(self, car: Ints, shards: Ints) -> Floats:
        """Return seconds of a row group, infinite where the car may not."""
        workload = np.asarray(self.s["workload"][shards], np.int64)
        rate = np.array(self.e.policy.rates)[self.c["hw"][car].astype(np.int64), workload] * self.c["speed"][car]
        with np.errstate(divide="ignore"):
            seconds = np.maximum(self.s["units"][shards] / rate, self.s["bytes"][shards] / self.c["link_down_Bps"][car])
        may = (self.c["consent"][car].astype(np.int64) >> workload) & 1
        return np.where(may == 1, seconds, np.inf)

    def open(self, at: float) -> npt.NDArray[np.bool_]:
        """Return the shards that nobody holds, with work and time left."""
        return ~self.held & (self.done < self.s["row_groups"]) & (self.s["deadline_s"] > at)

    def live(self, choose: Choose, from_s: float, to_s: float) -> None:
        """Let every car compute what it holds, and what it is given when it is free, until the step ends."""
        begins = np.where(self.running >= 0, self.free, np.maximum(self.free, from_s))  # a row group may be in work
        heap = [(float(begins[car]), car) for car in np.flatnonzero(self.gone > from_s).tolist()]
        heapq.heapify(heap)
        while heap:
            at, car = heapq.heappop(heap)
            if at >= min(to_s, self.gone[car]):
                continue
            if self.running[car] < 0:
                shard = choose(car, at)
                if shard < 0:
                    continue
                self.running[car], self.held[shard] = shard, True
                at += self.s["bytes"][shard] / self.c["link_down_Bps"][car]
            heapq.heappush(heap, (self._compute(car, at, to_s), car))
        left = np.flatnonzero((self.running >= 0) & (self.gone <= to_s))  # in the middle of a row group or its fetch
        self.held[self.running[left]], self.running[left] = False, -1

    def _compute(self, car: int, at: float, to_s: float) -> float:
        """Compute row groups up to the end of the shard, of the step or of the stay; return when the car is free."""
        shard = int(self.running[car])
        tau = float(self.row_group_s(np.array([car]), np.array([shard]))[0])
        stop = min(to_s, float(self.gone[car]), float(self.s["deadline_s"][shard]))
        left = int(self.s["row_groups"][shard]) - int(self.done[shard])
        groups = min(max(int((stop - at) / tau + 1e-9), 0), left)
        step = min(int(np.searchsorted(self.e.policy.price_until_s, at, "right")), 5)
        watts = self.e.policy.power_w[int(self.c["hw"][car])]
        self.energy += self.e.policy.price_per_j[0][step] * watts * groups * tau / self.e.policy.unit_currency
        self.done[shard] += groups
        self.free[car] = at + groups * tau
        if groups == left or stop < to_s:
            self.running[car], self.held[shard] = -1, False
            return float(self.free[car]) if groups == left else max(stop, at)
        return to_s

    def value(self) -> float:
        """Return what is done, less its energy."""
        worth = np.array(self.e.policy.value_per_unit)[self.s["priority"].astype(np.int64)]
        return float(np.sum(worth * self.s["units"] * self.done)) - self.energy


def from_queue(night: Night, order: Ints) -> Choose:
    """Return a chooser: the first of the next few of the queue that the car may have."""

    def choose(car: int, at: float) -> int:
        next_ = order[night.open(at)[order]][:LOOK_AHEAD]
        fits = np.isfinite(night.row_group_s(np.full(len(next_), car), next_))
        return int(next_[int(np.argmax(fits))]) if fits.any() else -1

    return choose


def from_plan(night: Night, cars: list[int], shards: list[int]) -> Choose:
    """Return a chooser: what the plan has for the car, in its order."""
    queue: dict[int, list[int]] = {}
    for car, shard in zip(cars, shards, strict=True):
        queue.setdefault(car, []).append(shard)

    def choose(car: int, at: float) -> int:
        while queue.get(car):
            shard = queue[car].pop(0)
            if not night.held[shard] and night.done[shard] < night.s["row_groups"][shard]:
                return shard if night.s["deadline_s"][shard] > at else -1
        return -1

    return choose


def cwc(night: Night, at: float) -> Choose:
    """Put each open shard, the most urgent and largest first, where it ends first within the car's likely stay."""
    likely = (night.survival >= 0.5 * _now(night, at)[:, None]).sum(axis=1) * 900.0
    until = np.minimum(np.minimum(likely, night.c["limit_s"]), NIGHT_S)
    free = np.where(night.gone > at, np.maximum(night.free, at), np.inf)
    left = night.s["row_groups"] - night.done
    everyone = np.arange(CARS)
    placed: list[tuple[int, int]] = []
    for shard in np.lexsort((-night.s["units"] * left, night.s["priority"])).tolist():
        if night.held[shard] or left[shard] <= 0 or night.s["deadline_s"][shard] <= at or free.min() > at + 2 * STEP_S:
            continue
        tau = night.row_group_s(everyone, np.full(CARS, shard))
        ends = free + night.s["bytes"][shard] / night.c["link_down_Bps"] + tau * left[shard]
        ends[ends > np.minimum(until, night.s["deadline_s"][shard])] = np.inf
        car = int(np.argmin(ends))
        if np.isfinite(ends[car]):
            placed.append((car, shard))
            free[car] = ends[car]
    return from_plan(night, [car for car, _ in placed], [shard for _, shard in placed])


def _now(night: Night, at: float) -> Floats:
    place = at / 900.0
    low = night.survival[:, int(place)]
    return np.asarray(low + (place - int(place)) * (night.survival[:, int(place) + 1] - low))


def replaced(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """Return the table with other values in some columns."""
    for name, column in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(column))
    return table


def cars_at(night: Night, at: float) -> pa.Table:
    """Return the cars that are still there, as our planner sees them now."""
    here = np.flatnonzero(night.gone > at)
    curve = night.survival[here][:, np.minimum(np.arange(97) + int(at / 900.0), 96)]
    curve = np.minimum.accumulate(np.clip(curve / np.maximum(_now(night, at)[here, None], 1e-3), 0.0, 1.0), axis=1)
    curve[:, 0] = 1.0
    shard, holds = np.maximum(night.running[here], 0), night.running[here] >= 0
    left = np.where(holds, (night.s["row_groups"] - night.done)[shard] * night.row_group_s(here, shard), 0.0)
    columns = {
        "survival": pa.FixedSizeListArray.from_arrays(pa.array(np.floor(255 * curve).astype(np.uint8).ravel()), 97),
        "ready_s": np.maximum(night.c["ready_s"][here] - at, 0.0).astype(np.float32),
        "limit_s": np.maximum(night.c["limit_s"][here] - at, 0.0).astype(np.float32),
        "running_shard": pa.array(night.ids[shard], pa.uint64(), mask=~holds),
        "running_row_group": pa.array(night.done[shard].astype(np.uint16), mask=~holds),
        "free_in_s": np.nan_to_num(left, posinf=80_000.0).astype(np.float32),
    }
    return replaced(night.e.cars.take(here), columns)


def shards_at(night: Night, at: float) -> pa.Table:
    """Return the open shards, as our planner sees them now."""
    some = np.flatnonzero((night.done < night.s["row_groups"]) & (night.s["deadline_s"] > at))
    offsets: Any = pa.array(np.append(0, np.cumsum(night.held[some])).astype(np.int32))
    owners: Any = pa.array(np.ones(int(night.held[some].sum()), np.uint64))
    columns = {
        "rg_next": night.done[some].astype(np.uint16),
        "held_by": pa.ListArray.from_arrays(offsets, owners),
        "deadline_s": (night.s["deadline_s"][some] - at).astype(np.float32),
    }
    return replaced(night.e.shards.take(some), columns)


def ours(night: Night, at: float) -> Choose:
    """Plan a round from what is known now; whoever gives his shard away stops."""
    p, cars = night.e.policy, cars_at(night, at)
    steps = [(until - at, price) for until, price in zip(p.price_until_s, p.price_per_j[0], strict=True) if until > at]
    now = replace(p, price_until_s=tuple(u for u, _ in steps), price_per_j=(tuple(price for _, price in steps),))
    found = plan_round(cars, shards_at(night, at), NOW, now)
    for _, shard_id in given_away(cars, found):
        shard = int(np.searchsorted(night.ids, shard_id))
        night.running[night.running == shard], night.held[shard] = -1, False
    rows = found.assignments.filter(pc.field("reason") != int(Reason.RUNNING))
    car = np.searchsorted(night.e.cars["car_id"].to_numpy(), rows["car_id"].to_numpy())
    return from_plan(night, car.tolist(), np.searchsorted(night.ids, rows["shard_id"].to_numpy()).tolist())


def main(rule: str) -> None:
    """Live the night by one rule."""
    night = Night(evening(CARS, load=LOAD), seed=3)
    queue = np.arange(len(night.ids))
    rules: dict[str, Callable[[float], Choose]] = {
        "ours": lambda at: ours(night, at),
        "CWC": lambda at: cwc(night, at),
        "first come": lambda _: from_queue(night, queue),
        "random pull": lambda _: from_queue(night, np.random.default_rng(3).permutation(queue)),
    }
    sure = replace(night.e.policy, upsets_per_hour=0.0, buffer_worth=1.0)
    bound = plan_round(night.e.cars, night.e.shards, NOW, sure).certificate.upper_bound
    spent = 0.0
    for at in np.arange(0.0, NIGHT_S, STEP_S).tolist():
        started = time.process_time()
        choose = rules[rule](at)
        spent += time.process_time() - started
        night.live(choose, at, at + STEP_S)
    name = f"a night of {CARS:,} cars, load {LOAD}"
    tell(f"{name}, realised / bound", night.value() / bound, "share")
    high = night.s["priority"] == 0.0
    tell(f"{name}, urgent row groups done", float(night.done[high].sum() / night.s["row_groups"][high].sum()), "share")
    tell(f"{name}, CPU of a round", spent / (NIGHT_S / STEP_S), "s")


if __name__ == "__main__":
    main(sys.argv[1])
