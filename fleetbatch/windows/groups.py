"""L0: Kaplan-Meier curves of groups of plug-ins, for cars of which nothing else is known. Pure.

A group is a two-hour bin of the plug-in's clock and whether the next day is off. A group's hazard is shrunk to that
of all, so that a thin group costs nothing; open stays are censored, never ended.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleetbatch.windows.clock import BoolArray, FloatArray, IntArray
from fleetbatch.windows.stays import Plugs, Stays

TICK_H: Final = 0.25
TICKS: Final = 480
"""Curves are known to 120 h; beyond, the last day's mean hazard goes on."""
BINS: Final = 12
BIN_H: Final = 2.0
GROUPS: Final = 2 * BINS
GRID_H: Final = np.arange(1, 97) * TICK_H
"""The grid of every forecast: 15 minutes to 24 hours ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDials:
    """How strongly a group leans on all, and all on a constant hazard."""

    group_stays: float = 20.0
    prior_stays: float = 1.0
    prior_mean_h: float = 11.0
    """Mean stay when no stay was ever seen: the median of published apartment sessions."""
    tail_h: float = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCurves:
    """log S at the ends of the ticks: [groups, TICKS + 1], the first column 0; hazard per hour beyond."""

    log_survival: FloatArray
    tail_hazard: float


def group_of(plugs: Plugs) -> IntArray:
    """Return each plug-in's group."""
    clock_bin = np.clip(plugs.clock_h // BIN_H, 0, BINS - 1).astype(np.int64)
    group: IntArray = np.where(plugs.free_next, BINS, 0) + clock_bin
    return group


def fit_groups(stays: Stays, dials: GroupDials) -> GroupCurves:
    """Return the curves of all stays known; without any, one constant hazard."""
    group = np.concatenate([group_of(stays.plugs), group_of(stays.open_plugs)])
    lasted = np.concatenate([stays.end_h - stays.closed.begin_h, stays.open_seen_h - stays.open.begin_h])
    ended = np.concatenate([np.ones(len(stays.end_h), np.bool_), np.zeros(len(stays.open.begin_h), np.bool_)])
    return curves_of(group, lasted, ended, dials)


def curves_of(group: IntArray, lasted_h: FloatArray, ended: BoolArray, dials: GroupDials) -> GroupCurves:
    """Return Kaplan-Meier curves per group from durations of which some are censored."""
    tick = np.clip(lasted_h // TICK_H, 0, TICKS).astype(np.int64)
    leaves, exits = np.zeros((GROUPS, TICKS)), np.zeros((GROUPS, TICKS + 2))
    inside = ended & (tick < TICKS)
    np.add.at(leaves, (group[inside], tick[inside]), 1.0)
    # A stay censored within a tick is not known to have survived it: it is at risk up to the tick before.
    np.add.at(exits, (group, tick + ended), 1.0)
    at_risk = exits[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1 : TICKS + 1]
    prior = TICK_H / dials.prior_mean_h
    total_leaves, total_risk = leaves.sum(axis=0), at_risk.sum(axis=0)
    common = (total_leaves + dials.prior_stays * prior) / (total_risk + dials.prior_stays)
    hazard = np.minimum((leaves + dials.group_stays * common) / (at_risk + dials.group_stays), 0.999)
    last = slice(TICKS - int(4 * dials.tail_h / TICK_H), TICKS)
    tail = (total_leaves[last].sum() + dials.prior_stays * prior) / (total_risk[last].sum() + dials.prior_stays)
    return GroupCurves(
        log_survival=np.concatenate([np.zeros((GROUPS, 1)), np.log1p(-hazard).cumsum(axis=1)], axis=1),
        tail_hazard=float(-np.log1p(-min(tail, 0.999)) / TICK_H),
    )


def log_ahead(curves: GroupCurves, group: IntArray, elapsed_h: FloatArray, ahead_h: FloatArray) -> FloatArray:
    """Return log P(stays `ahead_h` more | stayed `elapsed_h`) as [rows, len(ahead_h)]; log-linear inside a tick."""
    start = _log_at(curves, group, elapsed_h)
    return np.stack([_log_at(curves, group, elapsed_h + x) - start for x in ahead_h], axis=1)


def _log_at(curves: GroupCurves, group: IntArray, at_h: FloatArray) -> FloatArray:
    ticks = np.minimum(at_h / TICK_H, TICKS)
    low = np.minimum(ticks.astype(np.int64), TICKS - 1)
    share = ticks - low
    inside = curves.log_survival[group, low] * (1 - share) + curves.log_survival[group, low + 1] * share
    log_survival: FloatArray = inside - curves.tail_hazard * np.maximum(at_h - TICKS * TICK_H, 0.0)
    return log_survival
