"""A round's pieces, one record each, how long row groups take, and what runs already. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.inputs import UNKNOWN_RUNNING, Bytes, Cars, Floats, Ints, Shards, Singles
from fleetbatch.planner.policy import ANY_REGION, Policy, rate_matrix
from fleetbatch.planner.reasons import Reason

PIECE: Final = np.dtype(
    {
        "names": ["car", "shard", "start", "stop", "begins", "ends", "tau", "units", "reason", "whole", "turn"],
        "formats": ["i4", "i4", "u2", "u2", "f4", "f4", "f4", "f4", "u1", "?", "u2"],
        "offsets": [0, 4, 8, 10, 12, 16, 20, 24, 28, 29, 30],
        "itemsize": 32,
    }
)
"""A piece as one record of half a cache line: pieces are put in order by moving each once, not column by column."""

WHOLE_RECORD: Final = np.dtype((np.void, PIECE.itemsize))
"""A piece as so many bytes."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Row groups [start, stop) of shards on cars, any order; car and shard are places in Cars and Shards."""

    records: npt.NDArray[np.void]
    """Of the type PIECE. Only whole records are taken; numpy assigns to records picked by places one by one."""

    @classmethod
    def of(cls, **columns: npt.NDArray[Any]) -> Self:
        """Return the columns as pieces; columns that are not given are 0."""
        found = cls(np.zeros(len(columns["car"]), PIECE))
        found.put(**columns)
        return found

    def put(self, **columns: npt.NDArray[Any] | int) -> None:
        """Write whole columns over what is there."""
        for name, column in columns.items():
            self.records[name] = column

    def __len__(self) -> int:
        """Return how many pieces there are."""
        return len(self.records)

    def some(self, which: Ints) -> "Pieces":
        """Return some of the pieces, in that order."""
        return Pieces(self.records.take(which))

    def keep(self, which: npt.NDArray[np.bool_]) -> int:
        """Move the marked pieces to the front, in their order, and return how many there are."""
        some = np.flatnonzero(which)
        if len(some) < len(self):
            # Assigned as so many bytes: numpy assigns records field by field.
            self.records[: len(some)].view(WHOLE_RECORD)[:] = self.records.take(some).view(WHOLE_RECORD)
        return len(some)

    @property
    def car(self) -> npt.NDArray[np.int32]:
        """Return the place of each piece's car."""
        return np.asarray(self.records["car"])

    @property
    def shard(self) -> npt.NDArray[np.int32]:
        """Return the place of each piece's shard."""
        return np.asarray(self.records["shard"])

    @property
    def start(self) -> npt.NDArray[np.uint16]:
        """Return the first row group."""
        return np.asarray(self.records["start"])

    @property
    def stop(self) -> npt.NDArray[np.uint16]:
        """Return the row group before which each piece stops; the start where nothing fits."""
        return np.asarray(self.records["stop"])

    def count(self) -> Singles:
        """Return the number of row groups."""
        return np.asarray((self.stop - self.start).astype(np.float32))

    @property
    def begins(self) -> Singles:
        """Return when the car turns to the piece."""
        return np.asarray(self.records["begins"])

    @property
    def ends(self) -> Singles:
        """Return when the last row group ends."""
        return np.asarray(self.records["ends"])

    @property
    def tau(self) -> Singles:
        """Return the seconds of one row group; they end every tau, the last at `ends`."""
        return np.asarray(self.records["tau"])

    @property
    def units(self) -> Singles:
        """Return the work of one row group."""
        return np.asarray(self.records["units"])

    @property
    def reason(self) -> Bytes:
        """Return why the car has the piece, a Reason."""
        return np.asarray(self.records["reason"])

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Return which pieces go to the end of their shard."""
        return np.asarray(self.records["whole"])

    @property
    def turn(self) -> npt.NDArray[np.uint16]:
        """Return each piece's place in its car's queue."""
        return np.asarray(self.records["turn"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What cars hold already: it stays where it is."""

    pieces: Pieces
    free: Floats
    """[cars], when each is done with it; infinite where it holds a shard that is not open any more."""


def room_for(count: int) -> Pieces:
    """Return so many pieces of which nothing is written yet."""
    return Pieces(np.empty(count, PIECE))


def concat(parts: Sequence[Pieces]) -> Pieces:
    """Return all the pieces as one."""
    return Pieces(np.concatenate([np.zeros(0, PIECE), *(part.records for part in parts)]))


