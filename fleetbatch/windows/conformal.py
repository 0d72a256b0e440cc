"""How much risk a booking may take so that the promises made are kept: adaptive conformal thresholds. Pure.

A fixed threshold overshoots when people change their ways. So the allowed risk is a product of factors, one per
group of a booking (length booked, history, time of day), and after each day each factor moves against its group's
evictions (Gibbs and Candes 2021, for several overlapping groups at once): too many evicted, less risk tomorrow.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray
from fleetbatch.windows.groups import GRID_H

LENGTHS_H: Final = (1.0, 4.0, 8.0)
"""Bookings are told apart up to 1, 4 and 8 hours, and longer."""
HISTORIES: Final = (6, 21)
"""Cars are told apart below 6 and 21 known stays, and with more."""
LONGEST_H: Final = 12.0
NIGHT_FROM, NIGHT_UNTIL = 20, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseDials:
    """What share of bookings may be evicted, by group, and how fast risk follows what happened."""

    by_length: tuple[float, ...] = (0.035, 0.04, 0.05, 0.06)
    """An hour lost from a long booking costs less of it, so longer ones may fail a little more often."""
    by_history: tuple[float, ...] = (0.045, 0.045, 0.046)
    by_day: tuple[float, ...] = (0.046, 0.046)
    speed: float = 0.15
    bookings_per_step: float = 600.0
    """A group with this many matured bookings in a day moves at half speed."""
    risk_min: float = 0.002
    risk_max: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Log of the risk by length, and of the factors by history and by day (0) or night (1)."""

    length: FloatArray
    history: FloatArray
    day: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The groups of each car that asks for a booking."""

    history: IntArray
    night: IntArray


def first_thresholds(dials: PromiseDials) -> Thresholds:
    """Return where the risk starts before anything matured."""
    return Thresholds(length=np.log(dials.by_length), history=np.zeros(len(HISTORIES) + 1), day=np.zeros(2))


def kind_of(stays_used: IntArray, local_hour: FloatArray) -> Kind:
    """Return the groups of cars with so many known stays, asking at these local hours."""
    night = (local_hour >= NIGHT_FROM) | (local_hour < NIGHT_UNTIL)
    return Kind(history=np.digitize(stays_used, HISTORIES), night=night.astype(np.int64))


def risks(thresholds: Thresholds, kind: Kind, dials: PromiseDials) -> FloatArray:
    """Return the risk that each car may take for each length on the grid, [cars, 96], for `bookable`."""
    length = np.digitize(GRID_H, LENGTHS_H, right=True)
    log_risk = thresholds.length[length] + (thresholds.history[kind.history] + thresholds.day[kind.night])[:, None]
    return np.asarray(np.clip(np.exp(log_risk), dials.risk_min, dials.risk_max), dtype=np.float64)


def longest(survival: FloatArray, risk: FloatArray | float, longest_h: float) -> FloatArray:
    """Return in hours the longest window up to `longest_h` with S at least 1 - risk; 0 when there is none."""
    safe = (survival >= 1.0 - risk) & (longest_h >= GRID_H)
    last = np.where(safe.any(axis=1), len(GRID_H) - safe[:, ::-1].argmax(axis=1), 0)
    return np.asarray(last * (GRID_H[1] - GRID_H[0]), dtype=np.float64)


def learn(thresholds: Thresholds, booked_h: FloatArray, kind: Kind, kept: BoolArray, dials: PromiseDials) -> Thresholds:
    """Return the thresholds after a day's matured bookings, each kept or evicted; without any, the same."""
    evicted = ~kept
    length = np.digitize(booked_h, LENGTHS_H, right=True)
    return Thresholds(
        length=_moved(thresholds.length, length, evicted, (dials.by_length, dials)),
        history=_moved(thresholds.history, kind.history, evicted, (dials.by_history, dials)),
        day=_moved(thresholds.day, kind.night, evicted, (dials.by_day, dials)),
    )


def _moved(
    log_risk: FloatArray, group: IntArray, evicted: BoolArray, aim: tuple[tuple[float, ...], PromiseDials]
) -> FloatArray:
    targets, dials = aim
    groups = len(log_risk)
    count = np.bincount(group, minlength=groups)
    share = np.bincount(group, weights=evicted, minlength=groups) / np.maximum(count, 1)
    pace = dials.speed * count / (count + dials.bookings_per_step)
    miss = np.clip((np.array(targets) - share) / np.array(targets), -2.0, 1.0)
    return np.asarray(log_risk + pace * np.where(count > 0, miss, 0.0), dtype=np.float64)
