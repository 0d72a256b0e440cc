"""A cell at a glance: a few cheap counts, for the people and the monitors that watch it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleetbatch.ledger.leases import order_key
from fleetbatch.ledger.messages import OrderState, ShardCounts
from fleetbatch.ledger.pool import Pool, Row
from fleetbatch.nouns import OrderKey
from fleetbatch.units import RoundId

AGES_S: Final = (60, 300, 900, 3600)
"""Where open leases are parted by age, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderGlance:
    """An order that is open or paused."""

    key: OrderKey
    state: OrderState
    deadline_at: datetime
    shards: ShardCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAges:
    """Open leases by age: `counts[n]` are younger than AGES_S[n], the last ones older than all."""

    counts: tuple[int, ...]
    cloud: int
    """How many of all are the cloud lane's."""

    @property
    def total(self) -> int:
        """Return how many leases are open."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarCounts:
    """Enrolled cars, each in one state."""

    computing: int
    idle: int
    """Willing, without a lease."""
    unwilling: int
    """Without their owner's consent to compute."""
    revoked: int

    @property
    def total(self) -> int:
        """Return how many cars are enrolled."""
        return self.computing + self.idle + self.unwilling + self.revoked


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundGlance:
    """The newest round."""

    round_id: RoundId
    offers: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockGlance:
    """The room in the database's table of locks, beside what the nights that are kept may need of it."""

    nights: int
    relations: int
    """Partitions of the nights and their indexes: who cannot tell which nights matter locks all that it asks of."""
    connections: int
    """To this database, now."""
    per_transaction: int
    """PostgreSQL's `max_locks_per_transaction`."""
    transactions: int
    """For so many at once the server makes room; other databases on it use the same room."""

    @property
    def needed(self) -> int:
        """Return the locks that are held when every connection looks at all nights at once; grants need a third."""
        return self.relations * self.connections

    @property
    def room(self) -> int:
        """Return the locks that the server promises room for."""
        return self.per_transaction * self.transactions

    @property
    def enough(self) -> int:
        """Return a `max_locks_per_transaction` with which every transaction may lock all nights."""
        return 1 << self.relations.bit_length()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGlance:
    """What a cell is doing now."""

    orders: tuple[OrderGlance, ...]
    publishing: tuple[OrderKey, ...]
    """Orders that are closed and not published: their publish task runs, or must be run again."""
    leases: LeaseAges
    cars: CarCounts
    last_round: RoundGlance | None
    locks: LockGlance

    @property
    def shards(self) -> ShardCounts:
        """Return the shards of all orders that are open or paused."""
        states = ("ready", "out", "returned", "valid", "done", "missing")
        return ShardCounts(**{state: sum(getattr(one.shards, state) for one in self.orders) for state in states})


class Glances:
    """The statements that look at a whole cell. They read counts only and may be some instants apart."""

    _pool: Pool

    def glance(self) -> CellGlance:
        """Count what the cell holds. It scans open orders' shards, and the cars: ask seldom, keep the answer."""
        orders = _orders(self._pool.rows("glance_shards"))
        ages = self._pool.rows("glance_leases", {"ages_s": list(AGES_S)})
        [cars] = self._pool.rows("glance_cars")
        rounds = self._pool.rows("glance_round")
        [locks] = self._pool.rows("glance_locks")
        leases = _ages(ages)
        computing = min(leases.total - leases.cloud, cars["willing"])
        return CellGlance(
            orders=orders,
            publishing=tuple(map(order_key, self._pool.rows("glance_publishing"))),
            leases=leases,
            cars=CarCounts(
                computing=computing,
                idle=cars["willing"] - computing,
                unwilling=cars["enrolled"] - cars["willing"] - cars["revoked"],
                revoked=cars["revoked"],
            ),
            last_round=RoundGlance(**rounds[0]) if rounds else None,
            locks=LockGlance(**locks),
        )


def _orders(rows: list[Row]) -> tuple[OrderGlance, ...]:
    heads = {order_key(row): row for row in rows}
    counts: dict[OrderKey, dict[str, int]] = {key: {} for key in heads}
    for row in rows:
        if row["state"] is not None:
            counts[order_key(row)][row["state"]] = row["shards"]
    return tuple(
        OrderGlance(
            key=key,
            state=OrderState(row["order_state"]),
            deadline_at=row["deadline_at"],
            shards=ShardCounts(**counts[key]),
        )
        for key, row in heads.items()
    )


def _ages(rows: list[Row]) -> LeaseAges:
    of = {row["age"]: row["leases"] for row in rows}
    return LeaseAges(
        counts=tuple(of.get(n, 0) for n in range(len(AGES_S) + 1)), cloud=sum(row["cloud"] for row in rows)
    )
