"""L1: a car's own past departures, aligned by the clock and shrunk to its group. Pure.

A past stay counts the more the later it was, the nearer its plug-in lay to tonight's by the clock, and when the next
day was free as it is tonight. The weighted departures in each quarter of an hour and the group's hazard as `alpha`
pseudo-stays make the hazard; without past stays that is the group's curve itself (L0).
"""

from dataclasses import dataclass

import numpy as np

from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray, wall_h
from fleetbatch.windows.groups import GRID_H, TICK_H, GroupCurves, group_of, log_ahead
from fleetbatch.windows.stays import Moments, Plugs, Stays, plugs


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkDials:
    """What a past stay weighs; alpha and the others as measured in design/windows."""

    stays_max: int = 60
    alpha: float = 4.0
    kept_per_stay: float = 0.97
    plug_in_width_h: float = 6.0
    other_day_weight: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """The last closed stays of each moment's car as rows of `Stays`, newest first; `known` marks real ones."""

    rows: IntArray
    known: BoolArray
    stays_used: IntArray


def recent(stays: Stays, moments: Moments, stays_max: int) -> Recent:
    """Return the stays that had ended by each moment; nothing later is ever looked at."""
    if len(stays.cars) == 0:
        nothing = np.zeros((len(moments), stays_max), np.int64)
        return Recent(rows=nothing, known=nothing > 0, stays_used=nothing[:, :1].sum(axis=1))
    place = np.minimum(np.searchsorted(stays.cars, moments.car), len(stays.cars) - 1)
    mine = stays.cars[place] == moments.car
    first, stop = stays.starts[place], _ended_by(stays, place, moments.now_h)
    rows = stop[:, None] - 1 - np.arange(stays_max)
    known = mine[:, None] & (rows >= first[:, None])
    return Recent(rows=np.where(known, rows, 0), known=known, stays_used=known.sum(axis=1))


def shrunk_log_survival(
    stays: Stays, moments: Moments, curves: GroupCurves, past: Recent, dials: ShrinkDials
) -> FloatArray:
    """Return log S of every moment on the grid, [rows, 96]."""
    placed = plugs(moments.begin_h, moments.zones)
    group = log_ahead(curves, group_of(placed), moments.now_h - moments.begin_h, np.concatenate([[0.0], GRID_H]))
    group_hazard = -np.expm1(np.diff(group, axis=1))
    left = departures_ahead(stays, moments, placed, past, weights(stays, placed, past, dials))
    at_risk = left[:, ::-1].cumsum(axis=1)[:, ::-1]
    hazard = (left[:, :-1] + dials.alpha * group_hazard) / (at_risk[:, :-1] + dials.alpha)
    return np.log1p(-np.minimum(hazard, 1 - 1e-9)).cumsum(axis=1)


def weights(stays: Stays, placed: Plugs, past: Recent, dials: ShrinkDials) -> FloatArray:
    """Return what each past stay counts, [rows, stays_max]; 0 where there is none."""
    if len(stays.begin_h) == 0:
        return np.zeros(past.rows.shape)
    apart_h = np.abs(stays.plugs.clock_h[past.rows] - placed.clock_h[:, None])
    same = stays.plugs.free_next[past.rows] == placed.free_next[:, None]
    recency = dials.kept_per_stay ** np.arange(past.rows.shape[1])
    nearness = np.exp(-0.5 * (apart_h / dials.plug_in_width_h) ** 2)
    weight: FloatArray = past.known * recency * nearness * np.where(same, 1.0, dials.other_day_weight)
    return weight


def departures_ahead(stays: Stays, moments: Moments, placed: Plugs, past: Recent, weight: FloatArray) -> FloatArray:
    """Return the weight of past departures in each quarter of an hour ahead, [rows, 97]; the last is all later."""
    count, slots = len(moments), len(GRID_H) + 1
    if len(stays.begin_h) == 0:
        return np.zeros((count, slots))
    now_clock = wall_h(moments.now_h, moments.zones) - placed.day_start_h
    ahead_h = stays.left_clock_h[past.rows] - now_clock[:, None]
    ahead_h -= _clock_change_h(moments, ahead_h)
    slot = np.ceil(ahead_h / TICK_H - 1e-9).astype(np.int64) - 1
    weight = np.where(slot >= 0, weight, 0.0)
    flat = np.arange(count)[:, None] * slots + np.clip(slot, 0, slots - 1)
    summed: FloatArray = np.bincount(flat.ravel(), weights=weight.ravel(), minlength=count * slots).astype(np.float64)
    return summed.reshape(count, slots)


def _clock_change_h(moments: Moments, ahead_h: FloatArray) -> FloatArray:
    """Return by how much the clock will have moved: -1 in autumn, +1 in spring, 0 on all but two nights a year."""
    now_wall = wall_h(moments.now_h, moments.zones) - moments.now_h
    then_h = moments.now_h + 26.0
    moved = wall_h(then_h, moments.zones) - then_h != now_wall
    change = np.zeros_like(ahead_h)
    rows = np.flatnonzero(moved)
    if rows.size:
        then = moments.now_h[rows, None] + np.clip(ahead_h[rows], 0.0, 26.0)
        change[rows] = wall_h(then, moments.zones.take(rows)) - then - now_wall[rows, None]
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
