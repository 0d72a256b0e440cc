"""How a battery fills at a plug with and without compute beside it: physics of the simulation's own. Pure.

Whatever the car decides is checked against this, so nothing here is shared with what decides. Powers are what the plug
gives; of what goes to the battery a tenth is lost on the way.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.car import conditions

Floats = npt.NDArray[np.float64]

EFFICIENCY: Final = 0.9
VOLTS: Final = 230.0
RESERVE_MARGIN: Final = conditions.Limits().soc_margin
SPARE_W: Final = conditions.Limits().start_spare_w
LATE_S: Final = 1.0
"""A charge that ends later by less is not later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugs:
    """Cars at plugs, one entry each; seconds from the night's start."""

    arrive_s: Floats
    leave_s: Floats
    departs_s: Floats
    """As the owner stated it, NaN where nothing was said."""
    capacity_wh: Floats
    soc: Floats
    """On arrival, 0 to 1; `target` is where charging ends, `reserve` below which the owner wants no compute."""
    target: Floats
    reserve: Floats
    plug_w: Floats
    accept_w: Floats
    """What the battery takes when it may, at most `plug_w`."""
    compute_w: Floats

    @property
    def need_wh(self) -> Floats:
        """Return what the plug must give from arrival to target."""
        return np.asarray(np.maximum(self.target - self.soc, 0.0) * self.capacity_wh / EFFICIENCY)

    @property
    def room(self) -> npt.NDArray[np.bool_]:
        """Return where the plug can give both at once, with what a car wants left over before it starts."""
        return np.asarray(self.plug_w - self.accept_w >= self.compute_w + SPARE_W)

    def reserve_at(self) -> Floats:
        """Return when each charge stands at the owner's reserve and its margin; infinite where it never will."""
        least = self.reserve + RESERVE_MARGIN
        wait = 3600.0 * np.maximum(least - self.soc, 0.0) * self.capacity_wh / EFFICIENCY / self.accept_w
        return np.asarray(self.arrive_s + np.where((self.target < least) & (self.soc < least), np.inf, wait))

    def ready_s(self) -> Floats:
        """Return from when each car may compute: at its reserve, and fully charged where the plug has no room."""
        full = self.arrive_s + np.where(self.room, 0.0, 3600.0 * self.need_wh / self.accept_w)
        return np.asarray(np.maximum(self.reserve_at(), full))

    def missing_wh(self, at_s: float) -> Floats:
        """Return what is missing to the target when no compute ever slowed the charge."""
        given = np.maximum(np.minimum(at_s, self.leave_s) - self.arrive_s, 0.0) / 3600.0 * self.accept_w
        return np.asarray(np.maximum(self.need_wh - given, 0.0))


@dataclass(slots=True)
class Charge:
    """One car's battery while time passes, beside the same battery had there been no compute."""

    need_wh: float
    accept_w: float
    plug_w: float
    compute_w: float
    begin_s: float
    at_s: float = 0.0
    computing: bool = False
    full_at: float | None = None
    missing_wh: float = 0.0
    plain_full_at: float = 0.0

    def __post_init__(self) -> None:
        """Begin with everything missing."""
        self.missing_wh, self.at_s = self.need_wh, self.begin_s
        self.plain_full_at = self.begin_s + 3600.0 * self.need_wh / self.accept_w
        if self.need_wh <= 0.0:
            self.full_at = self.begin_s

    @property
    def drawn_w(self) -> float:
        """Return what goes into the battery now: compute has its share first, so that a wrong decision shows."""
        if self.missing_wh <= 0.0:
            return 0.0
        return max(0.0, min(self.accept_w, self.plug_w - (self.compute_w if self.computing else 0.0)))

    def pass_time(self, to_s: float) -> None:
        """Charge until an instant."""
        drawn = self.drawn_w
        if drawn > 0.0 and to_s > self.at_s:
            full_at = self.at_s + 3600.0 * self.missing_wh / drawn
            if full_at <= to_s + 1e-6:
                self.missing_wh, self.full_at = 0.0, full_at
            else:
                self.missing_wh -= drawn * (to_s - self.at_s) / 3600.0
        self.at_s = max(self.at_s, to_s)

    def later(self, leave_s: float) -> bool:
        """Return whether the charge ended later, or lower at departure, than without compute."""
        if self.plain_full_at > leave_s:
            plain_wh = self.need_wh - self.accept_w * (leave_s - self.begin_s) / 3600.0
            return self.missing_wh > plain_wh + LATE_S * self.accept_w / 3600.0
        return self.full_at is None or self.full_at > self.plain_full_at + LATE_S


def reading(plugs: Plugs, place: int, charge: Charge, *, plugged: bool, epoch: datetime) -> conditions.Reading:
    """Return what the car's sensors and its owner say while its battery stands so."""
    drawn = charge.drawn_w if plugged else 0.0
    stored = charge.missing_wh * EFFICIENCY / float(plugs.capacity_wh[place])
    top = max(float(plugs.target[place]), float(plugs.soc[place]))
    departs = float(plugs.departs_s[place])
    return conditions.Reading(
        signals={
            conditions.CABLE: plugged,
            conditions.SPEED: 0.0,
            conditions.TEMPERATURE: 20.0,
            conditions.SOC: 100.0 * (top - stored) + 1e-9,
            conditions.VOLTAGE: VOLTS,
            conditions.CURRENT: drawn / VOLTS,
            conditions.CURRENT_MAX: float(plugs.plug_w[place]) / VOLTS,
            conditions.TIME_TO_COMPLETE: 3600.0 * charge.missing_wh / drawn if drawn > 0.0 else 0.0,
        },
        reserve_soc=float(plugs.reserve[place]),
        departure_at=None if np.isnan(departs) else epoch + timedelta(seconds=departs),
    )
