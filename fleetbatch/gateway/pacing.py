"""When a car comes back. Pure: load is cars divided by interval, so the server sets the interval."""

from datetime import datetime, timedelta
from typing import Final

from fleetbatch.gateway.dials import Dials
from fleetbatch.units import CarId

_WINDOW: Final = timedelta(seconds=10)
_EASE: Final = 0.5
_TRIES_A_LEASE: Final = 8


def wait_s(dials: Dials, *, pressure: float, chance: float) -> float:
    """Return the seconds until the next poll; `chance` is uniform in [0, 1), `pressure` 1 when all is well."""
    return dials.poll_every.total_seconds() * pressure * (1 + dials.jitter * (2 * chance - 1))


def pressure_holding(dials: Dials) -> float:
    """Return how far the wait of a car may be stretched that may hold a lease: it must get through several times."""
    return max(1.0, dials.lease_for / (_TRIES_A_LEASE * dials.poll_every))


def next_pressure(pressure: float, *, late: timedelta, dials: Dials) -> float:
    """Double when the gateway was behind, and ease off by half a step when it was not."""
    if late > dials.behind_after:
        return min(dials.pressure_max, pressure * 2)
    return max(1.0, pressure * _EASE)


class Allowance:
    """Counts what each caller asked in the current ten seconds."""

    def __init__(self, limit: int, *, now: datetime) -> None:
        """Start a window."""
        self._limit = limit
        self._ends_at = now + _WINDOW
        self._asked: dict[CarId, int] = {}

    def left_s(self, car: CarId, *, now: datetime) -> float:
        """Count one request; return 0, or how many seconds the car is over its allowance."""
        if now >= self._ends_at:
            self._asked.clear()
            self._ends_at = now + _WINDOW
        asked = self._asked[car] = self._asked.get(car, 0) + 1
        return 0.0 if asked <= self._limit else max(1.0, (self._ends_at - now).total_seconds())
