"""The strata by which promises are watched: history, night and day, length booked, holidays, sites. Pure."""

import itertools
from collections.abc import Callable
from typing import Final

import numpy as np

from fleetbatch.windows.clock import SATURDAY, THURSDAY, BoolArray, FloatArray, IntArray, days_off, wall_h
from fleetbatch.windows.conformal import LENGTHS_H, LONGEST_H, kind_of
from fleetbatch.windows.landmarks import Landmarks

SITES_MAX: Final = 12
"""The largest; the rest would be noise."""
Stratum = Callable[[FloatArray], BoolArray]
"""From the hours booked to which landmarks belong."""


def strata_of(marks: Landmarks, stays_used: IntArray) -> dict[str, Stratum]:
    """Return each stratum's name and members; those by length are of bookings that were made."""
    wall = wall_h(marks.moments.now_h, marks.moments.stay.zones)
    night = kind_of(stays_used, wall % 24.0).night == 1
    tomorrow = np.floor(wall / 24.0).astype(np.int64) + 1
    weekend = (tomorrow + THURSDAY) % 7 >= SATURDAY
    off = days_off(tomorrow, marks.moments.stay.zones)
    fixed = {
        "all": np.ones(len(marks), np.bool_),
        "night": night,
        "day": ~night,
        "no past stay": stays_used == 0,
        "1-5 past stays": (stays_used >= 1) & (stays_used <= 5),  # noqa: PLR2004 (the stratum's name)
        "6-20 past stays": (stays_used >= 6) & (stays_used <= 20),  # noqa: PLR2004 (the stratum's name)
        "over 20 past stays": stays_used > 20,  # noqa: PLR2004 (the stratum's name)
        "before a working day": ~off,
        "before a weekend day": off & weekend,
        "before a holiday": off & ~weekend,
    }
    sites, counts = np.unique(marks.moments.stay.sites.codes, return_counts=True)
    largest = sites[np.argsort(-counts, kind="stable")][:SITES_MAX]
    names = marks.moments.stay.sites.names
    fixed |= {f"site {names[code] or 'unknown'}": marks.moments.stay.sites.codes == code for code in largest}
    strata: dict[str, Stratum] = {name: _always(rows) for name, rows in fixed.items()}
    bounds = (0.0, *LENGTHS_H, LONGEST_H)
    for low, high in itertools.pairwise(bounds):
        strata[f"booked {low:g}-{high:g} h"] = _between(low, high)
    return strata


def _always(rows: BoolArray) -> Stratum:
    return lambda booked_h: rows & (booked_h >= 0)


def _between(low: float, high: float) -> Stratum:
    return lambda booked_h: (booked_h > low) & (booked_h <= high)
