"""Uploads that were signed and are not yet durable, a few a lease: whoever has a lease must not fill the store.

Nor may who has one lease after another: a car has a few in a while, whatever becomes of their leases, and each part
that is confirmed gives one back. Each gateway process remembers its own, and none after a restart: a car that finds
several of them has as many.
"""

from collections import OrderedDict
from datetime import datetime

from fleetbatch.gateway.dials import Dials
from fleetbatch.gateway.pacing import Allowance
from fleetbatch.units import CarId, LeaseId


class Unconfirmed:
    """By lease, the keys that a PUT was signed for, and the row group where each of these parts stops."""

    def __init__(self, dials: Dials, *, now: datetime) -> None:
        """Begin without any."""
        self._dials = dials
        self._stops: OrderedDict[LeaseId, dict[str, int]] = OrderedDict()
        self._of_car: Allowance[CarId] = Allowance(
            dials.unconfirmed_of_car_max, now=now, window=dials.unconfirmed_window
        )

    def admits(self, lease: LeaseId, key: str, *, done_through: int) -> bool:
        """Return whether the lease has room for a part; the same key again is no further one.

        What stops at or below the lease's `done_through` is durable, or never will be, and counts no more.
        """
        stops = {k: at for k, at in self._stops.pop(lease, {}).items() if at > done_through}
        self._stops[lease] = stops
        if len(self._stops) > self._dials.leases_signed_max:
            self._stops.popitem(last=False)  # of the lease that was silent for longest
        return key in stops or len(stops) < self._dials.unconfirmed_max

    def count(self, car: CarId, lease: LeaseId, key: str, *, stop: int, now: datetime) -> float:
        """Count a part that a PUT is signed for; return 0, or in how many seconds the car may store a further one."""
        stops = self._stops.setdefault(lease, {})
        if key in stops:
            return 0.0
        over_s = self._of_car.used_up_s(car, now=now)
        if not over_s:
            self._of_car.left_s(car, now=now)
            stops[key] = stop
        return over_s

    def confirmed(self, car: CarId, lease: LeaseId, key: str) -> None:
        """Give the car's upload back, once: it is a part now."""
        if self._stops.get(lease, {}).pop(key, None) is not None:
            self._of_car.give_back(car)
