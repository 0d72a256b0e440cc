"""The two tables of a round as arrays, after every value in them has been looked at. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.planner.policy import GRID_POINTS, GRID_S, HORIZON_S, Policy, check_policy

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Real = TypeVar("Real", np.float32, np.float64)
NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cars:
    """Cars in order of car_id; times in seconds from now."""

    car_id: npt.NDArray[np.uint64]
    region: npt.NDArray[np.uint16]
    zone: npt.NDArray[np.uint16]
    hw: Bytes
    consent: npt.NDArray[np.uint32]
    cached: npt.NDArray[np.uint32]
    speed: npt.NDArray[np.float32]
    memory: npt.NDArray[np.uint64]
    link: npt.NDArray[np.float32]
    ready: Singles
    """When it may start: charged to the reserve and free of what it runs."""
    limit: Singles
    """When it must have stopped, at most the horizon."""
    survival: Bytes
    """[cars, 97] in 1/255."""
    deficit: npt.NDArray[np.float32]
    """Units that the owner was due and did not get; of equal cars the largest comes first."""
    running: Ints
    """Place of the running shard in Shards, -1 for none, -2 for one that is not open."""
    running_from: npt.NDArray[np.uint16]

    def until(self, places: Ints | slice, stay_min: float) -> Floats:
        """Return when each car must have stopped: at its limit, or where it has left but for a chance of `stay_min`."""
        some = np.arange(len(self.limit))[places] if isinstance(places, slice) else places
        until = self.limit.take(some).astype(np.float64)
        # Curves never rise: who may be there at its limit may have been there before.
        leaves = np.flatnonzero(~(stays(self.survival, some, until) >= stay_min))
        until[leaves] = np.minimum(until[leaves], window_s(self.survival, stay_min, some[leaves]))
        return until


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Shards in order of shard_id; columns as they came, so that a round looks closer only at what it places."""

    shard_id: npt.NDArray[np.uint64]
    workload: Bytes
    work_units: Floats
    """Of the whole shard, as are its bytes."""
    size_bytes: npt.NDArray[np.uint64]
    start: npt.NDArray[np.uint16]
    """First row group that is not delivered."""
    stop: npt.NDArray[np.uint16]
    region: npt.NDArray[np.uint16]
    hw_mask: Bytes
    memory: npt.NDArray[np.uint64]
    priority: Bytes
    deadline: npt.NDArray[np.float32]
    held: npt.NDArray[np.bool_]
    """Somebody holds a lease on it."""

    def units(self, places: Ints) -> Floats:
        """Return the work of one row group of each shard."""
        return np.asarray(self.work_units[places] / np.maximum(self.stop[places], 1))

    def bytes(self, places: Ints) -> Floats:
        """Return the bytes of one row group of each shard."""
        return np.asarray(self.size_bytes[places] / np.maximum(self.stop[places], 1), np.float64)

    def left(self, places: Ints) -> Ints:
        """Return how many row groups of each shard are not delivered."""
        return self.stop[places].astype(np.int64) - self.start[places]

    def open(self) -> npt.NDArray[np.bool_]:
        """Return which shards may be given to a car: work left, nobody's lease, time left."""
        return np.asarray(~self.held & (self.start < self.stop) & (self.deadline > 0.0))


UNKNOWN_RUNNING = -2
CERTAIN = 255
CHUNK = 16_384
"""Rows that are worked on at a time, so that intermediate arrays stay in the cache."""
NUMBER_MAX = 1e15
"""No speed, size or time is larger; products of two still are 32-bit numbers."""
CURVES = 4096
"""Cars whose curves are looked at at a time: as many as fit into the cache."""


def read_inputs(cars: pa.Table, shards: pa.Table, policy: Policy) -> tuple[Cars, Shards]:
    """Return both tables as arrays; raise RejectedError that lists everything wrong in tables and policy."""
    check_policy(policy)
    cars, shards = conform(cars, "cars").combine_chunks(), conform(shards, "shards").combine_chunks()
    sorted_ = _rises(cars, "car_id"), _rises(shards, "shard_id")
    doubled = [] if all(sorted_) else [*_doubled(cars, "car_id"), *_doubled(shards, "shard_id")]
    problems = [*doubled, *_car_problems(cars, policy), *_shard_problems(shards, policy)]
    if problems:
        summary = "the round cannot be planned"
        raise RejectedError(summary, problems)
    work = _shards(shards if sorted_[1] else shards.sort_by("shard_id").combine_chunks())
    return _cars(cars if sorted_[0] else cars.sort_by("car_id").combine_chunks(), work), work


