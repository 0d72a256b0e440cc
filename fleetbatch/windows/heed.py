"""Heeding what owners say: a stated departure bends the curve, and never replaces it. Pure.

Stated departures are worse than the forecast (design/windows), so a statement is evidence with an error of its own:
curves are updated by Bayes' rule with the errors that past statements had, a mixture of a peak around the stated
time and a flat rest for those who forgot to change it. The next trip counts where no departure is stated, with errors
of its own; both at once would count one intention twice.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import FloatArray, IntArray
from fleetbatch.windows.groups import GRID_H, TICK_H
from fleetbatch.windows.stays import Moments, Started, Stays

DEPARTURE, TRIP = 0, 1
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
    """How statements turned out, one number for departures and one for trips."""

    meant: FloatArray
    """The share that were meant."""
    spread_h: FloatArray
    """The mean error of those."""


def trust_in_statements(stays: Stays, dials: HeedDials, by_h: float = np.inf) -> Trust:
    """Return how far the statements of stays that had ended by `by_h` were off, leaning on the dials while few."""
    stated, kind = _statements(stays.closed)
    known = np.isfinite(stated) & (stays.end_h <= by_h)
    error, kind = np.abs(stays.end_h[known] - stated[known]), kind[known]
    near = error <= NEAR_H
    all_, meant = (np.bincount(of, minlength=2) for of in (kind, kind[near]))
    off_h = np.bincount(kind[near], weights=error[near], minlength=2)
    weight = dials.statements
    return Trust(
        meant=(meant + weight * dials.meant) / (all_ + weight),
        spread_h=(off_h + weight * dials.spread_h) / (meant + weight),
    )


def heed(survival: FloatArray, moments: Moments, trust: Trust) -> FloatArray:
    """Return the curves bent by the statements of those who had made one by then; the others as they are."""
    stay = moments.stay
    stated_h, kinds = _statements(stay)
    heard = np.isfinite(stated_h) & ~(stay.stated_at_h > moments.now_h)
    rows = np.flatnonzero(heard)
    if rows.size == 0:
        return survival
    ahead, kind = stated_h[rows] - moments.now_h[rows], kinds[rows]
    before = np.concatenate([np.ones((rows.size, 1)), survival[rows]], axis=1)
    leaves = np.concatenate([-np.diff(before, axis=1), before[:, -1:]], axis=1)
    middle = np.concatenate([GRID_H - TICK_H / 2, [0.0]])
    off = np.abs(middle - ahead[:, None])
    # Who leaves after the grid is as near to the statement as anybody after the grid can be.
    off[:, -1] = np.maximum(GRID_H[-1] - ahead, 0.0)
    spread, meant = trust.spread_h[kind][:, None], trust.meant[kind][:, None]
    weighed = leaves * (meant * np.exp(-off / spread) / (2 * spread) + (1 - meant) / SPAN_H)
    left = np.cumsum(weighed, axis=1) / np.maximum(weighed.sum(axis=1, keepdims=True), 1e-300)
    bent = survival.copy()
    bent[rows] = 1.0 - left[:, :-1]
    return bent


def _statements(started: Started) -> tuple[FloatArray, IntArray]:
    """Return what counts as each stay's statement (NaN where there is none), and its kind."""
    departure = np.isfinite(started.departure_at_h)
    stated = np.where(departure, started.departure_at_h, started.trip_at_h)
    return stated, np.where(departure, DEPARTURE, TRIP)
