"""Which class a car belongs to: same sieves passed, price zone, hardware, link per speed between two cuts. Pure.

Cuts are dense only where it matters to which kinds of work a car's link is the limit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.inputs import CHUNK, Cars, Floats, Ints, Singles, stays
from fleetbatch.planner.kinds import Kinds, beyond
from fleetbatch.planner.policy import Policy, rate_matrix

LINK_BUCKETS = 12
"""Between the link per speed that the lightest and the heaviest work of a group of cars need, at most."""
STEPS = 10.0
"""So many if a group were all the fleet's work, spread evenly over one e-fold of link per speed."""
STEPS_BY_SPEED = 8.0
"""So many where classes are cut by speed as well."""
BUSY = 0.9
"""At a load above this, classes are not cut by speed."""
SPEED_CUTS = (7.0, 3.5, 1.4, 0.7)
"""Times the share of the cars that the work needs, counted from the fastest."""
SHARE_MOST = 0.96
"""No cut has a larger share of the cars above it: what is below would hardly be a class."""
SPEED_SAMPLE = 4096
BINS = 24
TAIL = 1e-3
"""A smaller part of the work than this is no class of its own beyond the last edge."""
SAMPLE = 16_384
CLASSES_MAX = 4000
CODES_MAX = 40_000
"""With as many edges classes may still be numbered in 16 bits."""
SAME = 1e-6
DENSE = 1 << 22
"""Codes up to here are renumbered by a table instead of a sort."""


def class_codes(
    cars: Cars, behind: tuple[list[int], list[npt.NDArray[np.bool_]]], kinds: Kinds, until_s: float, policy: Policy
) -> tuple[npt.NDArray[np.uint16], Ints]:
    """Return each car's class, and how many cars each class has, which may be none.

    `behind` is which sieve each kind is behind, and the cars that pass each; `until_s` when the last work is due.
    """
    sieve, sieves = behind
    group = _groups(cars, sieves, policy)
    asked = _asked(cars, group, [sieves[place] for place in sieve], kinds, policy)
    speeds = _speed_cuts(cars, group, asked, kinds, until_s)
    edges = _link_edges(cars, group, asked, STEPS if not len(speeds) else STEPS_BY_SPEED)
    if edges.size * (len(speeds) + 1) > CODES_MAX:
        return group.astype(np.uint16), np.bincount(group)
    first_cell, classes = _class_table(edges)
    code = np.empty(len(group), np.uint16)
    for first in range(0, len(group), CHUNK):
        part = slice(first, first + CHUNK)
        speed = np.maximum(cars.speed[part], np.float32(1e-9))
        cell = np.clip(_cells(cars.link[part] / speed), first_cell, first_cell + classes.shape[1] - 1) - first_cell
        cell += group[part] * np.int64(classes.shape[1])
        classes.take(cell, out=code[part], mode="clip")
        if len(speeds):
            code[part] *= np.uint16(len(speeds) + 1)
            code[part] += beyond(speed, speeds)
    sizes = np.bincount(code)
    if np.count_nonzero(sizes) < CLASSES_MAX:
        return code, sizes
    return group.astype(np.uint16), np.bincount(group)


def _groups(cars: Cars, sieves: list[npt.NDArray[np.bool_]], policy: Policy) -> npt.NDArray[Any]:
    """Return a number for the sieves that each car passes, its price zone and its hardware."""
    hardware, zones, most = len(policy.rates), len(policy.price_per_j), _signatures_max(policy)
    signature = _signature(sieves, len(cars.car_id), most)
    fine = signature.astype(np.min_scalar_type(min(1 << len(sieves), most) * zones * hardware))
    if zones > 1:
        fine *= fine.dtype.type(zones)
        fine += cars.zone.astype(fine.dtype)
    fine *= fine.dtype.type(hardware)
    fine += cars.hw
    return fine if fine.dtype.itemsize == 1 else numbered(fine)


