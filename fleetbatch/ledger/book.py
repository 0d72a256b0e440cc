"""The book: what every audited lease moved between the fleet, escrow and the owners, in millionths of a credit."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.pool import Connection, Pool, Row, fetch, fetch_planned
from fleetbatch.units import ID_BITS, CarId, Fence, OwnerId, ShardId

FLEET: Final = "fleet"
"""Who pays: the deployment."""
ESCROW: Final = "escrow"
"""Delivered, and not audited yet."""
BOUNDS: Final[Mapping[str, float]] = {
    "micro_per_unit": 1e12,
    "wh_per_unit_max": 1e6,
    "micro_per_kwh": 1e9,
    "micro_per_kwh_max": 1e9,
}
"""The most that terms and tariffs may say: a lease's amount must fit a 64-bit column, or no audit can put it aside.
Migration 0006 says the same."""


ALL_SHARDS: Final = range(1 << ID_BITS)
_BELOW_ALL_SHARDS: Final = -(1 << ID_BITS)


def owner_account(owner: OwnerId) -> str:
    """Return the name of an owner's account."""
    return f"owner:{owner:016x}"


class Step(Enum):
    """Where an amount is in its life: put aside at return, then paid or given back by the verdict."""

    ESCROW = "escrow"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LeaseRef:
    """A lease of the book."""

    night: dt.date
    shard_id: ShardId
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One move from account to account; amounts are never negative."""

    lease: LeaseRef
    step: Step
    car_id: CarId
    from_account: str
    to_account: str
    work_micro: int
    energy_micro: int

    @property
    def micro(self) -> int:
        """Return the whole amount."""
        return self.work_micro + self.energy_micro


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is paid from an instant on; energy up to a limit a unit.

    A work unit is so much time (units.UNIT_S), whatever the workload.
    """

    from_at: dt.datetime
    micro_per_unit: float
    wh_per_unit_max: float
    micro_per_kwh: float
    """For owners who named no tariff."""
    micro_per_kwh_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What an owner pays for energy, from an instant on."""

    car_id: CarId
    from_at: dt.datetime
    micro_per_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredLease:
    """An ended lease of a car that delivered rows: all that its amount follows from. `credit` is the audit's word."""

    lease: LeaseRef
    car_id: CarId
    owner_id: OwnerId
    granted_at: dt.datetime
    delivered_rows: int
    delivered_wh: float
    credit: str
    work_units: float
    """Of the whole shard."""
    rows: int
    """Of the whole shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedLease:
    """What one ended lease did, and the number of the order that it was for."""

    lease: LeaseRef
    order_no: int
    credit: str
    rows: int
    busy_s: float
    energy_wh: float
    bytes_read: int
    """By the share of row groups computed."""
    bytes_sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the book says of some leases of one order in one night."""

    order_no: int
    night: dt.date
    name: str
    generation: int
    workload: str
    data_class: str
    paid_micro: int
    escrow_micro: int


