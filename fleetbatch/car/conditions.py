"""May this car compute now? Pure: vehicle signals, the owner's wishes and a latch in, the latch out.

Signals are COVESA VSS names. What is unknown, missing or not a number means no. Compute draws from the charger, so the
charger must be able to spare the power beside what the battery needs to be ready when the owner leaves.
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
"""Seconds until the owner's target at the present rate."""
SPEED: Final = "Vehicle.Speed"
"""km/h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a car's sensors and its owner say at one moment."""

    signals: Signals
    reserve_soc: float = 0.2
    """Share of charge below which the owner wants no compute."""
    departure_at: datetime | None = None
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
    spare_margin: float = 0.1
    """Share of `power_w` that the charger must have left over before compute starts."""
    standing_kmh: float = 0.5
    settle: timedelta = timedelta(minutes=5)
    """At most one change of state in this time, stopping for the `AT_ONCE` reasons excepted."""


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


AT_ONCE: Final[frozenset[ReleaseReason]] = frozenset({"unplugged", "driving", "too_hot", "consent"})


def decide(latch: Latch, reading: Reading, limits: Limits, *, now: datetime) -> Latch:
    """Return the decision after a look at the signals.

    Stopping for an `AT_ONCE` reason is immediate; every other change waits until the last one is `settle` ago.
    """
    against = why_not(reading, limits, computing=latch.willing, now=now)
    if (against is None) == latch.willing:
        return latch if latch.willing else Latch(willing=False, changed_at=latch.changed_at, why_not=against)
    settled = latch.changed_at is None or now - latch.changed_at >= limits.settle
    if not settled and (against is None or against.reason not in AT_ONCE):
        return latch
    return Latch(willing=against is None, changed_at=now, why_not=against)


def why_not(reading: Reading, limits: Limits, *, computing: bool, now: datetime) -> WhyNot | None:
    """Return the first reason against computing at this moment, or None; `computing` chooses the latch's side."""
    checks: tuple[Callable[[Reading, Limits, bool, datetime], WhyNot | None], ...]
    checks = (_consent, _cable, _speed, _temperature, _charge, _charger)
    return next((found for check in checks if (found := check(reading, limits, computing, now)) is not None), None)


def spare_w(reading: Reading, *, now: datetime) -> float | None:
    """Return what the charger can spare beside the battery's need, in watts; None when a signal is unknown.

    P_plug - P_needed: with a departure, the battery needs what brings it to its target by then; without one it needs
    all that it draws now.
    """
    volts, now_a, max_a = (_number(reading.signals, name) for name in (VOLTAGE, CURRENT, CURRENT_MAX))
    if volts is None or now_a is None or max_a is None:
        return None
    drawn_w, needed = volts * now_a, 1.0
    to_complete_s = _number(reading.signals, TIME_TO_COMPLETE)
    if reading.departure_at is not None and to_complete_s is not None:
        left_s = (reading.departure_at - now).total_seconds()
        needed = min(1.0, to_complete_s / left_s) if left_s > 0 else 1.0
    return volts * max_a - drawn_w * needed


def _consent(reading: Reading, _limits: Limits, _computing: bool, _now: datetime) -> WhyNot | None:  # noqa: FBT001 (one shape for all checks)
    return None if reading.consent else WhyNot(reason="consent", detail="the owner said no in the car")


def _cable(reading: Reading, _limits: Limits, _computing: bool, _now: datetime) -> WhyNot | None:  # noqa: FBT001
    match reading.signals.get(CABLE):
        case True:
            return None
        case False:
            return WhyNot(reason="unplugged", detail="the cable is not connected")
        case _:
            return _unknown("unplugged", CABLE)


def _speed(reading: Reading, limits: Limits, _computing: bool, _now: datetime) -> WhyNot | None:  # noqa: FBT001
    speed = _number(reading.signals, SPEED)
    if speed is None:
        return _unknown("driving", SPEED)
    return WhyNot(reason="driving", detail=f"{speed:.1f} km/h") if abs(speed) > limits.standing_kmh else None


def _temperature(reading: Reading, limits: Limits, computing: bool, _now: datetime) -> WhyNot | None:  # noqa: FBT001
    celsius = _number(reading.signals, TEMPERATURE)
    if celsius is None:
        return _unknown("too_hot", TEMPERATURE)
    limit = limits.too_hot_c if computing else limits.cool_again_c
    return (
        WhyNot(reason="too_hot", detail=f"battery at {celsius:.1f} C, limit {limit:.1f} C") if celsius > limit else None
    )


def _charge(reading: Reading, limits: Limits, computing: bool, _now: datetime) -> WhyNot | None:  # noqa: FBT001
    percent = _number(reading.signals, SOC)
    if percent is None:
        return _unknown("battery_low", SOC)
    wanted = 100 * (reading.reserve_soc + (0 if computing else limits.soc_margin))
    enough = percent >= wanted
    return None if enough else WhyNot(reason="battery_low", detail=f"charge {percent:.1f} %, wanted {wanted:.1f} %")


def _charger(reading: Reading, limits: Limits, computing: bool, now: datetime) -> WhyNot | None:  # noqa: FBT001
    spare = spare_w(reading, now=now)
    if spare is None:
        return _unknown("charger_busy", f"{VOLTAGE}, {CURRENT} or {CURRENT_MAX}")
    wanted = limits.power_w * (1 if computing else 1 + limits.spare_margin)
    enough = spare >= wanted
    return None if enough else WhyNot(reason="charger_busy", detail=f"{spare:.0f} W to spare, wanted {wanted:.0f} W")


def _unknown(reason: ReleaseReason, name: str) -> WhyNot:
    return WhyNot(reason=reason, detail=f"unknown: {name}")


def _number(signals: Signals, name: str) -> float | None:
    value = signals.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
