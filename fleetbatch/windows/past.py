"""What a car did before: its last closed stays beside each moment, nothing that ended later. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray, days_off, wall_h
from fleetbatch.windows.stays import Moments, Plugs, Stays

NIGHT_H: Final = 26.0
"""Within this span ahead a change of the clock matters to where departures fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """The last closed stays of each moment's car as rows of `Stays`, newest first; `known` marks real ones."""

    rows: IntArray
    known: BoolArray
    stays_used: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Each moment beside each of its past stays, [moments, stays]: how alike they are, and when it would end now.

    Three ways to lay a past departure over the running stay, all in hours from the moment (negative: it would be
    over already): by the clock of the plug-in's logical day, by the time since plug-in, by the clock of any day.
    """

    known: BoolArray
    apart_h: FloatArray
    """Between the plug-ins' clocks."""
    same_free: BoolArray
    """Both before a day off, or both not."""
    same_weekday: BoolArray
    clock_ahead_h: FloatArray
    elapsed_ahead_h: FloatArray
    daily_ahead_h: FloatArray
    daily_same_free: BoolArray
    """The day on which it would end is off as the day on which it ended was."""


def recent(stays: Stays, moments: Moments, stays_max: int) -> Recent:
    """Return the stays that had ended by each moment; nothing later is ever looked at."""
    if len(stays.cars) == 0:
        nothing = np.zeros((len(moments), stays_max), np.int64)
        return Recent(rows=nothing, known=nothing > 0, stays_used=nothing[:, :1].sum(axis=1))
    place = np.minimum(np.searchsorted(stays.cars, moments.stay.car), len(stays.cars) - 1)
    mine = stays.cars[place] == moments.stay.car
    first, stop = stays.starts[place], _ended_by(stays, place, moments.now_h)
    rows = stop[:, None] - 1 - np.arange(stays_max)
    known = mine[:, None] & (rows >= first[:, None])
    return Recent(rows=np.where(known, rows, 0), known=known, stays_used=known.sum(axis=1))


def pairs(stays: Stays, moments: Moments, placed: Plugs, past: Recent) -> Pairs:
    """Lay each past stay over its moment."""
    if len(stays.closed.begin_h) == 0:
        shape = past.rows.shape
        none, never = np.zeros(shape), np.zeros(shape, np.bool_)
        return Pairs(
            known=never, apart_h=none, same_free=never, same_weekday=never, clock_ahead_h=none, elapsed_ahead_h=none,
            daily_ahead_h=none, daily_same_free=never,
        )  # fmt: skip
    rows, now_wall = past.rows, wall_h(moments.now_h, moments.stay.zones)
    today = np.floor(now_wall / 24.0).astype(np.int64)
    clock = stays.left_clock_h[rows] - (now_wall - placed.day_start_h)[:, None]
    daily = clock % 24.0
    tomorrow = daily + (now_wall - 24.0 * today)[:, None] >= 24.0  # noqa: PLR2004 (hours of a day)
    free = [days_off(today + ahead, moments.stay.zones)[:, None] for ahead in (0, 1)]
    return Pairs(
        known=past.known,
        apart_h=np.abs(stays.plugs.clock_h[rows] - placed.clock_h[:, None]),
        same_free=stays.plugs.free_next[rows] == placed.free_next[:, None],
        same_weekday=stays.plugs.weekday[rows] == placed.weekday[:, None],
        clock_ahead_h=clock - _clock_change_h(moments, clock),
        elapsed_ahead_h=stays.lasted_h[rows] - (moments.elapsed_h)[:, None],
        daily_ahead_h=daily - _clock_change_h(moments, daily),
        daily_same_free=np.where(tomorrow, free[1], free[0]) == stays.left_free[rows],
    )


def _clock_change_h(moments: Moments, ahead_h: FloatArray) -> FloatArray:
    """Return by how much the clock will have moved: -1 in autumn, +1 in spring, 0 on all but two nights a year."""
    now_wall = wall_h(moments.now_h, moments.stay.zones) - moments.now_h
    then_h = moments.now_h + NIGHT_H
    rows = np.flatnonzero(wall_h(then_h, moments.stay.zones) - then_h != now_wall)
    if rows.size == 0:
        return np.zeros((1, 1))
    change = np.zeros_like(ahead_h)
    then = moments.now_h[rows, None] + np.clip(ahead_h[rows], 0.0, NIGHT_H)
    change[rows] = wall_h(then, moments.stay.zones.take(rows)) - then - now_wall[rows, None]
    return change


def _ended_by(stays: Stays, place: IntArray, now_h: FloatArray) -> IntArray:
    """Return, for car number `place`, the row after its last stay that had ended by `now_h`."""
    if now_h.size == 0 or now_h.min() >= stays.known_at_h:
        return stays.starts[place + 1]
    begins = min(float(stays.end_h.min()), float(now_h.min())) - 1.0
    span = max(float(stays.end_h.max()), float(now_h.max())) - begins + 1.0
    owner = np.repeat(np.arange(len(stays.cars)), np.diff(stays.starts))
    ended = np.searchsorted(owner * span + (stays.end_h - begins), place * span + (now_h - begins), side="right")
    return ended.astype(np.int64)
