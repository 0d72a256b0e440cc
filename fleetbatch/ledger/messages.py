"""What the ledger is asked and what it answers; every noun is frozen, every instant is the database's clock in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import NewType

import numpy as np
import numpy.typing as npt

from fleetbatch.errors import FleetbatchError
from fleetbatch.nouns import FrozenOrder, OrderKey
from fleetbatch.units import CarId, CellName, Fence, LeaseId, OwnerId, RoundId, Sha256, ShardId

PURPOSE_COMPUTE = "compute"
"""The consent without which no lease is granted. Work of a data class above `open` also needs `data:CLASS`."""


class ShardState(Enum):
    """Where a shard is in its life (picture in machine.py)."""

    READY = "ready"
    OUT = "out"
    RETURNED = "returned"
    VALID = "valid"
    DONE = "done"
    MISSING = "missing"


class LeaseState(Enum):
    """How a lease stands; all but GRANTED are terminal and never change."""

    GRANTED = "granted"
    DONE = "done"
    RELEASED = "released"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Credit(Enum):
    """What the audit said of a lease's delivered work, apart from how the lease ended."""

    NONE = "none"
    CREDITED = "credited"
    REFUSED = "refused"
    VOIDED = "voided"
    """Its own rows were fine or not looked at, but another lease spoiled the shard."""


class OrderState(Enum):
    """Only an open order's shards are granted; a paused order's leases run on, a cancelled order's are revoked."""

    OPEN = "open"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    CLOSED = "closed"


class FencedOff(FleetbatchError):  # noqa: N818 # the field's word
    """A planner wrote with the epoch of a lock that it no longer holds; nothing was written."""


# -- cars and owners


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A car becomes known: its ES256 public key as PEM."""

    car_id: CarId
    owner_id: OwnerId
    public_key_pem: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CarKey:
    """What a gateway needs to know who is calling."""

    car_id: CarId
    owner_id: OwnerId
    public_key_pem: str
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """An owner says yes or no to one purpose (`compute`, `telemetry`, `data:CLASS`), having read one notice."""

    car_id: CarId
    purpose: str
    granted: bool
    notice_version: str
    notice_sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRecord:
    """A consent as it was kept: `sha256` covers this record and the one before it of the same car and purpose."""

    change: ConsentChange
    number: int
    at: datetime
    sha256: Sha256


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


# -- leases


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswer:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
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


# -- rounds


Epoch = NewType("Epoch", int)
"""Grows whenever the planner's lock changes hands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerLock:
    """The right to write rounds for a cell; `epoch` fences off whoever held it before."""

    cell: CellName
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """A round as a gateway holds it: three arrays of equal length, sorted by (car_id, seq)."""

    round_id: RoundId
    car_id: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int16]
    shard_id: npt.NDArray[np.int64]


# -- audits


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPart:
    """One delivered part of a returned shard. `key` is its object key; a part of the cloud lane has car_id 0."""

    start: int
    stop: int
    rows: int
    size_bytes: int
    sha256: Sha256
    key: str
    lease_id: LeaseId
    car_id: CarId
    owner_id: OwnerId
    hardware_class: str
    provider: str
    runner_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTask:
    """A returned shard, claimed by one auditor until `claimed_until`; its parts in order cover all row groups."""

    shard_id: ShardId
    order_key: OrderKey
    fence: Fence
    row_groups: int
    row_group_rows: tuple[int, ...]
    rows: int
    size_bytes: int
    sha256: Sha256
    key: str
    attempts: int
    parts: tuple[AuditPart, ...]
    claimed_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFinding:
    """What the audit found in the rows of one lease."""

    lease_id: LeaseId
    audited_rows: int
    disagreements: int
    audited_items: tuple[str, ...] = ()
    """The item ids that were recomputed; they are published as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """The answer to one AuditTask (same shard_id, order_key and fence).

    `findings` has one entry per audited lease. With `passed` false the shard's parts are all voided, the leases with
    disagreements are refused, and their cars get a strike. `detail` is kept for people (which rows, why).
    """

    shard_id: ShardId
    order_key: OrderKey
    fence: Fence
    passed: bool
    findings: tuple[LeaseFinding, ...]
    detail: str = ""

    @property
    def audited_rows(self) -> int:
        """Return the rows looked at, over all leases."""
        return sum(f.audited_rows for f in self.findings)

    @property
    def disagreements(self) -> int:
        """Return the rows that disagreed, over all leases."""
        return sum(f.disagreements for f in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudShard:
    """A free shard that the cloud lane may take: ask for it with a GrantRequest of CLOUD_CAR."""

    shard_id: ShardId
    order_key: OrderKey
    work_units: float
    cloud_only: bool
    """No car gets it any more: too many attempts failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDials:
    """How a ledger is kept."""

    connections: int = 4
    outage_after: timedelta = timedelta(seconds=30)
    """A cell that swept nothing for so long had an outage: gateways sweep much more often."""
    sweep_batch: int = 1000
    audit_claim: timedelta = timedelta(minutes=10)
    planner_lock: timedelta = timedelta(seconds=60)
    retries: int = 5
    """How often a statement is sent again after a deadlock or a lost connection; every statement may be repeated."""
    session: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL settings of each connection."""