class Books:
    """The statements about money and tokens."""

    _pool: Pool

    def night_book(self, night: dt.date, shards: range = ALL_SHARDS) -> tuple[list[DeliveredLease], list[Entry]]:
        """Return the leases that a night's book follows from, and its moves by lease, escrow before settlement.

        Of these shards, and both of one instant: audits go on meanwhile. Of an archived night the moves alone are here.
        With the lowest shards comes what is below them all: no shard is, but whoever forges a move may say so.
        """

        def work(connection: Connection) -> tuple[list[Row], list[Row]]:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                asked = {"night": night, "first": shards.start or _BELOW_ALL_SHARDS, "last": shards.stop - 1}
                return fetch(connection, "delivered_leases", asked), fetch(connection, "book", asked)

        leases, moves = self._pool.run(work)
        return [delivered_lease(row, OwnerId(row["owner_id"])) for row in leases], [_entry(row) for row in moves]

    def booked_rows(self, night: dt.date) -> int:
        """Return how many moves and leases the ledger has of a night."""
        return int(self._pool.rows("booked_rows", {"night": night})[0]["rows"])

    def nights(self) -> list[dt.date]:
        """Return every night that this cell ever had, archived ones too; oldest first."""
        return [row["night"] for row in self._pool.rows("nights")]

    def balances(self) -> dict[str, int]:
        """Return every account's balance; together they are zero."""
        return {row["account"]: row["micro"] for row in self._pool.rows("balances")}

    def owners(self) -> dict[CarId, OwnerId]:
        """Return whose each car is."""
        return {CarId(row["car_id"]): OwnerId(row["owner_id"]) for row in self._pool.rows("car_owners")}

    def terms(self) -> list[Terms]:
        """Return all terms there ever were, oldest first."""
        return [Terms(**row) for row in self._pool.rows("terms")]

    def add_terms(self, terms: Terms) -> None:
        """Add terms; they never reach back before now. Raises RejectedError for amounts out of bounds."""
        _refuse_unbounded({name: getattr(terms, name) for name in BOUNDS})
        self._pool.rows("add_terms", asdict(terms))

    def tariffs(self) -> list[Tariff]:
        """Return all tariffs there ever were, by car, oldest first."""
        return [Tariff(**row) for row in self._pool.rows("tariffs")]

    def set_tariff(self, car_id: CarId, micro_per_kwh: float) -> None:
        """Keep what an owner pays for energy from now on.

        Raises RejectedError for a car that never enrolled, and for an amount out of bounds.
        """
        _refuse_unbounded({"micro_per_kwh": micro_per_kwh})
        car = {"car_id": car_id}
        # What is open first: a lease that ends meanwhile is told by both, and not by neither.
        granted = self._pool.rows("last_open", car) + self._night_by_night("last_ended", car)
        last = max((row["granted_at"] for row in granted if row["granted_at"]), default=None)
        if not self._pool.rows("set_tariff", {**car, "micro_per_kwh": micro_per_kwh, "granted_at": last}):
            summary = f"car {car_id:016x} is not enrolled; enrol it before its owner names a tariff"
            raise RejectedError(summary)

    def ended_leases(self, car_id: CarId) -> list[EndedLease]:
        """Return what a car did in the nights that are not archived yet, by night, shard and fence."""
        return [ended_lease(row) for row in self._night_by_night("ended_leases", {"car_id": car_id})]

    def booked(self, night: dt.date, leases: Sequence[EndedLease]) -> list[Booked]:
        """Return what these leases of one night earned, by order; the book stays when a night is archived."""
        columns = {
            "order_no": [one.order_no for one in leases],
            "shard_id": [one.lease.shard_id for one in leases],
            "fence": [one.lease.fence for one in leases],
        }
        return [Booked(**row) for row in self._pool.rows("booked", {"night": night, **columns})]

    def owner_balance(self, owner: OwnerId) -> int:
        """Return all that was ever paid to an owner."""
        [row] = self._pool.rows("owner_balance", {"account": owner_account(owner)})
        return int(row["micro"])

    def voided_tokens(self, within: dt.timedelta) -> dict[CarId, dt.datetime]:
        """Return the cars whose tokens were voided in the time before now, and when."""
        rows = self._pool.rows("voided_tokens", {"within": within})
        return {CarId(row["car_id"]): row["tokens_void_at"] for row in rows}

    def _night_by_night(self, name: str, asked: Mapping[str, Any]) -> list[Row]:
        """Ask it of each night that is not archived yet, oldest first.

        One statement about all of them would lock every table and index of every night at once.
        """

        def work(connection: Connection) -> list[Row]:
            nights = [row["night"] for row in fetch(connection, "kept_nights")]
            return [row for night in nights for row in fetch_planned(connection, name, {**asked, "night": night})]

        return self._pool.run(work)


def _refuse_unbounded(amounts: Mapping[str, float]) -> None:
    problems = [
        f"`{name}` is {amount:g}; expected 0 to {BOUNDS[name]:g}"
        for name, amount in amounts.items()
        if not 0 <= amount <= BOUNDS[name]  # no number is neither
    ]
    if problems:
        summary = "this cannot be paid (amounts in millionths of a credit)"
        raise RejectedError(summary, problems)


def put_aside(connection: Connection, shards: Sequence[Mapping[str, Any]]) -> None:
    """Put what was delivered to these returned shards (night, shard_id) into escrow, once."""
    fetch(connection, "escrow", {name: [row[name] for row in shards] for name in ("night", "shard_id")})


def delivered_lease(row: Row, owner: OwnerId) -> DeliveredLease:
    """Return a lease from a row of the ledger, or of an archive that has its shard's columns beside."""
    names = ("granted_at", "delivered_rows", "delivered_wh", "credit", "work_units", "rows")
    plain: dict[str, Any] = {name: row[name] for name in names}
    return DeliveredLease(lease=_ref(row), car_id=CarId(row["car_id"]), owner_id=owner, **plain)


def ended_lease(row: Row) -> EndedLease:
    """Return what a lease did, from a row of the ledger or of an archive."""
    return EndedLease(
        lease=_ref(row),
        order_no=row["order_no"],
        credit=row["credit"],
        rows=row["delivered_rows"],
        busy_s=row["busy_s"],
        energy_wh=max(row["energy_wh"], row["delivered_wh"]),
        bytes_read=row["bytes_read"],
        bytes_sent=row["bytes_sent"],
    )


def _ref(row: Row) -> LeaseRef:
    return LeaseRef(night=row["night"], shard_id=ShardId(row["shard_id"]), fence=Fence(row["fence"]))


def _entry(row: Row) -> Entry:
    names = ("from_account", "to_account", "work_micro", "energy_micro")
    plain: dict[str, Any] = {name: row[name] for name in names}
    return Entry(lease=_ref(row), step=Step(row["step"]), car_id=CarId(row["car_id"]), **plain)
