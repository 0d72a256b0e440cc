"""Cars as a few hundred classes of equals, with their exact sums of what they would do in each block. Pure.

Between cars of one class only speed and presence differ, which scale everything alike; what decides which work suits a
car is its link per speed, so that is what classes are narrow in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.cuts import SAME, class_codes, numbered, told_apart
from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import CHUNK, Bytes, Cars, Floats, Ints, Singles, counting_order
from fleetbatch.planner.kinds import Kinds
from fleetbatch.planner.policy import ANY_REGION, HORIZON_S, Policy, rate_matrix
from fleetbatch.planner.presence import presence_of
from fleetbatch.planner.turns import TURNS, turns_of

Value = TypeVar("Value", np.bool_, np.float32, np.float64, np.int64)
ALL_HARDWARE = 255
MEMORY_MOST = 2.0**63
"""No shard needs more: a number beyond would not come back from 64 bits."""
ALONE = 1 << 17
"""A product of fewer multiplications is computed by this thread; a larger one wakes a thread on every core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Cars in class order: order[starts[c]:starts[c + 1]] are the places of class c."""

    order: Ints
    starts: Ints
    hw: Ints
    """[class]"""
    zone: Ints
    """[class]"""
    turn: npt.NDArray[np.uint16] | None
    """[car in class order], 0 to TURNS - 1, the owner who is due most first; none where nobody is due anything."""
    later: npt.NDArray[np.uint8]
    """[car in class order], its curve in two hours: who is likely to be there then takes the urgent and the long."""
    presence: Singles
    """[block, car in class order], expected seconds that the car is there and may compute."""
    rate: Singles
    """[kind, car in class order], units a second, 0 where the car may not."""
    best: Singles
    """The same with the fewest bytes per unit of each kind: never less than any shard's true rate."""
    compute: Mapping[int, Singles]
    """By workload, [car in class order] units a second where the link is no matter."""
    speed: Singles
    """[car in class order], as the three that follow."""
    link: Singles
    begins: Singles
    """When it is ready and done with what it runs, at most the horizon."""
    limit: Singles
    work: Floats
    """[class, block, kind], units if all the class did only this: sums of rate * presence."""
    seconds: Floats
    """[class, block], sums of presence."""

    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.starts) - 1


def fleet_of(cars: Cars, free: Floats, kinds: Kinds, grid: Grid, policy: Policy) -> Fleet:
    """Return the fleet in classes; `free` is when each car is done with what it runs."""
    sieve, sieves = _sieves(cars, kinds, kinds.memory)
    code, sizes = class_codes(cars, (sieve, sieves), kinds, float(grid.edges[-1]), policy)
    turn = turns_of(cars.deficit)
    order = counting_order(code if turn is None else numbered(code).astype(np.uint16) * np.uint16(TURNS) + turn)
    starts = np.append(0, np.cumsum(sizes[sizes > 0]))
    free = np.minimum(free, HORIZON_S)  # infinite where nobody knows
    begins = np.maximum(cars.ready, free).astype(np.float32)
    presence, later = presence_of(cars.survival, (begins, cars.limit), grid)
    for row in presence:
        row[:] = row.take(order)
    later, begins, limit = later.take(order), begins.take(order), cars.limit.take(order)
    lead = order[starts[:-1]]
    speed, link = cars.speed.take(order), cars.link.take(order)
    compute = _compute(cars.hw[lead], starts, speed, kinds, policy)
    may = [each_car(one.take(lead), starts) if told_apart(sieves, policy) else one.take(order) for one in sieves]
    rate = _rates((compute, link), [may[place] for place in sieve], kinds, kinds.bytes_most)
    best = rate
    if not _alike(kinds, cars.memory):
        sieve, sieves = _sieves(cars, kinds, kinds.memory_least)
        may = [one.take(order) for one in sieves]
        best = _rates((compute, link), [may[place] for place in sieve], kinds, kinds.bytes_least)
    work, seconds = _sums(presence, rate, starts)
    return Fleet(
        order=order,
        starts=starts,
        hw=cars.hw[lead].astype(np.int64),
        zone=cars.zone[lead].astype(np.int64),
        turn=None if turn is None else turn[order],
        later=later,
        presence=presence,
        rate=rate,
        best=best,
        compute=compute,
        speed=speed,
        link=link,
        begins=begins,
        limit=limit,
        work=work,
        seconds=seconds,
    )


