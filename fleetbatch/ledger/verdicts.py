"""What an auditor is given and what it answers."""

from dataclasses import dataclass
from datetime import datetime

from fleetbatch.nouns import OrderKey
from fleetbatch.units import CarId, Fence, LeaseId, OwnerId, Sha256, ShardId


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
    disagreements are refused, and their cars get a strike; audited leases without any are paid, as others that passed.
    `detail` is kept for people (which rows, why).
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
