"""The small model of a ledger: a pure machine a shard, and who is willing. Its clock is turned by whoever tells it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from ledger_nights import EVENING, LEASE_FOR

from fleetbatch.ledger import life
from fleetbatch.ledger.machine import step
from fleetbatch.ledger.messages import OrderState
from fleetbatch.units import CLOUD_CAR, CarId, Fence

OUTAGE_AFTER = timedelta(seconds=30)
STALLED_AFTER = timedelta(minutes=25)


def beat_of(car: int, fence: int, resumed_at: datetime) -> life.Beat:
    """Return a sign of life as a cell hears it that is in service since then."""
    return life.Beat(car_id=CarId(car), fence=Fence(fence), resumed_at=resumed_at, stalled_after=STALLED_AFTER)


class Model:
    """What a ledger should hold and say."""

    def __init__(
        self, orders: Mapping[str, Mapping[int, tuple[int, ...]]], attempts: Mapping[str, int], deadline_at: datetime
    ) -> None:
        self.now = self.resumed_at = self.served_at = EVENING
        self.deadline_at = deadline_at
        self.orders = dict.fromkeys(orders, OrderState.OPEN)
        self.order_of = {shard: name for name, shards in orders.items() for shard in shards}
        self.shards = {
            shard: life.Shard(row_group_rows=rows, attempts_max=attempts[name])
            for name, shards in orders.items()
            for shard, rows in shards.items()
        }
        self.willing: set[int] = set()
        self.revoked: set[int] = set()

    def tell(self, shard: int, event: life.Event) -> life.Answer:
        self.shards[shard], said = step(self.shards[shard], event, now=self.now)
        return said

    def held_by(self, car: int) -> int | None:
        """Return the shard that a car holds; the cloud lane is asked for none."""
        held = (shard for shard, one in self.shards.items() if one.lease and one.lease.car_id == car != CLOUD_CAR)
        return next(held, None)

    def take(self, car: int, shard: int) -> life.Answer | None:
        """Give the shard to a car that may work and holds nothing; None for any other."""
        may = car == CLOUD_CAR or car in self.willing - self.revoked
        open_now = self.orders[self.order_of[shard]] is OrderState.OPEN and self.now < self.deadline_at
        if not (may and open_now) or self.held_by(car) is not None:
            return None
        return self.tell(shard, life.Take(car_id=CarId(car), lease_for=LEASE_FOR))

    def again(self, car: int, shard: int) -> life.OpenLease:
        """A car that asks although it holds a lease is alive, and goes on where its shard is."""
        self.tell(shard, beat_of(car, self.shards[shard].fence, self.resumed_at))
        held = self.shards[shard]
        assert held.lease is not None
        return replace(held.lease, start=held.done_through)

    def revoke(self, chosen: Callable[[int, life.OpenLease], bool], reason: str) -> None:
        for shard, one in self.shards.items():
            if one.lease is not None and chosen(shard, one.lease):
                self.tell(shard, life.Revoke(reason=reason))

    def sweep(self) -> set[int]:
        """Return the shards whose leases expire now."""
        if self.served_at < self.now - OUTAGE_AFTER:
            self.resumed_at = self.now
        self.served_at = self.now
        return {shard for shard in self.shards if self.tell(shard, life.TimePassed(resumed_at=self.resumed_at))}
