"""When a car comes back. Pure: load is cars divided by interval, so the server sets the interval."""

from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Final, Generic, TypeVar

from fleetbatch.gateway.addresses import NOWHERE, Address
from fleetbatch.gateway.dials import Dials
from fleetbatch.units import CarId, LeaseId

Caller = TypeVar("Caller")

_WINDOW: Final = timedelta(seconds=10)
_STEP: Final = 1.02
"""Small, since a car that is told to come less often does so a minute later: 16 times in a minute and a quarter."""
_TRIES_A_LEASE: Final = 8


def wait_s(dials: Dials, *, pressure: float, chance: float) -> float:
    """Return the seconds until the next poll; `chance` is uniform in [0, 1), `pressure` 1 when all is well."""
    return _stretched_s(dials.poll_every, dials.poll_longest, pressure) * (1 + dials.jitter * (2 * chance - 1))


def unheard_s(dials: Dials, *, pressure: float, chance: float) -> float:
    """Return the seconds until a car polls again that was sent away unheard while there were offers.

    Anywhere within the interval: an offer waits half as long for its car as if that were idle, and those who were sent
    away in one moment do not come back in one.
    """
    return max(
        min(1.0, dials.poll_every.total_seconds()),
        _stretched_s(dials.poll_every, dials.poll_longest, pressure) * chance,
    )


@lru_cache(maxsize=64)
def _stretched_s(every: timedelta, longest: timedelta, pressure: float) -> float:
    """Return the wait before jitter; remembered, since pressure changes twice a second and cars ask all the time."""
    return min(every.total_seconds() * pressure, max(every, longest).total_seconds())


def beat_every_s(dials: Dials, *, pressure: float) -> float:
    """Return the seconds between a lease's beats; however hard the pressure, several fit into its length."""
    every_s, lease_s = dials.beat_every.total_seconds(), dials.lease_for.total_seconds()
    return min(every_s * pressure, max(every_s, lease_s / _TRIES_A_LEASE))


def pressure_holding(dials: Dials) -> float:
    """Return how far the wait of a car may be stretched that may hold a lease: it must get through several times."""
    return max(1.0, dials.lease_for / (_TRIES_A_LEASE * dials.poll_every))


def gather_s(dials: Dials, *, busy: float) -> float:
    """Return how long questions to the ledger are collected; `busy` is the share of a core that the process uses."""
    least_s, most_s = dials.gather_for.total_seconds(), dials.gather_busy_for.total_seconds()
    return least_s + (most_s - least_s) * min(1.0, busy / dials.busy_least)


def next_pressure(pressure: float, *, late: timedelta, busy: float, dials: Dials) -> float:
    """Double when the gateway was behind; else go up or down a little, by the share of a core that it was busy."""
    if late > dials.behind_after:
        return min(dials.pressure_max, pressure * 2)
    if busy > dials.busy_most:
        return min(dials.pressure_max, pressure * _STEP)
    return max(1.0, pressure / _STEP) if busy < dials.busy_least else pressure


def _whole_s(left: timedelta) -> float:
    """Return whole seconds, never less: whoever came back in the last half second would be sent away once more."""
    return max(1.0, ceil(left.total_seconds()))


class Allowance(Generic[Caller]):
    """Counts what each caller asked in the current window; only whoever has proven to be a caller is counted."""

    def __init__(self, limit: int, *, now: datetime, window: timedelta = _WINDOW) -> None:
        """Start a window."""
        self._limit, self._window = limit, window
        self._ends_at = now + window
        self._asked: dict[Caller, int] = {}

    def left_s(self, caller: Caller, *, now: datetime) -> float:
        """Count one request; return 0, or in how many seconds a caller may ask again that is over its allowance."""
        if now >= self._ends_at:
            self._asked.clear()
            self._ends_at = now + self._window
        asked = self._asked[caller] = self._asked.get(caller, 0) + 1
        return 0.0 if asked <= self._limit else _whole_s(self._ends_at - now)

    def used_up_s(self, caller: Caller, *, now: datetime) -> float:
        """Return 0, or in how many seconds a caller may ask again that has nothing left; count nothing."""
        if self._asked.get(caller, 0) < self._limit or now >= self._ends_at:
            return 0.0
        return _whole_s(self._ends_at - now)

    def give_back(self, caller: Caller) -> None:
        """Count one request less: it was not this caller's own, or costs nothing any more."""
        asked = self._asked.get(caller, 0)
        if asked > 1:
            self._asked[caller] = asked - 1
        else:
            self._asked.pop(caller, None)


class Refusals:
    """Counts the leases that each car refuses; whoever says it again, since the answer was lost, counts once."""

    def __init__(self, dials: Dials, *, now: datetime) -> None:
        """Start a window."""
        self._allowance: Allowance[CarId] = Allowance(dials.refusals_per_window, now=now, window=dials.refusals_window)
        self._cars_max = dials.cars_known_max
        self._last: dict[CarId, LeaseId] = {}

    def count(self, car: CarId, lease: LeaseId, *, now: datetime) -> None:
        """Count a lease unless it is the one that the car refused last."""
        if self._last.get(car) == lease:
            return
        if len(self._last) >= self._cars_max:
            self._last.clear()
        self._last[car] = lease
        self._allowance.left_s(car, now=now)

    def used_up_s(self, car: CarId, *, now: datetime) -> float:
        """Return 0, or in how many seconds a car is offered work again that has refused too much."""
        return self._allowance.used_up_s(car, now=now)


class Failures:
    """Counts by address the tries of the current ten seconds that proved nothing, for a bounded number of addresses.

    Who calls is not known yet, so nothing is counted under the name that a caller claims: a stranger could use up an
    honest car's allowance. An address may be shared, too, by a whole network of phones. So what comes from one that is
    over its allowance is still looked at now and then: honest cars beside a hostile one wait, and get in.
    """

    def __init__(self, dials: Dials, *, now: datetime) -> None:
        """Start a window."""
        self._dials = dials
        self._ends_at = now + _WINDOW
        self._failed: dict[Address, int] = {}

    def left_s(self, address: Address, *, now: datetime, chance: float) -> float:
        """Return 0, or in how many seconds to come again; `chance` is uniform in [0, 1)."""
        if now >= self._ends_at:
            self._failed.clear()
            self._ends_at = now + _WINDOW
        over = self._failed.get(self._counted(address), 0) >= self._dials.failures_per_window
        if not over or chance < self._dials.failing_heard:
            return 0.0
        return _whole_s(self._ends_at - now)

    def count(self, address: Address) -> None:
        """Count one try that proved nothing."""
        counted = self._counted(address)
        self._failed[counted] = self._failed.get(counted, 0) + 1

    def _counted(self, address: Address) -> Address:
        """Return under what an address is counted: alone, or with all those for which there is no room."""
        room = len(self._failed) < self._dials.failing_addresses_max
        return address if room or address in self._failed else NOWHERE
