"""How long cars are expected to be there and allowed to compute, block by block: integrals of their curves. Pure."""

import itertools

import numpy as np
import numpy.typing as npt

from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import CERTAIN, Bytes, Floats, Ints, Singles
from fleetbatch.planner.policy import GRID_POINTS, GRID_S

LATER_POINT = 8
CURVES = 8192
"""Cars whose curves are turned and summed up at a time; fewer leave most of the time to calls instead of numbers."""
Sums = npt.NDArray[np.uint16]
"""Of twice a curve's whole slots: 96 * 2 * 255 is less than 2 ** 16."""


def presence_of(survival: Bytes, allowed: tuple[Singles, Singles], grid: Grid) -> tuple[Singles, Bytes]:
    """Return [block, car] expected seconds there and allowed, and [car] the curve in two hours.

    The seconds are the integral of the curve over the block (trapezoids of 15 minutes). `allowed` is from when to when
    each car may compute. Curves are turned to [point, car] and summed up in whole numbers: a pass over points is a few
    passes over cars, without the matrix product that would wake a thread on every core. They are read in the cars'
    own order: what comes out is a third of what goes in, and is cheaper to put in another.
    """
    (begins, limit), end = allowed, float(grid.edges[-1])
    slots = min(max(int(np.ceil(end / GRID_S)), LATER_POINT), GRID_POINTS - 1)
    presence = np.empty((grid.blocks(), len(begins)), np.float32)
    later = np.empty(len(begins), np.uint8)
    # What is as large as this and made anew for every part would be returned to the kernel each time, and asked back.
    room = np.empty((2, slots + 1, CURVES), np.uint16)
    for first in range(0, len(begins), CURVES):
        part = slice(first, min(first + CURVES, len(begins)))
        whole = survival[part]
        room[0, :, : len(whole)] = whole[:, : slots + 1].T
        curve, sums = room[0], _summed(room[0], room[1])
        later[part] = curve[LATER_POINT, : len(whole)]
        late, early = np.flatnonzero(begins[part] > 0.0), np.flatnonzero(limit[part] < end)
        before, after = np.zeros(len(whole), np.float32), np.full(len(whole), np.inf, np.float32)
        before[late] = _upto(curve, sums, late, begins[part].take(late))
        after[early] = _upto(curve, sums, early, limit[part].take(early))
        upto = _upto_edges(curve[:, : len(whole)], sums[:, : len(whole)], grid.edges)
        np.minimum(np.maximum(upto, before, out=upto), after, out=upto)
        np.maximum(upto[1:] - upto[:-1], 0.0, out=presence[:, part])
    return presence, later


def _summed(curve: Sums, sums: Sums) -> Sums:
    """Return [point, car], twice the area under each curve up to each point, in slots; written into `sums`."""
    sums[0] = 0
    np.add(curve[:-1], curve[1:], out=sums[1:])
    rows = list(sums)
    for before, row in itertools.pairwise(rows):
        np.add(before, row, out=row)
    return sums


def _upto_edges(curve: Sums, sums: Sums, edges: Floats) -> Singles:
    """Return [edge, car], the integral of each curve up to each edge."""
    upto = np.empty((len(edges), curve.shape[1]), np.float32)
    for place, edge in enumerate(edges.tolist()):
        point = min(int(edge // GRID_S), len(curve) - 1)
        np.multiply(sums[point], HALF_SLOT, out=upto[place])
        rest = (edge - point * GRID_S) / GRID_S
        if rest > 0.0 and point + 1 < len(curve):
            upto[place] += curve[point] * (HALF_SLOT * np.float32(rest * (2.0 - rest)))
            upto[place] += curve[point + 1] * (HALF_SLOT * np.float32(rest * rest))
    return upto


def _upto(curve: Sums, sums: Sums, some: Ints, seconds: Singles) -> Singles:
    """Return the integrals of some curves, each up to its own instant."""
    last = len(curve) - 2
    slot = seconds / SLOT_S
    point = np.minimum(slot.astype(np.int64), last)
    slot -= point.astype(np.float32)
    rest = np.minimum(slot, np.float32(1.0), out=slot)
    point *= curve.shape[1]
    point += some
    first = curve.reshape(-1).take(point).astype(np.float32)
    second = curve.reshape(-1).take(point + curve.shape[1]).astype(np.float32)
    inside = rest * (first + first + rest * (second - first))
    return np.asarray((sums.reshape(-1).take(point).astype(np.float32) + inside) * HALF_SLOT)


SLOT_S = np.float32(GRID_S)
HALF_SLOT = np.float32(GRID_S / 2.0 / CERTAIN)