def _sums(presence: Singles, rate: Singles, starts: Ints) -> tuple[Floats, Floats]:
    """Return each class's sums of rate * presence, and of presence; 32-bit sums of a few cars are summed in 64 bits."""
    classes = len(starts) - 1
    work, seconds = np.zeros((classes, len(presence), len(rate))), np.zeros((classes, len(presence)))
    step = max(min(ALONE // max(work[:1].size, 1), CHUNK), 1)
    for place in range(classes):
        for first in range(int(starts[place]), int(starts[place + 1]), step):
            part = slice(first, min(first + step, int(starts[place + 1])))
            work[place] += presence[:, part] @ rate[:, part].T
            seconds[place] += presence[:, part].sum(axis=1)
    return work, seconds


def _alike(kinds: Kinds, memories: npt.NDArray[np.uint64]) -> bool:
    """Say whether all shards of each kind ask the same of these cars."""
    same_bytes = np.allclose(kinds.bytes_most, kinds.bytes_least, rtol=SAME, atol=0.0)
    needed = {(least, most) for least, most in zip(kinds.memory_least, kinds.memory, strict=True) if least < most}
    return same_bytes and not any(np.any((memories >= least) & (memories < most)) for least, most in needed)


def _sieves(cars: Cars, kinds: Kinds, memory: Floats) -> tuple[list[int], list[npt.NDArray[np.bool_]]]:
    """Return which sieve each kind is behind, and the cars that pass each sieve; kinds that ask the same share one."""
    known: dict[tuple[float, ...], int] = {}
    sieve: list[int] = []
    passed: list[npt.NDArray[np.bool_]] = []
    for kind in range(len(kinds)):
        asks = (kinds.workload[kind], kinds.hw_mask[kind], kinds.region[kind], memory[kind])
        if asks not in known:
            known[asks] = len(passed)
            passed.append(_passes(cars, kinds, kind, memory))
        sieve.append(known[asks])
    return sieve, passed


def _passes(cars: Cars, kinds: Kinds, kind: int, memory: Floats) -> npt.NDArray[np.bool_]:
    may = (cars.consent & np.uint32(1 << int(kinds.workload[kind]))) != 0
    if kinds.hw_mask[kind] != ALL_HARDWARE:
        may &= ((int(kinds.hw_mask[kind]) >> cars.hw.astype(np.int64)) & 1).astype(bool)
    if kinds.region[kind] != ANY_REGION:
        may &= cars.region == kinds.region[kind]
    needed = np.uint64(min(np.ceil(memory[kind]), MEMORY_MOST))
    if cars.memory.min(initial=needed) < needed:
        may &= cars.memory >= needed
    return np.asarray(may)


def each_car(values: npt.NDArray[Value], starts: Ints) -> npt.NDArray[Value]:
    """Return each class's value for all its cars, in class order, as numpy's repeat does at a fifth of the speed."""
    found = np.empty(int(starts[-1]), values.dtype)
    for value, first, last in zip(values.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        found[first:last] = value
    return found


def _compute(hw: Bytes, starts: Ints, speed: Singles, kinds: Kinds, policy: Policy) -> Mapping[int, Singles]:
    """Return by workload the units a second that each car computes; `hw` and `starts` are of classes."""
    base = rate_matrix(policy).astype(np.float32)
    found = {}
    for workload in set(kinds.workload.tolist()):
        found[workload] = each_car(base[:, workload].take(hw), starts)
        found[workload] *= speed
    return found


def _rates(
    fleet: tuple[Mapping[int, Singles], Singles],
    may: list[npt.NDArray[np.bool_]],
    kinds: Kinds,
    per_unit: Floats,
) -> Singles:
    """Return [kind, car in class order] units a second: the slower of compute and link, 0 where the car may not."""
    compute, link = fleet
    rate = np.empty((len(kinds), len(link)), np.float32)
    for first in range(0, len(link), CHUNK):
        part = slice(first, first + CHUNK)
        for kind, workload in enumerate(kinds.workload.tolist()):
            out = rate[kind, part]
            np.multiply(compute[workload][part], may[kind][part], out=out)
            if per_unit[kind] > 0.0:
                np.minimum(link[part] * np.float32(1.0 / per_unit[kind]), out, out=out)
    return rate
