"""How long cars are expected to be there and allowed to compute, block by block: integrals of their curves. Pure."""

import numpy as np

from fleetbatch.planner.grid import Grid
from fleetbatch.planner.inputs import CURVES, Bytes, Floats, Ints, Singles
from fleetbatch.planner.policy import GRID_POINTS, GRID_S

LATER_POINT = 8


def presence_of(survival: Bytes, order: Ints, allowed: tuple[Singles, Singles], grid: Grid) -> tuple[Singles, Bytes]:
    """Return [block, car] expected seconds there and allowed, and [car] the curve in two hours, in class order.

    The seconds are the integral of the curve over the block. `allowed` is from when to when each car may compute, in
    class order too. The integral up to a block's edge is a product with fixed weights (trapezoids of 15 minutes); that
    up to a car's own begin and end, where it has one inside the night, needs the car's running sum.
    """
    (begins, limit), edges, end = allowed, grid.edges, float(grid.edges[-1])
    slots = min(int(np.ceil(end / GRID_S)), GRID_POINTS - 1)
    weights = _edge_weights(edges, slots)
    presence = np.empty((grid.blocks(), len(begins)), np.float32)
    later = np.empty(len(begins), np.uint8)
    # What is as large as this and made anew for every part would be returned to the kernel each time, and asked back.
    rows, room = np.empty((CURVES, GRID_POINTS), np.uint8), np.empty((CURVES, slots + 1), np.float32)
    for first in range(0, len(begins), CURVES):
        part = slice(first, min(first + CURVES, len(begins)))
        count = part.stop - first
        whole, curve = survival.take(order[part], axis=0, out=rows[:count], mode="clip"), room[:count]
        later[part] = whole[:, LATER_POINT]
        np.copyto(curve, whole[:, : slots + 1])
        upto = np.ascontiguousarray((curve @ weights).T)
        late, early = np.flatnonzero(begins[part] > 0.0), np.flatnonzero(limit[part] < end)
        before, after = np.zeros(count, np.float32), np.full(count, np.inf, np.float32)
        before[late] = _upto(curve, late, begins[part].take(late))
        after[early] = _upto(curve, early, limit[part].take(early))
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


def _upto(curves: Singles, some: Ints, seconds: Singles) -> Singles:
    """Return the integrals of some curves, each up to its own instant; looks no further than the latest instant."""
    slots = min(int(seconds.max(initial=0.0) // GRID_S) + 1, curves.shape[1] - 1)
    curve, points = curves[:, : slots + 1].take(some, axis=0), slots + 1
    place = np.minimum((seconds / SLOT_S).astype(np.int64), slots - 1)
    rest = np.minimum(seconds - place.astype(np.float32) * SLOT_S, SLOT_S)
    sums = curve @ _TRAPEZOIDS[:points, :slots]
    row = np.arange(len(curve))
    before, point = sums.reshape(-1).take(row * slots + place), row * points + place
    first = curve.reshape(-1).take(point)
    second = curve.reshape(-1).take(point + 1)
    inside = rest * (first + rest * (second - first) * np.float32(0.5 / GRID_S))
    return np.asarray((before + inside) * np.float32(1.0 / 255.0))


SLOT_S = np.float32(GRID_S)


def _trapezoids() -> Singles:
    """Return [point, slot], so that a curve times it is the curve's integral up to the beginning of each slot."""
    columns = [_edge_weights(np.array([slot * GRID_S]), GRID_POINTS - 1) for slot in range(GRID_POINTS - 1)]
    return np.concatenate(columns, axis=1) * np.float32(255.0)


_TRAPEZOIDS = _trapezoids()
