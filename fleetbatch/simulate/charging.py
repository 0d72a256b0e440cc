"""Car-nights of charging as arrays: a battery beside the same battery without compute. Pure.

The physics are the simulation's own and share nothing with the rule that they try (car.conditions): a battery is cold
for the first hour, waits for its cheap hours, takes less towards its target; a wallbox gives less for a while, which it
announces (a car has five seconds to follow its pilot signal, IEC 61851-1), or nothing at once. Once a minute something
may change; the car notices a whole second later, with sensors that are wrong, and computes whenever the rule lets it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.car.conditions import Limits

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STEP_S: Final = 60.0
NOTICED_S: Final = 1.0
"""A car looks five times a second; it is believed to look once."""
WRONG_W: Final = 25.0
"""Sensors are wrong by up to a tenth of an ampere; the rule stands less than `go_on_spare_w`."""
LATE_S: Final = 1.0
"""A charge that is behind by less is not later: what is computed before a change is noticed costs a part of it."""
COLD_S, COLD_SHARE = 3600.0, 0.6
TAPER_LEAST_W: Final = 1_500.0
NIGHT_S: Final = 12 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """Cars at plugs from second 0, one entry each; energies as the plug gives them."""

    leave_s: Floats
    due_s: Floats
    """The earlier of the leaving and the stated departure."""
    plug_w: Floats
    accept_w: Floats
    compute_w: Floats
    need_wh: Floats
    """To the owner's target."""
    reserve_wh: Floats
    """A car that lacks more than this to its target is below the owner's reserve."""
    margin_wh: Floats
    """How much less it must lack before compute starts."""
    taper_per_h: Floats
    """The battery takes at most `TAPER_LEAST_W` and so many times what it lacks an hour."""
    begins_s: Floats
    dips: Floats
    """[cars, 2, 3]: from, until, and the share of its power that the plug gives meanwhile."""

    def __len__(self) -> int:
        """Return the number of cars."""
        return len(self.leave_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the sensors of all cars say at one moment."""

    at_s: float
    plugged: Bools
    missing_wh: Floats
    drawn_w: Floats
    limit_w: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Latches:
    """Each car's standing decision and when it changed."""

    on: Bools
    changed_s: Floats


Rule = Callable[[Stays, Seen, Latches], Latches]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What compute did to each car's charge."""

    behind_s: Floats
    """By how many seconds of charging at full power it was behind at worst, at any moment that the owner may come."""
    missed: Bools
    """Not at its target when it was due, which it would have been without compute."""
    drained: Bools
    """Compute went on with power from the battery, below the reserve, or unplugged, after that was to be noticed."""
    restless: Bools
    """Compute began less than five minutes after the last change."""
    computed_s: Floats


def draw_stays(count: int, seed: int, *, stated: bool) -> Stays:
    """Draw cars on plugs from a 1.4 kW socket to an 11 kW wallbox; `stated` departures are hours off."""
    chance = np.random.default_rng([seed, 11])
    plug = chance.choice([1_400.0, 2_300.0, 3_700.0, 7_400.0, 11_000.0], count)
    capacity = chance.choice([40_000.0, 60_000.0, 77_000.0], count) / 0.9
    soc, target = chance.uniform(0.05, 0.95, count), chance.choice([0.8, 1.0], count)
    reserve = chance.choice([0.1, 0.2, 0.3], count)
    leave = np.rint(chance.uniform(0.5, 12.0, count) * 60.0) * STEP_S
    departs = leave + chance.normal(0.0, 7200.0, count) if stated else leave
    begin = chance.uniform(0.0, NIGHT_S, (count, 2))
    share = np.where(chance.random((count, 2)) < DIP_SHARE, chance.choice([0.0, 0.1, 0.3, 0.6], (count, 2)), 1.0)
    return Stays(
        leave_s=leave,
        due_s=np.minimum(leave, departs),
        plug_w=plug,
        accept_w=plug * chance.uniform(0.7, 1.0, count),
        compute_w=chance.choice([100.0, 160.0, 300.0], count),
        need_wh=np.maximum(target - soc, 0.0) * capacity,
        reserve_wh=(np.maximum(target, soc) - reserve) * capacity,
        margin_wh=Limits().soc_margin * capacity,
        taper_per_h=chance.uniform(1.0, 6.0, count),
        begins_s=np.where(chance.random(count) < WAITING_SHARE, chance.integers(0, 360, count) * STEP_S, 0.0),
        dips=np.stack([begin, begin + chance.exponential(1800.0, (count, 2)), share], axis=2),
    )


DIP_SHARE: Final = 0.3
WAITING_SHARE: Final = 0.3


def by_the_rule(stays: Stays, seen: Seen, latches: Latches) -> Latches:
    """Decide as car.conditions does, for all cars at once; a test shows that both decide alike."""
    on, limits = latches.on, Limits()
    low = seen.missing_wh > stays.reserve_wh - np.where(on, 0.0, stays.margin_wh)
    wanted = stays.compute_w + np.where(on, limits.go_on_spare_w, limits.start_spare_w)
    may = seen.plugged & ~low & (seen.limit_w - seen.drawn_w >= wanted)
    settled = seen.at_s - latches.changed_s >= limits.settle.total_seconds()
    now = may & (on | settled)
    return Latches(on=now, changed_s=np.where(now == on, latches.changed_s, seen.at_s))


def live(stays: Stays, rule: Rule = by_the_rule, *, seed: int = 0) -> Outcome:
    """Charge and compute until everybody has left."""
    chance, count = np.random.default_rng([seed, 12]), len(stays)
    beside, alone = _Battery(stays), _Battery(stays)
    latches = Latches(on=np.zeros(count, bool), changed_s=np.full(count, -np.inf))
    behind, computed = np.zeros(count), np.zeros(count)
    drained, restless = np.zeros(count, bool), np.zeros(count, bool)
    for at_s in np.arange(0.0, float(stays.leave_s.max(initial=0.0)) + STEP_S, STEP_S).tolist():
        plugged, limit = at_s < stays.leave_s, _limit_w(stays, at_s)
        still = np.where(limit > 0.0, np.maximum(limit, _limit_w(stays, at_s - STEP_S)), 0.0)
        takes = np.where(latches.on, stays.compute_w, 0.0)
        beside.pass_time(at_s, NOTICED_S, plugged, still - takes)
        seen = Seen(
            at_s=at_s + NOTICED_S,
            plugged=plugged,
            missing_wh=beside.missing_wh,
            drawn_w=beside.drawn_w(at_s, plugged, still - takes) + chance.uniform(-WRONG_W, WRONG_W, count),
            limit_w=limit,
        )
        before, latches = latches, rule(stays, seen, latches)
        restless |= latches.on & ~before.on & (seen.at_s - before.changed_s < SETTLED_S)
        drained |= latches.on & (~plugged | (limit < stays.compute_w) | (beside.missing_wh > stays.reserve_wh))
        takes = np.where(latches.on, stays.compute_w, 0.0)
        computed += np.where(latches.on, STEP_S - NOTICED_S, 0.0)
        beside.pass_time(at_s + NOTICED_S, STEP_S - NOTICED_S, plugged, limit - takes)
        alone.pass_time(at_s, NOTICED_S, plugged, still)
        alone.pass_time(at_s + NOTICED_S, STEP_S - NOTICED_S, plugged, limit)
        np.maximum(behind, 3600.0 * (beside.missing_wh - alone.missing_wh) / stays.accept_w, out=behind)
    missed = (alone.full_s <= stays.due_s) & (beside.full_s > stays.due_s + LATE_S)
    return Outcome(behind_s=behind, missed=missed, drained=drained, restless=restless, computed_s=computed)


SETTLED_S: Final = 300.0


class _Battery:
    """What is missing in each car while time passes."""

    def __init__(self, stays: Stays) -> None:
        self.stays, self.missing_wh = stays, stays.need_wh.copy()
        self.full_s = np.where(stays.need_wh > 0.0, np.inf, 0.0)

    def drawn_w(self, at_s: float, plugged: Bools, left_w: Floats) -> Floats:
        """Return what goes into each battery when the plug has so much left; less than 0 comes out of it."""
        stays, missing = self.stays, self.missing_wh
        most = np.minimum(stays.accept_w, TAPER_LEAST_W + stays.taper_per_h * missing)
        warm = COLD_SHARE if at_s < COLD_S else 1.0
        takes = np.where((missing > 0.0) & (at_s >= stays.begins_s), most * warm, 0.0)
        return np.where(plugged, np.minimum(takes, left_w), 0.0)

    def pass_time(self, at_s: float, seconds: float, plugged: Bools, left_w: Floats) -> None:
        """Charge for a while."""
        drawn = self.drawn_w(at_s, plugged, left_w)
        given = drawn * seconds / 3600.0
        full = (self.missing_wh > 0.0) & (given >= self.missing_wh)
        first = full & np.isinf(self.full_s)
        self.full_s[first] = at_s + 3600.0 * self.missing_wh[first] / drawn[first]
        self.missing_wh = np.where(full, 0.0, self.missing_wh - given)


def _limit_w(stays: Stays, at_s: float) -> Floats:
    dipped = (stays.dips[:, :, 0] <= at_s) & (at_s < stays.dips[:, :, 1])
    return np.asarray(stays.plug_w * np.where(dipped, stays.dips[:, :, 2], 1.0).min(axis=1))
