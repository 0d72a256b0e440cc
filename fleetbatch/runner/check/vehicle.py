"""Does the vehicle say what a decision to compute needs, in the units that VSS gives it? Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fleetbatch.car import conditions as c
from fleetbatch.runner.check.findings import Finding, bad, fine, odd


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A signal's unit, and the values that a parked car can have."""

    unit: str
    low: float
    high: float
    needed: bool = True


SIGNALS: Final = {
    c.SPEED: Expected(unit="km/h", low=-30.0, high=300.0),
    c.TEMPERATURE: Expected(unit="degrees Celsius", low=-45.0, high=90.0),
    c.SOC: Expected(unit="percent", low=0.0, high=100.0),
    c.VOLTAGE: Expected(unit="volts", low=80.0, high=1000.0),
    c.CURRENT: Expected(unit="amperes", low=-1.0, high=600.0),
    c.CURRENT_MAX: Expected(unit="amperes", low=0.0, high=600.0),
    c.TIME_TO_COMPLETE: Expected(unit="seconds", low=0.0, high=7 * 86400.0, needed=False),
}


def check_vehicle(reading: c.Reading, limits: c.Limits) -> Iterator[Finding]:
    """Yield what is found of the signals, and whether the car would compute now."""
    if not reading.signals:
        yield bad(
            "signals",
            "the source says nothing that can be read",
            "look at --signals: the file must be there, valid JSON, and written by the vehicle's side",
        )
        return
    yield _cable(reading.signals.get(c.CABLE))
    for name, expected in SIGNALS.items():
        yield _number(name, reading.signals.get(name), expected)
    against = c.why_not(reading, limits, computing=False)
    if against is None:
        yield fine("would compute now", "yes")
    else:
        yield odd("would compute now", f"no: {against.detail}", "as it should be, if that is so")


def _cable(value: object) -> Finding:
    if isinstance(value, bool):
        return fine(_short(c.CABLE), str(value).lower())
    return bad(_short(c.CABLE), f"{value!r}", f"{c.CABLE} must be true or false; unknown means no compute")


def _number(name: str, value: object, expected: Expected) -> Finding:
    span = f"{expected.low:g} to {expected.high:g} {expected.unit}"
    if value is None and not expected.needed:
        return odd(_short(name), "not told", f"{name} ({span}) would let the car compute beside a slow charge")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return bad(_short(name), f"{value!r}", f"{name} must be a number in {expected.unit}; unknown means no compute")
    found = f"{value:g} {expected.unit}"
    if not expected.low <= value <= expected.high:
        return bad(_short(name), found, f"{name} lies between {span}: is its unit right?")
    if name == c.SOC and 0 < value <= 1:
        return odd(_short(name), found, "VSS gives percent; this looks like a share of 1")
    return fine(_short(name), found)


def _short(name: str) -> str:
    return ".".join(name.split(".")[-2:])
