"""Cars as a few hundred classes of equals, with their exact sums of what they would do in each block. Pure.

Between cars of one class only speed and presence differ, which scale everything alike; what decides which work suits a
car is its link per speed, so that is what classes are narrow in.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import CHUNK, Cars, Floats, Ints, Singles, counting_order
from fleetbatch.planner.kinds import Kinds
from fleetbatch.planner.policy import ANY_REGION, GRID_POINTS, GRID_S, HORIZON_S, Policy, rate_matrix

LINK_BUCKETS = 5
SAMPLE = 65_536
CURVES = 4096
"""Cars whose curves are looked at at a time: as many as fit into the cache."""
CLASSES_MAX = 4000
ALL_HARDWARE = 255
SAME = 1e-6
LATER_POINT = 8
TURNS = 16
"""Steps in which owners' deficits are told apart; with the classes they fit into 16 bits."""
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
    car_hw: npt.NDArray[np.uint8]
    """[car in class order], as the two that follow."""
    speed: Singles
    link: Singles
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
    code = _codes(cars, sieves, kinds, policy)
    turn = _turns(cars.deficit)
    order = counting_order(code if turn is None else code * np.uint16(TURNS) + turn)
    starts = np.concatenate([[0], np.cumsum(np.bincount(code))]).astype(np.int64)
    free = np.minimum(free, HORIZON_S)  # infinite where nobody knows
    begins = np.maximum(cars.ready, free).astype(np.float32)
    presence, later = _presence(cars, begins, grid)
    presence = np.take(presence, order, axis=1)
    may = [np.take(one, order) for one in sieves]
    hw, speed, link = cars.hw[order], cars.speed[order], cars.link[order]
    rate = _rates((hw, speed, link), [may[place] for place in sieve], kinds, kinds.bytes_most, policy)
    best = rate
    if not _alike(kinds, cars.memory):
        sieve, sieves = _sieves(cars, kinds, kinds.memory_least)
        may = [np.take(one, order) for one in sieves]
        best = _rates((hw, speed, link), [may[place] for place in sieve], kinds, kinds.bytes_least, policy)
    lead = order[starts[:-1]]
    work, seconds = _sums(presence, rate, starts)
    return Fleet(
        order=order,
        starts=starts,
        hw=cars.hw[lead].astype(np.int64),
        zone=cars.zone[lead].astype(np.int64),
        turn=None if turn is None else turn[order],
        later=later[order],
        presence=presence,
        rate=rate,
        best=best,
        car_hw=hw,
        speed=speed,
        link=link,
        work=work,
        seconds=seconds,
    )


def _sums(presence: Singles, rate: Singles, starts: Ints) -> tuple[Floats, Floats]:
    """Return each class's sums of rate * presence, and of presence; 32-bit sums of a few cars are summed in 64 bits."""
    classes = len(starts) - 1
    work, seconds = np.zeros((classes, len(presence), len(rate))), np.zeros((classes, len(presence)))
    for place in range(classes):
        for first in range(int(starts[place]), int(starts[place + 1]), CHUNK):
            part = slice(first, min(first + CHUNK, int(starts[place + 1])))
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
    return np.asarray(may & (cars.memory >= memory[kind]))


