"""What machine.py moves: a shard with its leases and parts, what can happen to it, what is answered. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleetbatch.ledger.messages import BeatAnswer, Delivered, Refused, Released, Terminal
from fleetbatch.ledger.states import LeaseState, ShardState
from fleetbatch.units import CLOUD_CAR, CarId, Fence, Sha256

NO_FENCE: Final = Fence(0)


# -- state


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLease:
    """The right of one holder to a shard until `expires_at`."""

    car_id: CarId
    fence: Fence
    start: int
    lease_for: timedelta
    expires_at: datetime
    progressed_at: datetime
    """When it was granted, or its last part was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedLease:
    """A lease that is over, and how far the shard was then."""

    car_id: CarId
    fence: Fence
    state: LeaseState
    reason: str
    done_through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Row groups [start, stop), durable."""

    car_id: CarId
    fence: Fence
    start: int
    stop: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard with everything that ever happened to it. Parts of `void_fence` and below were refused."""

    row_group_rows: tuple[int, ...]
    attempts_max: int
    state: ShardState = ShardState.READY
    fence: Fence = NO_FENCE
    void_fence: Fence = NO_FENCE
    done_through: int = 0
    attempts: int = 0
    failed: frozenset[CarId] = frozenset()
    """Cars that refused it or did it wrongly: none is given it once more."""
    cloud_only: bool = False
    reason: str = ""
    """Why it was given up, or will be if its audit refuses it."""
    lease: OpenLease | None = None
    ended: tuple[EndedLease, ...] = ()
    parts: tuple[Part, ...] = ()

    @property
    def row_groups(self) -> int:
        """Return the number of row groups."""
        return len(self.row_group_rows)

    @property
    def valid_parts(self) -> tuple[Part, ...]:
        """Return the parts that count, in order; together they are [0, done_through)."""
        return tuple(part for part in self.parts if part.fence > self.void_fence)

    @property
    def car_made(self) -> bool:
        """Say whether some part that counts came from a car."""
        return any(part.car_id != CLOUD_CAR for part in self.valid_parts)


# -- events


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A holder that may work, and holds nothing else, asks for the shard."""

    car_id: CarId
    lease_for: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The holder is alive, and says nothing of what it has done: that counts for `stalled_after` of service.

    The cell has answered beats without a gap since `resumed_at`.
    """

    car_id: CarId
    fence: Fence
    resumed_at: datetime
    stalled_after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Row groups [start, stop) lie in the store."""

    car_id: CarId
    fence: Fence
    start: int
    stop: int
    rows: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """The holder leaves."""

    car_id: CarId
    fence: Fence
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """A sweep looks; the cell has answered beats without a gap since `resumed_at`."""

    resumed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """The lease ends from above."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """An auditor has looked at the shard that came back under this fence."""

    fence: Fence
    passed: bool
    wrong: frozenset[CarId] = frozenset()
    """Whose work was found wrong, when it did not pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The deadline is here, or people want no more of it. What waits for its audit and is not `gone` waits on."""

    reason: str
    gone: frozenset[ShardState] = frozenset({ShardState.READY, ShardState.OUT, ShardState.RETURNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """The table that holds the shard's rows is committed."""


Event = Take | Beat | Deliver | LetGo | TimePassed | Revoke | Judge | GiveUp | Publish
Answer = OpenLease | Refused | Terminal | BeatAnswer | Delivered | Released | bool
"""OpenLease answers Take; a bool says of what nobody waits for whether anything changed."""
