"""Heeding what owners say: a stated departure bends the curve, and never replaces it. Pure.

Stated departures are worse than the forecast (design/windows), so a statement is evidence with an error of its own:
curves are updated by Bayes' rule with the errors that past statements had, a mixture of a peak around the stated
time and a flat rest for those who forgot to change it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import FloatArray
from fleetbatch.windows.groups import GRID_H, TICK_H
from fleetbatch.windows.stays import Moments, Stays

NEAR_H: Final = 4.0
"""A statement further off than this was not meant for this stay."""
SPAN_H: Final = 48.0
"""Over which the flat rest is spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeedDials:
    """What is believed of statements before any was seen, and how many seen ones outweigh it."""

    meant: float = 0.7
    spread_h: float = 1.0
    statements: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How statements turned out: the share that were meant, and the mean error of those."""

    meant: float
    spread_h: float


def trust_in_statements(stays: Stays, dials: HeedDials) -> Trust:
    """Return how far past statements were off, leaning on the dials while there are few."""
    stated = _stated_h(stays.closed.departure_at_h, stays.closed.trip_at_h)
    known = np.isfinite(stated)
    error = np.abs(stays.end_h[known] - stated[known])
    near = error <= NEAR_H
    weight = dials.statements
    return Trust(
        meant=float((near.sum() + weight * dials.meant) / (len(error) + weight)),
        spread_h=float((error[near].sum() + weight * dials.spread_h) / (near.sum() + weight)),
    )


def heed(survival: FloatArray, moments: Moments, trust: Trust) -> FloatArray:
    """Return the curves bent by the statements of those who made one; the others as they are."""
    stated = _stated_h(moments.stay.departure_at_h, moments.stay.trip_at_h) - moments.now_h
    rows = np.flatnonzero(np.isfinite(stated))
    if rows.size == 0:
        return survival
    before = np.concatenate([np.ones((rows.size, 1)), survival[rows]], axis=1)
    leaves = np.concatenate([-np.diff(before, axis=1), before[:, -1:]], axis=1)
    middle = np.concatenate([GRID_H - TICK_H / 2, [0.0]])
    off = np.abs(middle - stated[rows, None])
    # Who leaves after the grid is as near to the statement as anybody after the grid can be.
    off[:, -1] = np.maximum(GRID_H[-1] - stated[rows], 0.0)
    peak = np.exp(-off / trust.spread_h) / (2 * trust.spread_h)
    weighed = leaves * (trust.meant * peak + (1 - trust.meant) / SPAN_H)
    left = np.cumsum(weighed, axis=1) / np.maximum(weighed.sum(axis=1, keepdims=True), 1e-300)
    bent = survival.copy()
    bent[rows] = 1.0 - left[:, :-1]
    return bent


def _stated_h(departure_h: FloatArray, trip_h: FloatArray) -> FloatArray:
    return np.where(np.isfinite(departure_h), departure_h, trip_h)
