"""Cars as a few hundred classes of equals, with their exact sums of what they would do in each block. Pure.

Between cars of one class only speed and presence differ, which scale everything alike; what decides which work suits a
car is its link per speed, so that is what classes are narrow in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import CHUNK, Bytes, Cars, Floats, Ints, Singles, counting_order
from fleetbatch.planner.kinds import Kinds
from fleetbatch.planner.policy import ANY_REGION, HORIZON_S, Policy, rate_matrix
from fleetbatch.planner.presence import presence_of
from fleetbatch.planner.turns import TURNS, turns_of

LINK_BUCKETS = 12
"""Between the link per speed that the lightest and the heaviest work of a group of cars need, at most."""
STEPS = 10.0
"""So many if a group were all the fleet's work, spread evenly over one e-fold of link per speed."""
BINS = 24
TAIL = 1e-3
"""A smaller part of the work than this is no class of its own beyond the last edge."""
SAMPLE = 16_384
CLASSES_MAX = 4000
ALL_HARDWARE = 255
SAME = 1e-6
MEMORY_MOST = 2.0**63
"""No shard needs more: a number beyond would not come back from 64 bits."""
ALONE = 1 << 17
"""A product of fewer multiplications is computed by this thread; a larger one wakes a thread on every core."""
DENSE = 1 << 22
"""Codes up to here are renumbered by a table instead of a sort."""


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
    code = _codes(cars, sieve, sieves, kinds, policy)
    turn = turns_of(cars.deficit)
    order = counting_order(code if turn is None else code * np.uint16(TURNS) + turn)
    starts = np.concatenate([[0], np.cumsum(np.bincount(code))]).astype(np.int64)
    free = np.minimum(free, HORIZON_S)  # infinite where nobody knows
    begins = np.maximum(cars.ready, free).astype(np.float32).take(order)
    limit = cars.limit.take(order)
    presence, later = presence_of(cars.survival, order, (begins, limit), grid)
    lead = order[starts[:-1]]
    speed, link = cars.speed.take(order), cars.link.take(order)
    sizes = np.diff(starts)
    compute = _compute(cars.hw[lead], sizes, speed, kinds, policy)
    may = [one.take(lead).repeat(sizes) if _told_apart(sieves, policy) else one.take(order) for one in sieves]
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


def _codes(
    cars: Cars, sieve: list[int], sieves: list[npt.NDArray[np.bool_]], kinds: Kinds, policy: Policy
) -> npt.NDArray[np.uint16]:
    """Return each car's class, numbered without gaps: sieves passed, price zone, hardware, link per speed."""
    hardware, zones, buckets = len(policy.rates), len(policy.price_per_j), LINK_BUCKETS + 2
    fine = _signature(sieves, len(cars.car_id), _signatures_max(policy))
    fine *= np.uint32(zones)
    fine += cars.zone
    fine *= np.uint32(hardware)
    fine += cars.hw
    group = _numbered(fine).astype(np.uint16)
    edges = _link_edges(cars, group, _asked(cars, group, [sieves[place] for place in sieve], kinds, policy))
    code = np.empty(len(group), np.uint32)
    for first in range(0, len(group), CHUNK):
        part = slice(first, first + CHUNK)
        of = group[part].astype(np.int64)
        bucket = np.zeros(len(of), np.uint8)
        ratio = cars.link[part] / np.maximum(cars.speed[part], np.float32(1e-9))
        for edge in edges.T:
            bucket += (ratio > edge.take(of)).view(np.uint8)
        code[part] = of * buckets + bucket
    found = _numbered(code)
    return (found if not len(found) or int(found.max()) < CLASSES_MAX else group).astype(np.uint16)


