"""May this car compute now? Pure: vehicle signals, the owner's wishes and a latch in, the latch out.

Signals are COVESA VSS names. What is unknown, missing or not a number means no.

A charge never ends later because of compute. A charge that comes later is still later when the owner comes early, so a
stated departure lends nothing: compute takes what the charger has left over beside all that the battery draws now
(P_compute <= P_plug - P_needed(t) of the trust design, with P_needed(t) the present draw). A battery that is given less
because of compute draws exactly what compute leaves, so a charger without anything left over while computing is
taken as busy. Every stop protects the owner and is immediate; only starting waits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleetbatch.protocol import ReleaseReason

Signals = Mapping[str, float | bool | str | None]

_BATTERY: Final = "Vehicle.Powertrain.TractionBattery"
CABLE: Final = f"{_BATTERY}.Charging.IsChargingCableConnected"
SOC: Final = f"{_BATTERY}.StateOfCharge.Current"
"""Percent."""
TEMPERATURE: Final = f"{_BATTERY}.Temperature.Average"
"""Degrees Celsius."""
VOLTAGE: Final = f"{_BATTERY}.Charging.ChargeVoltage.Phase1"
CURRENT: Final = f"{_BATTERY}.Charging.ChargeCurrent.Phase1"
CURRENT_MAX: Final = f"{_BATTERY}.Charging.MaximumChargingCurrent.Phase1"
TIME_TO_COMPLETE: Final = f"{_BATTERY}.Charging.TimeToComplete"
"""Seconds until the owner's target at the present rate; told to the fleet, not looked at here."""
SPEED: Final = "Vehicle.Speed"
"""km/h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a car's sensors and its owner say at one moment."""

    signals: Signals
    reserve_soc: float = 0.2
    """Share of charge below which the owner wants no compute."""
    departure_at: datetime | None = None
    next_trip_at: datetime | None = None
    """Only told to the fleet, which forecasts with it."""
    consent: bool = True
    """The switch in the car. The consent that counts is the ledger's; this one can only say no."""


NOTHING_KNOWN: Final = Reading(signals={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Dials of the decision; each pair is a latch: stop at the first, start again only at the second."""

    power_w: float = 300.0
    """Draw while computing."""
    soc_margin: float = 0.02
    """Share of charge above the reserve before compute starts."""
    too_hot_c: float = 45.0
    cool_again_c: float = 42.0
    start_spare_w: float = 60.0
    go_on_spare_w: float = 30.0
    """What the charger must have left over beside battery and compute; sensors may be wrong by less than this."""
    standing_kmh: float = 0.5
    settle: timedelta = timedelta(minutes=5)
    """Compute starts at least so long after the last change of state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """The first reason against computing, as a car tells it when it lets go."""

    reason: ReleaseReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latch:
    """The standing decision."""

    willing: bool = False
    changed_at: datetime | None = None
    why_not: WhyNot | None = None
    """Why it is not willing; None while it is, or before the first look."""


def decide(latch: Latch, reading: Reading, limits: Limits, *, now: datetime) -> Latch:
    """Return the decision after a look at the signals.

    Stopping is immediate; starting waits until the last change is `settle` ago. So a car changes its mind once in that
    time, or twice where the owner's interest ends what had just begun.
    """
    against = why_not(reading, limits, computing=latch.willing)
    settled = latch.changed_at is None or now - latch.changed_at >= limits.settle
    if against is None and not (latch.willing or settled):
        return latch
    willing = against is None
    return Latch(willing=willing, changed_at=latch.changed_at if willing == latch.willing else now, why_not=against)


def why_not(reading: Reading, limits: Limits, *, computing: bool) -> WhyNot | None:
    """Return the first reason against computing at this moment, or None; `computing` chooses the latch's side."""
    checks: tuple[Callable[[Reading, Limits, bool], WhyNot | None], ...]
    checks = (_consent, _cable, _speed, _temperature, _charge, _charger)
    return next((found for check in checks if (found := check(reading, limits, computing)) is not None), None)


def spare_w(reading: Reading) -> float | None:
    """Return what the charger has left over beside what the battery draws, in watts; None when a signal is unknown.

    Where a vehicle counts the draw of compute as charge current, this is less than there is, never more.
    """
    volts, now_a, max_a = (_number(reading.signals, name) for name in (VOLTAGE, CURRENT, CURRENT_MAX))
    if volts is None or now_a is None or max_a is None:
        return None
    return volts * (max_a - now_a)


def _consent(reading: Reading, _limits: Limits, _computing: bool) -> WhyNot | None:  # noqa: FBT001 (one shape for all checks)
    return None if reading.consent else WhyNot(reason="consent", detail="the owner said no in the car")


def _cable(reading: Reading, _limits: Limits, _computing: bool) -> WhyNot | None:  # noqa: FBT001
    match reading.signals.get(CABLE):
        case True:
            return None
        case False:
            return WhyNot(reason="unplugged", detail="the cable is not connected")
        case _:
            return _unknown("unplugged", CABLE)


def _speed(reading: Reading, limits: Limits, _computing: bool) -> WhyNot | None:  # noqa: FBT001
    speed = _number(reading.signals, SPEED)
    if speed is None:
        return _unknown("driving", SPEED)
    return WhyNot(reason="driving", detail=f"{speed:.1f} km/h") if abs(speed) > limits.standing_kmh else None


def _temperature(reading: Reading, limits: Limits, computing: bool) -> WhyNot | None:  # noqa: FBT001
    celsius = _number(reading.signals, TEMPERATURE)
    if celsius is None:
        return _unknown("too_hot", TEMPERATURE)
    limit = limits.too_hot_c if computing else limits.cool_again_c
    return (
        WhyNot(reason="too_hot", detail=f"battery at {celsius:.1f} C, limit {limit:.1f} C") if celsius > limit else None
    )


def _charge(reading: Reading, limits: Limits, computing: bool) -> WhyNot | None:  # noqa: FBT001
    percent = _number(reading.signals, SOC)
    if percent is None:
        return _unknown("battery_low", SOC)
    wanted = 100 * (reading.reserve_soc + (0 if computing else limits.soc_margin))
    enough = percent >= wanted
    return None if enough else WhyNot(reason="battery_low", detail=f"charge {percent:.1f} %, wanted {wanted:.1f} %")


def _charger(reading: Reading, limits: Limits, computing: bool) -> WhyNot | None:  # noqa: FBT001
    spare = spare_w(reading)
    if spare is None:
        return _unknown("charger_busy", f"{VOLTAGE}, {CURRENT} or {CURRENT_MAX}")
    wanted = limits.power_w + (limits.go_on_spare_w if computing else limits.start_spare_w)
    enough = spare >= wanted
    return None if enough else WhyNot(reason="charger_busy", detail=f"{spare:.0f} W to spare, wanted {wanted:.0f} W")


def _unknown(reason: ReleaseReason, name: str) -> WhyNot:
    return WhyNot(reason=reason, detail=f"unknown: {name}")


def _number(signals: Signals, name: str) -> float | None:
    value = signals.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
