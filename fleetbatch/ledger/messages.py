"""What the ledger is asked and what it answers; every noun is frozen, every instant is the database's clock in UTC."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from fleetbatch.ledger.dials import LedgerDials
from fleetbatch.ledger.owners import PURPOSE_COMPUTE, CarKey, ConsentChange, ConsentRecord, ConsentRefused, Enrolment
from fleetbatch.ledger.planning import Epoch, FencedOff, Offers, PlannerLock
from fleetbatch.ledger.states import Credit, LeaseState, OrderState, ShardState
from fleetbatch.ledger.verdicts import AuditPart, AuditTask, AuditVerdict, LeaseFinding
from fleetbatch.nouns import FrozenOrder, OrderKey
from fleetbatch.units import CarId, Fence, LeaseId, Sha256, ShardId

__all__ = [
    "PURPOSE_COMPUTE",
    "AuditPart",
    "AuditTask",
    "AuditVerdict",
    "CarKey",
    "ConsentChange",
    "ConsentRecord",
    "ConsentRefused",
    "Credit",
    "Enrolment",
    "Epoch",
    "FencedOff",
    "LeaseFinding",
    "LeaseState",
    "LedgerDials",
    "Offers",
    "OrderState",
    "PlannerLock",
    "ShardState",
]  # so that one import serves who talks to the ledger; what is defined below needs no listing


# -- orders and shards


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """An order as this cell's ledger holds it."""

    frozen: FrozenOrder
    state: OrderState
    opened_at: datetime
    published_at: datetime | None

    @property
    def key(self) -> OrderKey:
        """Return the order's key."""
        return self.frozen.key


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """How many shards of an order are in which state."""

    ready: int = 0
    out: int = 0
    returned: int = 0
    valid: int = 0
    done: int = 0
    missing: int = 0

    @property
    def total(self) -> int:
        """Return the number of registered shards."""
        return self.ready + self.out + self.returned + self.valid + self.done + self.missing

    @property
    def finished(self) -> bool:
        """Say whether nothing is left to compute or to audit."""
        return self.ready + self.out + self.returned == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NightStats:
    """What one order's night was, from its leases and parts. Energy in Wh."""

    shards: int
    leases: int
    cars: int
    parts: int
    resumed_shards: int
    """Shards whose last lease started where an earlier lease had stopped."""
    released: int
    expired: int
    revoked: int
    refused: int
    """Leases whose work the audit refused."""
    audited_rows: int
    disagreements: int
    energy_wh: float
    """All that leases drew, wasted energy included."""
    wasted_wh: float
    """Drawn for row groups that were never delivered, or whose parts were voided."""
    busy_s: float
    cloud_shards: int
    """Shards to which the cloud lane contributed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudShard:
    """A free shard that the cloud lane may take: ask for it with a GrantRequest of CLOUD_CAR."""

    shard_id: ShardId
    order_key: OrderKey
    work_units: float
    cloud_only: bool
    """No car gets it any more: too many attempts failed."""


# -- leases; what is answered to every call is a Struct, since a frozen dataclass takes ten times as long to make


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRequest:
    """A car accepts an offer. `power_w` is its draw while computing; what it claims of itself is kept, not believed."""

    car_id: CarId
    shard_id: ShardId
    lease_for: timedelta
    hardware_class: str
    provider: str
    threads: int
    power_w: float
    runner_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The right to compute row groups [start, row_groups) of one shard until `expires_at`, renewed by beats.

    `again` when the car already held this lease (its answer was lost, or it restarted): then the shard is that of the
    lease that it holds, not the one asked for. `key` is the shard's object key.
    """

    lease_id: LeaseId
    car_id: CarId
    shard_id: ShardId
    order_key: OrderKey
    fence: Fence
    start: int
    row_groups: int
    rows: int
    size_bytes: int
    sha256: Sha256
    key: str
    expires_at: datetime
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Not now, and nothing has changed; another call may be answered otherwise."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The lease is over: the same answer for ever. `state` is None for a lease that never was this car's."""

    reason: str
    state: LeaseState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """I am alive. Row groups, energy and busy seconds count from the beginning of the lease."""

    car_id: CarId
    lease_id: LeaseId
    fence: Fence
    row_groups_done: int
    energy_wh: float
    busy_s: float


class BeatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Go on until `expires_at`, or stop and why (`expires_at` is None)."""

    go_on: bool
    reason: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The answers of row groups [start, stop) lie durable under `layout.part`, checked by the gateway.

    Energy and busy seconds are those of this part alone. `signature` is the car's, over `protocol.part_claim`.
    """

    car_id: CarId
    lease_id: LeaseId
    fence: Fence
    start: int
    stop: int
    rows: int
    size_bytes: int
    sha256: Sha256
    energy_wh: float
    energy_source: str
    busy_s: float
    signature: str = ""


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """Durable: row groups below `done_through` will not be asked for again unless an audit refuses them."""

    done_through: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The car lets go. `reason` is a `protocol.ReleaseReason`; only "refused" says something about the work.

    Energy and busy seconds count from the beginning of the lease.
    """

    car_id: CarId
    lease_id: LeaseId
    fence: Fence
    reason: str
    detail: str = ""
    energy_wh: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The shard is free; the next car starts at `done_through`."""

    done_through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep ended; `more` when its batch was full, `outage` when the cell had not answered for a while."""

    expired: tuple[LeaseId, ...]
    more: bool
    outage: bool


class LeaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A lease, open or ended. `done_through` is the shard's while open, and where the lease left it when ended."""

    lease_id: LeaseId
    car_id: CarId
    shard_id: ShardId
    order_key: OrderKey
    fence: Fence
    start: int
    done_through: int
    row_groups: int
    row_group_rows: tuple[int, ...]
    state: LeaseState
    reason: str
    credit: Credit
    granted_at: datetime
    expires_at: datetime | None
    """None when ended."""
    ended_at: datetime | None
    energy_wh: float
    key: CarKey
    """Of the car, as it was when the lease was looked at: whoever delivers next is asked for it."""