def _speed_cuts(
    cars: Cars, group: npt.NDArray[Any], asked: tuple[Floats, Floats], kinds: Kinds, until_s: float
) -> Singles:
    """Return the speeds, rising, at which classes are cut where many cars will stand idle; none where few will.

    A second costs a fast car what it costs a slow one. Where all work nothing can be gained by that; where half do, it
    should be the fast ones: a plan that cannot tell them apart was .2 % below its bound at load .5. Cuts stand around
    the share of the cars that the work needs.
    """
    step = max(len(group) // SPEED_SAMPLE, 1)
    some = np.arange(0, len(group), step)
    begins, ends = cars.ready[::step], np.minimum(cars.limit[::step], np.float32(until_s))
    there_s = np.maximum(ends - begins, 0.0) * stays(cars.survival, some, (begins + ends) / np.float32(2.0))
    speed, able = cars.speed[::step], np.zeros(len(kinds))
    for kind, bytes_per_unit in enumerate(kinds.bytes_most.tolist()):
        rate = asked[0][:, kind].take(group[::step])
        units = np.minimum(rate * speed, np.where(rate > 0.0, cars.link[::step] / max(bytes_per_unit, 1e-30), 0.0))
        able[kind] = step * float(np.sum(units * there_s))
    load = float(np.sum(np.divide(kinds.units, able, out=np.zeros_like(able), where=able > 0.0)))
    if load >= BUSY or not len(some):
        return np.zeros(0, np.float32)
    shares = [1.0 - times * load for times in SPEED_CUTS if times * load < SHARE_MOST]
    return np.unique(np.quantile(speed, shares)).astype(np.float32)


def _class_table(edges: Singles) -> tuple[int, npt.NDArray[np.uint16]]:
    """Return the first cell of link per speed that matters, and [group, cell] the class.

    Cells are of half a percent, which is near enough to an edge, and a car costs one look into a table instead
    of one for every edge.
    """
    edge = _cells(edges)
    finite = edge[edges < np.inf]
    first = int(finite.min()) if len(finite) else 0
    cells = np.arange(first, int(finite.max(initial=first)) + 2)
    above = np.zeros((len(edges), len(cells)), np.uint16)
    for one in edge.T:
        above += cells > one[:, None]
    classes_before = np.append(0, np.cumsum(np.sum(edges < np.inf, axis=1) + 1))[:-1]
    return first, above + classes_before.astype(np.uint16)[:, None]


def _cells(ratio: npt.NDArray[Any]) -> Ints:
    """Return the upper bits of floats of at least 0, which rise with them."""
    return (ratio.view(np.uint32) >> np.uint32(CELL_BITS)).astype(np.int64)


CELL_BITS = 16
"""Of a float's 23 bits behind the point, so many tell nothing."""


def _signatures_max(policy: Policy) -> int:
    return max(CLASSES_MAX // (len(policy.rates) * len(policy.price_per_j)), 1)


def told_apart(sieves: list[npt.NDArray[np.bool_]], policy: Policy) -> bool:
    """Say whether all cars of a class pass the same sieves: there are classes enough for every signature."""
    return 1 << len(sieves) <= _signatures_max(policy)


def _signature(sieves: list[npt.NDArray[np.bool_]], cars: int, most: int) -> npt.NDArray[Any]:
    """Return which sieves each car passes as a number below `most`."""
    signature = np.zeros(cars, np.min_scalar_type((1 << min(len(sieves), 32)) - 1))
    for bit, passed in enumerate(sieves):
        signature |= passed.view(np.uint8) << signature.dtype.type(bit % 32)
    return signature if 1 << len(sieves) <= most else numbered(signature) % np.uint32(most)


def numbered(code: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return the codes renumbered from 0 without gaps, in their order."""
    if not len(code):
        return np.zeros(0, np.uint32)
    span = int(code.max()) + 1
    if span <= DENSE:
        present = np.zeros(span, bool)
        present[code] = True
        return (np.cumsum(present) - 1).astype(np.uint32).take(code)
    return np.unique(code, return_inverse=True)[1].astype(np.uint32)


def _asked(
    cars: Cars, group: npt.NDArray[Any], may: list[npt.NDArray[np.bool_]], kinds: Kinds, policy: Policy
) -> tuple[Floats, Floats]:
    """Return [group, kind], units a second of a car of speed 1, 0 where it may not, and the link that they need."""
    if not len(group):
        return np.zeros((0, len(kinds))), np.zeros((0, len(kinds)))
    member = np.zeros(int(group.max()) + 1, np.int64)
    member[group] = np.arange(len(group))  # any will do: all of a group pass the same sieves
    allowed = np.stack([passed.take(member) for passed in may], axis=1)
    rate = rate_matrix(policy)[:, kinds.workload].take(cars.hw.take(member), axis=0) * allowed
    return rate, rate * kinds.bytes_most


def _link_edges(cars: Cars, group: npt.NDArray[Any], asked: tuple[Floats, Floats], steps: float) -> Singles:
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
    upto = np.concatenate([np.zeros((len(need), 1)), np.cumsum(dense, axis=1)], axis=1)
    edges = _cut(least, width, steps * upto)
    edges[work[:, 0] < TAIL, 0] = np.inf
    edges[(edges >= most[:, None] * (1.0 - SAME)) & (work[:, -1:] < TAIL)] = np.inf
    return edges


def _cut(least: Floats, width: Floats, upto: Floats) -> Singles:
    """Return [group, edge] from each group's least edge on, at equal steps of its `upto` [group, bin edge]."""
    count = np.clip(np.ceil(upto[:, -1]).astype(np.int64), 1, LINK_BUCKETS)
    edges = np.full((len(least), int(count.max(initial=1)) + 1), np.inf, np.float32)
    edges[:, 0] = least
    for place in np.flatnonzero(width > 0.0).tolist():
        steps = np.arange(1, count[place] + 1) / count[place]
        at = np.interp(steps[:-1] * upto[place, -1], upto[place], np.arange(BINS + 1))
        edges[place, 1 : count[place] + 1] = least[place] * np.exp(np.append(at / BINS, 1.0) * width[place])
    return edges