def curves(cars: pa.Table) -> Bytes:
    """Return the survival curves as [cars, 97]."""
    chunks: list[Any] = cars["survival"].chunks
    flat = [chunk.flatten().to_numpy().reshape(-1, GRID_POINTS) for chunk in chunks]
    return flat[0] if len(flat) == 1 else np.concatenate([np.zeros((0, GRID_POINTS), np.uint8), *flat])


def counting_order(keys: npt.NDArray[np.uint16]) -> Ints:
    """Return places in rising order of keys, equals as they stood; keys of a narrow range are counted, not compared."""
    return np.asarray(pc.array_sort_indices(pa.array(keys)).to_numpy()).view(np.int64)


def stays(survival: Bytes, cars: Ints, seconds: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return the probability that each of `cars` is still there after its `seconds`, linear between the points."""
    kind = seconds.dtype
    place = np.minimum(np.maximum(seconds / kind.type(GRID_S), 0.0), GRID_POINTS - 1.0)
    left = np.minimum(place.astype(np.int64), GRID_POINTS - 2)
    flat, point = survival.reshape(-1), cars * GRID_POINTS + left
    first, second = flat.take(point).astype(kind), flat.take(point + 1).astype(kind)
    return np.asarray((first + (place - left.astype(kind)) * (second - first)) / CERTAIN)


def window_s(survival: Bytes, share: float, cars: Ints) -> Floats:
    """Return until when the curves of `cars` stay at or above `share`, linear between the points; at most a day."""
    seconds, flat = np.empty(len(cars)), survival.reshape(-1)
    for first in range(0, len(cars), CHUNK):
        seconds[first : first + CHUNK] = _window_s(flat, cars[first : first + CHUNK] * GRID_POINTS, share * CERTAIN)
    return seconds


def _window_s(flat: Bytes, first: Ints, floor: float) -> Floats:
    """Find each curve's last point at or above the floor by halving, then go on along the line to the next."""
    last = np.zeros(len(first), np.int64)
    step = 64
    while step:
        further = last + step
        np.minimum(further, GRID_POINTS - 1, out=further)
        reached = flat.take(first + further) >= floor
        np.copyto(last, further, where=reached)
        step //= 2
    here = flat.take(first + last).astype(np.float32)
    after = flat.take(first + np.minimum(last + 1, GRID_POINTS - 1)).astype(np.float32)
    part = np.where(here > after, (here - np.float32(floor)) / np.maximum(here - after, 1e-6), 0.0)
    return np.asarray(np.minimum((last + np.clip(part, 0.0, 1.0)) * GRID_S, HORIZON_S))


def _rises(table: pa.Table, key: str) -> bool:
    """Return whether the keys rise from row to row; then none is there twice."""
    ids = table[key].to_numpy()
    return bool(np.all(ids[1:] > ids[:-1]))


def _array(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """Return a column, nulls as 0."""
    column: Any = table[name]
    if column.null_count == len(column):
        return np.zeros(len(column), column.type.to_pandas_dtype())
    return np.asarray((column.fill_null(0) if column.null_count else column).to_numpy())


def _cars(table: pa.Table, work: Shards) -> Cars:
    return Cars(
        car_id=table["car_id"].to_numpy(),
        region=table["region"].to_numpy(),
        zone=table["price_zone"].to_numpy(),
        hw=table["hw"].to_numpy(),
        consent=table["consent"].to_numpy(),
        cached=table["cached"].to_numpy(),
        speed=table["speed"].to_numpy(),
        memory=table["mem_B"].to_numpy(),
        link=table["link_down_Bps"].to_numpy(),
        ready=np.maximum(_array(table, "ready_s"), _array(table, "free_in_s")),
        limit=np.minimum(_array(table, "limit_s"), np.float32(HORIZON_S)),
        survival=curves(table),
        deficit=table["deficit_units"].to_numpy(),
        running=_running(table, work.shard_id),
        running_from=_array(table, "running_row_group"),
    )


def _running(table: pa.Table, shard_ids: npt.NDArray[np.uint64]) -> Ints:
    """Return the place of each car's running shard; only cars that run one are looked up."""
    running = np.full(table.num_rows, NONE, np.int64)
    if table["running_shard"].null_count == table.num_rows:
        return running
    runs = np.flatnonzero(table["running_shard"].is_valid().to_numpy())
    wanted = _array(table, "running_shard")[runs]
    place = np.searchsorted(shard_ids, wanted)
    known = np.flatnonzero(place < len(shard_ids))
    known = known[shard_ids[place[known]] == wanted[known]]
    running[runs] = UNKNOWN_RUNNING
    running[runs[known]] = place[known]
    return running


def _shards(table: pa.Table) -> Shards:
    return Shards(
        shard_id=table["shard_id"].to_numpy(),
        workload=table["workload"].to_numpy(),
        work_units=table["work_units"].to_numpy(),
        size_bytes=table["size_B"].to_numpy(),
        start=table["rg_next"].to_numpy(),
        stop=table["row_groups"].to_numpy(),
        region=table["region"].to_numpy(),
        hw_mask=table["hw_mask"].to_numpy(),
        memory=table["mem_B"].to_numpy(),
        priority=table["priority"].to_numpy(),
        deadline=table["deadline_s"].to_numpy(),
        held=_not_empty(table["held_by"]),
    )


def _not_empty(lists: Any) -> npt.NDArray[np.bool_]:  # noqa: ANN401 the stubs do not know ListArray.offsets
    # What is one chunk already would be copied by combine_chunks.
    one = lists.chunk(0) if lists.num_chunks == 1 else lists.combine_chunks()
    offsets = one.offsets.to_numpy()
    if offsets[0] == offsets[-1]:
        return np.zeros(len(one), bool)
    return np.asarray(offsets[1:] > offsets[:-1])


def _car_problems(table: pa.Table, policy: Policy) -> Iterator[str]:
    for name in ("speed", "link_down_Bps", "ready_s", "limit_s", "free_in_s", "reputation", "deficit_units"):
        yield from _not_numbers(table, name, "car_id")
    yield from _beyond(table, "hw", len(policy.rates), "car_id", "hardware classes")
    yield from _beyond(table, "price_zone", len(policy.price_per_j), "car_id", "price zones")
    survival = curves(table)
    bent = np.zeros(len(survival), bool)
    for first in range(0, len(survival), CURVES):
        flat = survival[first : first + CURVES].ravel()
        rises = np.empty(len(flat), bool)
        np.greater(flat[1:], flat[:-1], out=rises[1:])
        # From one car's last point to the next one's first it may rise; instead of that, say where it does not start.
        np.not_equal(flat[::GRID_POINTS], CERTAIN, out=rises[::GRID_POINTS])
        if rises.any():
            bent[first : first + CURVES] = rises.reshape(-1, GRID_POINTS).any(axis=1)
    yield from _named(table, "car_id", bent, "survival does not start at 255 or rises")


def _shard_problems(table: pa.Table, policy: Policy) -> Iterator[str]:
    yield from _not_numbers(table, "work_units", "shard_id")
    deadline = table["deadline_s"].to_numpy()
    if np.isnan(deadline.max(initial=0.0)):
        yield from _named(table, "shard_id", np.isnan(deadline), "deadline_s is not a number")
    yield from _beyond(table, "workload", len(policy.rates[0]) if policy.rates else 0, "shard_id", "workloads")
    start, stop = table["rg_next"].to_numpy(), table["row_groups"].to_numpy()
    if start.max(initial=0) > stop.min(initial=0):
        yield from _named(table, "shard_id", start > stop, "rg_next lies beyond row_groups")
    copies = table["replicas"].to_numpy()
    if not copies.min(initial=1) == copies.max(initial=1) == 1:
        yield from _named(table, "shard_id", copies != 1, "replicas is not 1; a shard has one holder at a time")


def _doubled(table: pa.Table, key: str) -> Iterator[str]:
    order = np.sort(table[key].to_numpy())
    for twice in np.unique(order[1:][order[1:] == order[:-1]])[:5]:
        yield f"{key} {int(twice):016x} is there twice"


def _not_numbers(table: pa.Table, name: str, key: str) -> Iterator[str]:
    values = table[name].to_numpy()
    # As whole numbers without sign those of at least 0 come first, in order; then infinity, no numbers, all below 0.
    whole = np.uint32 if values.dtype == np.float32 else np.uint64
    if values.view(whole).max(initial=0) <= values.dtype.type(NUMBER_MAX).view(whole):
        return
    bad = ~((values >= 0) & (values <= values.dtype.type(NUMBER_MAX)))
    yield from _named(table, key, bad, f"{name} is not a finite number of at least 0 and at most {NUMBER_MAX:g}")


def _beyond(table: pa.Table, name: str, known: int, key: str, what: str) -> Iterator[str]:
    values = table[name].to_numpy()
    if values.max(initial=0) >= known:
        yield from _named(table, key, values >= known, f"{name} is beyond the policy's {known} {what}")


def _named(table: pa.Table, key: str, bad: npt.NDArray[np.bool_], what: str) -> Iterator[str]:
    if bad.any():
        first = int(table[key].to_numpy()[int(np.argmax(bad))])
        yield f"{int(bad.sum())} of {len(bad)}: {what}; the first is {key} {first:016x}"