def _codes(cars: Cars, sieves: list[npt.NDArray[np.bool_]], kinds: Kinds, policy: Policy) -> npt.NDArray[np.uint16]:
    """Return each car's class, numbered without gaps: sieves passed, hardware, price zone, link per speed."""
    signature = np.zeros(len(cars.car_id), np.uint32)
    for bit, passed in enumerate(sieves):
        signature |= passed.astype(np.uint32) << np.uint32(bit % 32)
    signature = _numbered(signature)
    signature %= np.uint32(max(CLASSES_MAX // (len(policy.rates) * len(policy.price_per_j)), 1))
    place = (signature * np.uint32(len(policy.price_per_j)) + cars.zone) * np.uint32(len(policy.rates)) + cars.hw
    fine = _numbered(place * np.uint32(LINK_BUCKETS + 2) + _link_bucket(cars, kinds, policy))
    if len(fine) and int(fine.max()) >= CLASSES_MAX:
        fine = _numbered(place)
    return fine.astype(np.uint16)


def _turns(deficit: Singles) -> npt.NDArray[np.uint16] | None:
    """Return whose turn it is among equals: 0 for the largest deficits; none where nobody has any."""
    most = deficit.max(initial=0.0)
    if most <= 0.0:
        return None
    return np.asarray((TURNS - 1) - np.rint(deficit * np.float32((TURNS - 1) / most)), np.uint16)


def _numbered(code: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the codes renumbered from 0 without gaps, in their order."""
    if not len(code):
        return code
    span = int(code.max()) + 1
    if span <= DENSE:
        present = np.bincount(code, minlength=span) > 0
        return np.asarray((np.cumsum(present) - 1).astype(np.uint32)[code])
    return np.unique(code, return_inverse=True)[1].astype(np.uint32)


def _link_bucket(cars: Cars, kinds: Kinds, policy: Policy) -> npt.NDArray[np.uint8]:
    """Return a bucket of link per speed, fine only where it decides whether link or compute bounds some kind."""
    ratio = cars.link / np.maximum(cars.speed, np.float32(1e-9))
    need = rate_matrix(policy)[:, kinds.workload] * kinds.bytes_most
    step = max(len(ratio) // SAMPLE, 1)
    sample, sample_hw = ratio[::step], cars.hw[::step]
    bucket = np.zeros(len(ratio), np.uint8)
    edges = np.full((len(need), LINK_BUCKETS + 1), np.inf, np.float32)
    for hw, row in enumerate(need):
        turns = row[row > 0.0]
        if not len(turns):
            continue
        inside = sample[(sample_hw == hw) & (sample > turns.min()) & (sample < turns.max())]
        cuts = np.quantile(inside, np.arange(1, LINK_BUCKETS) / LINK_BUCKETS) if len(inside) else []
        edges[hw, : len(cuts) + 2] = np.sort([turns.min(), *cuts, turns.max()])
    for first in range(0, len(ratio), CHUNK):
        part = slice(first, first + CHUNK)
        for cut in range(LINK_BUCKETS + 1):
            bucket[part] += ratio[part] > edges[:, cut].take(cars.hw[part])
    return bucket


def _rates(
    fleet: tuple[npt.NDArray[np.uint8], Singles, Singles],
    may: list[npt.NDArray[np.bool_]],
    kinds: Kinds,
    per_unit: Floats,
    policy: Policy,
) -> Singles:
    """Return [kind, car in class order] units a second: the slower of compute and link, 0 where the car may not."""
    base, (hw, speed, link) = rate_matrix(policy).astype(np.float32), fleet
    rate = np.empty((len(kinds), len(speed)), np.float32)
    compute = {workload: base[:, workload].take(hw) * speed for workload in set(kinds.workload.tolist())}
    for kind, workload in enumerate(kinds.workload.tolist()):
        out = rate[kind]
        out[:] = compute[workload]
        if per_unit[kind] > 0.0:
            np.minimum(out, link * np.float32(1.0 / per_unit[kind]), out=out)
        out *= may[kind]
    return rate


def _presence(cars: Cars, begins: Singles, grid: Grid) -> tuple[Singles, npt.NDArray[np.uint8]]:
    """Return [block, car] expected seconds there and allowed, and [car] the curve in two hours.

    The seconds are the integral of the curve over the block.

    The integral up to a block's edge is a product with fixed weights (trapezoids of 15 minutes); that up to a car's own
    begin and end, where it has one inside the night, needs the car's running sum.
    """
    edges, end = grid.edges, float(grid.edges[-1])
    slots = min(int(np.ceil(end / GRID_S)), GRID_POINTS - 1)
    weights = _edge_weights(edges, slots)
    limit = np.minimum(cars.limit, end).astype(np.float32)
    presence = np.empty((grid.blocks(), len(begins)), np.float32)
    later = np.empty(len(begins), np.uint8)
    for first in range(0, len(begins), CURVES):
        part = slice(first, first + CURVES)
        later[part] = cars.survival[part, LATER_POINT]
        curve = cars.survival[part, : slots + 1].astype(np.float32)
        upto = weights.T @ curve.T
        before, after = np.zeros(len(curve), np.float32), np.full(len(curve), np.inf, np.float32)
        late, early = np.flatnonzero(begins[part] > 0.0), np.flatnonzero(limit[part] < end)
        before[late] = _upto(curve.take(late, axis=0), begins[part][late])
        after[early] = _upto(curve.take(early, axis=0), limit[part][early])
        np.minimum(np.maximum(upto, before, out=upto), after, out=upto)
        np.maximum(upto[1:] - upto[:-1], 0.0, out=presence[:, part])
    return presence, later


def _edge_weights(edges: Floats, slots: int) -> Singles:
    """Return [point, edge], so that curve (in 1/255) times it is the integral of the curve up to each edge."""
    weights = np.zeros((slots + 1, len(edges)))
    for column, edge in enumerate(edges):
        whole = min(int(edge // GRID_S), slots)
        weights[:whole, column] += GRID_S / 2.0
        weights[1 : whole + 1, column] += GRID_S / 2.0
        rest = edge - whole * GRID_S
        if rest > 0.0 and whole < slots:
            weights[whole, column] += rest - rest * rest / (2.0 * GRID_S)
            weights[whole + 1, column] += rest * rest / (2.0 * GRID_S)
    return (weights / 255.0).astype(np.float32)


def _upto(curve: Singles, seconds: Singles) -> Singles:
    """Return the integral of each curve up to its own instant; looks no further than the latest instant."""
    slots = min(int(seconds.max(initial=0.0) // GRID_S) + 1, curve.shape[1] - 1)
    place = np.minimum((seconds / np.float32(GRID_S)).astype(np.int64), slots - 1)
    rest = np.minimum(seconds - place * np.float32(GRID_S), np.float32(GRID_S))
    rows = np.arange(len(curve))
    sums = curve[:, : slots + 1] @ _TRAPEZOIDS[: slots + 1, :slots]
    first, second = curve[rows, place], curve[rows, place + 1]
    inside = rest * first + rest * rest * (second - first) / np.float32(2.0 * GRID_S)
    return np.asarray((sums[rows, place] + inside) / np.float32(255.0), np.float32)


def _trapezoids() -> Singles:
    """Return [point, slot], so that a curve times it is the curve's integral up to the beginning of each slot."""
    columns = [_edge_weights(np.array([slot * GRID_S]), GRID_POINTS - 1) for slot in range(GRID_POINTS - 1)]
    return np.concatenate(columns, axis=1) * np.float32(255.0)


_TRAPEZOIDS = _trapezoids()