def _signatures_max(policy: Policy) -> int:
    return max(CLASSES_MAX // (len(policy.rates) * len(policy.price_per_j)), 1)


def _told_apart(sieves: list[npt.NDArray[np.bool_]], policy: Policy) -> bool:
    """Say whether all cars of a class pass the same sieves: there are classes enough for every signature."""
    return 1 << len(sieves) <= _signatures_max(policy)


def _signature(sieves: list[npt.NDArray[np.bool_]], cars: int, most: int) -> npt.NDArray[np.uint32]:
    """Return which sieves each car passes as a number below `most`."""
    signature = np.zeros(cars, np.uint32)
    for bit, passed in enumerate(sieves):
        signature |= passed.astype(np.uint32) << np.uint32(bit % 32)
    return signature if 1 << len(sieves) <= most else _numbered(signature) % np.uint32(most)


def _numbered(code: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the codes renumbered from 0 without gaps, in their order."""
    if not len(code):
        return code
    span = int(code.max()) + 1
    if span <= DENSE:
        present = np.zeros(span, bool)
        present[code] = True
        return (np.cumsum(present) - 1).astype(np.uint32).take(code)
    return np.unique(code, return_inverse=True)[1].astype(np.uint32)


def _asked(
    cars: Cars, group: npt.NDArray[np.uint16], may: list[npt.NDArray[np.bool_]], kinds: Kinds, policy: Policy
) -> tuple[Floats, Floats]:
    """Return [group, kind], units a second of a car of speed 1, 0 where it may not, and the link that they need."""
    if not len(group):
        return np.zeros((0, len(kinds))), np.zeros((0, len(kinds)))
    member = np.zeros(int(group.max()) + 1, np.int64)
    member[group] = np.arange(len(group))  # any will do: all of a group pass the same sieves
    allowed = np.stack([passed.take(member) for passed in may], axis=1)
    rate = rate_matrix(policy)[:, kinds.workload].take(cars.hw.take(member), axis=0) * allowed
    return rate, rate * kinds.bytes_most


def _link_edges(cars: Cars, group: npt.NDArray[np.uint16], asked: tuple[Floats, Floats]) -> Singles:
    """Return [group, edge] of link per speed, dense only where it decides whether link or compute bounds a kind.

    What a class loses grows with its work and with the square of its width (in logarithms): edges are then best as
    dense as the cube root of the work's density, as for any quantizer of square errors.
    """
    (rate, need), step = asked, max(len(group) // SAMPLE, 1)
    least, most = np.where(need > 0.0, need, np.inf).min(axis=1, initial=np.inf), need.max(axis=1, initial=0.0)
    width = np.log(np.where(most > least, most / np.maximum(least, 1e-300), 1.0))
    of = group[::step].astype(np.int64)
    ratio = np.maximum(cars.link[::step], np.float32(1e-9)) / np.maximum(cars.speed[::step], np.float32(1e-9))
    at = (np.log(ratio) - np.log(np.where(least < np.inf, least, 1.0))[of]) * BINS / np.maximum(width, 1e-9)[of]
    bins = np.clip(np.floor(at) + 1.0, 0, BINS + 1).astype(np.int64)  # the first and the last for what lies outside
    found = np.bincount(of * (BINS + 2) + bins, minlength=len(need) * (BINS + 2)).reshape(-1, BINS + 2)
    work = rate.max(axis=1, initial=0.0)[:, None] * found
    work /= max(float(work.sum()), 1e-300)
    dense = np.cbrt(work[:, 1:-1]) * (width / BINS)[:, None]
    edges = _cut(least, width, np.concatenate([np.zeros((len(need), 1)), np.cumsum(dense, axis=1)], axis=1))
    edges[work[:, 0] < TAIL, 0] = np.inf
    edges[(edges >= most[:, None] * (1.0 - SAME)) & (work[:, -1:] < TAIL)] = np.inf
    return edges


def _cut(least: Floats, width: Floats, upto: Floats) -> Singles:
    """Return [group, edge] from each group's least edge on, at equal steps of its `upto` [group, bin edge]."""
    count = np.clip(np.ceil(STEPS * upto[:, -1]).astype(np.int64), 1, LINK_BUCKETS)
    edges = np.full((len(least), int(count.max(initial=1)) + 1), np.inf, np.float32)
    edges[:, 0] = least
    for place in np.flatnonzero(width > 0.0).tolist():
        steps = np.arange(1, count[place] + 1) / count[place]
        at = np.interp(steps[:-1] * upto[place, -1], upto[place], np.arange(BINS + 1))
        edges[place, 1 : count[place] + 1] = least[place] * np.exp(np.append(at / BINS, 1.0) * width[place])
    return edges


def _compute(hw: Bytes, cars: Ints, speed: Singles, kinds: Kinds, policy: Policy) -> Mapping[int, Singles]:
    """Return by workload the units a second that each car computes; `hw` and `cars`, their number, are of classes."""
    base = rate_matrix(policy).astype(np.float32)
    found = {}
    for workload in set(kinds.workload.tolist()):
        found[workload] = np.repeat(base[:, workload].take(hw), cars)
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
    for kind, workload in enumerate(kinds.workload.tolist()):
        out = rate[kind]
        if per_unit[kind] > 0.0:
            np.multiply(link, np.float32(1.0 / per_unit[kind]), out=out)
            np.minimum(out, compute[workload], out=out)
            out *= may[kind]
        else:
            np.multiply(compute[workload], may[kind], out=out)
    return rate
