"""Uploads that were signed and are not yet durable, a few a lease: whoever has a lease must not fill the store.

Each gateway process remembers its own, and none after a restart: a car that finds several of them has as many.
"""

from collections import OrderedDict

from fleetbatch.gateway.dials import Dials
from fleetbatch.units import LeaseId


class Unconfirmed:
    """By lease, the keys that a PUT was signed for, and the row group where each of these parts stops."""

    def __init__(self, dials: Dials) -> None:
        """Begin without any."""
        self._dials = dials
        self._stops: OrderedDict[LeaseId, dict[str, int]] = OrderedDict()

    def admits(self, lease: LeaseId, key: str, *, stop: int, done_through: int) -> bool:
        """Return whether a PUT may be signed, and count it; the same key again is no further one.

        What stops at or below the lease's `done_through` is durable, or never will be, and counts no more.
        """
        stops = {k: at for k, at in self._stops.pop(lease, {}).items() if at > done_through}
        admitted = key in stops or len(stops) < self._dials.unconfirmed_max
        if admitted:
            stops[key] = stop
        self._stops[lease] = stops
        if len(self._stops) > self._dials.leases_signed_max:
            self._stops.popitem(last=False)  # of the lease that was silent for longest
        return admitted