def running(cars: Cars, shards: Shards, policy: Policy) -> Running:
    """Return the pieces under lease, as many of their row groups as will end in time, and when their cars are free."""
    car = np.flatnonzero(cars.running >= 0)
    shard = cars.running[car]
    start = np.maximum(cars.running_from[car], shards.start[shard].astype(np.int64))
    tau = row_group_s(cars, shards, policy, car, shard)
    room = np.maximum(np.minimum(cars.until(car, policy.stay_min), shards.deadline[shard]), 0.0)
    left = np.maximum(shards.stop[shard].astype(np.int64) - start, 0)
    groups = np.minimum(left, np.floor(room / np.maximum(tau, 1e-9) + 1e-9)).astype(np.int64)
    tau = np.where(groups > 0, tau, 0.0)
    free = np.where(cars.running == UNKNOWN_RUNNING, np.inf, 0.0)
    free[car] = np.where(groups > 0, left * tau, np.inf)
    put = groups > 0
    pieces = Pieces.of(
        car=car[put],
        shard=shard[put],
        start=start[put],
        stop=(start + groups)[put],
        begins=np.zeros(int(put.sum())),
        ends=(groups * tau)[put],
        tau=tau[put],
        units=shards.units(shard[put]),
        reason=np.full(int(put.sum()), Reason.RUNNING, np.uint8),
        whole=(groups == left)[put],
    )
    return Running(pieces=pieces, free=free)


def row_group_s(cars: Cars, shards: Shards, policy: Policy, car: Ints, shard: Ints) -> Floats:
    """Return seconds of a row group of each (car, shard) pair, infinite where the car may not or cannot.

    The next row group is fetched while one is computed (dispatch 3.9), so the slower of the two counts.
    """
    rate = rate_matrix(policy)[cars.hw.take(car), shards.workload.take(shard)] * cars.speed.take(car)
    link = cars.link.take(car).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        compute = shards.units(shard) / rate
        size = shards.bytes(shard)
        fetch = np.where(size > 0.0, size / link, 0.0)
    may = allowed(cars, shards, car, shard) & (rate > 0.0)
    return np.where(may, np.maximum(compute, fetch), np.inf)


def allowed(cars: Cars, shards: Shards, car: Ints, shard: Ints) -> npt.NDArray[np.bool_]:
    """Return where consent, hardware mask, memory and region let the car have the shard."""
    region, one = shards.region.take(shard), np.uint32(1)
    return np.asarray(
        ((cars.consent.take(car) & (one << shards.workload.take(shard).astype(np.uint32))) != 0)
        & ((shards.hw_mask.take(shard) & (one << cars.hw.take(car).astype(np.uint32))) != 0)
        & (cars.memory.take(car) >= shards.memory.take(shard))
        & ((region == ANY_REGION) | (region == cars.region.take(car)))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """Pieces in order of car and time, put in order only a part at a time."""

    pieces: Pieces
    """In any order."""
    order: npt.NDArray[np.int32]
    """Their places in order of car and time; any where a fresh piece stands."""
    fresh: Pieces
    at: Ints
    """Where in the order the fresh pieces stand, rising."""

    def __len__(self) -> int:
        """Return how many pieces there are."""
        return len(self.order)

    def part(self, first: int, last: int) -> Pieces:
        """Return the pieces at [first, last) in order, as records of their own."""
        order = self.order[first:last]
        records = self.pieces.records.take(order, mode="clip") if len(self.pieces) else room_for(len(order)).records
        for place in range(*self.at.searchsorted([first, last]).tolist()):
            records[self.at[place] - first] = self.fresh.records[place]
        return Pieces(records)


def in_order(pieces: Pieces, car: npt.NDArray[np.int32], stay: npt.NDArray[np.bool_], fresh: Pieces) -> Queues:
    """Return those that stay and the fresh ones, in order of car and time: where their cars' queues have them.

    `car` is that of the pieces. A fresh piece is the only one of its car: nothing else of it stays.
    """
    wide = car.astype(np.int64)
    first = np.append(0, np.cumsum(np.bincount(wide, minlength=int(fresh.car.max(initial=-1)) + 1)))
    place = first.take(wide)
    place += pieces.turn
    order = np.empty(len(pieces), np.int32)
    order[place] = np.arange(len(pieces), dtype=np.int32)
    gone = place[~stay]
    if len(gone):
        order = np.delete(order, gone)
    fresh = fresh.some(np.argsort(fresh.car))
    at = first.take(fresh.car)
    at -= np.searchsorted(np.sort(gone), at)
    return Queues(pieces=pieces, order=np.insert(order, at, 0), fresh=fresh, at=at + np.arange(len(at)))
