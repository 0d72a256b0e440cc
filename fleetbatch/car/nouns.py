"""What a car can be in, what can happen to it, and what it can do: the nouns of `agent.step`."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from fleetbatch.car.conditions import Latch
from fleetbatch.protocol import Lease, ReleaseReason

# --- what is held -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lease and how far it got."""

    lease: Lease
    expires_at: datetime
    """When the lease ends unless a beat renews it, by the car's own clock."""
    beat_at: datetime
    part_since: datetime
    """When the part in work was begun."""
    work_since: datetime
    """When the row group in work was begun."""
    working: bool = True
    done: int = 0
    """Row groups below this are computed."""
    ahead: frozenset[int] = frozenset()
    """Row groups above `done` that another worker has computed already; a part ends before the first gap."""
    sent: int = 0
    """Row groups below this are durable."""
    sending: int = 0
    """End of the part on its way, until it is answered; 0 when none is. A part is repeated as it was."""
    send_at: datetime | None = None
    """When a part that failed to arrive is tried again."""
    beating: bool = False
    work_at: datetime | None = None
    """When a failed worker is started again."""
    crashes: int = 0
    """Of workers, under this lease."""
    stalls: int = 0
    """Tries in a row in which the store did not answer."""
    stalled_since: datetime | None = None
    unreached: int = 0
    """Calls in a row that did not reach the gateway."""
    busy_s: float = 0.0
    """Seconds of computing under this lease, the row groups that were lost included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """No lease; the next poll is due."""

    poll_at: datetime
    unreached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A poll is on its way."""

    unreached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A lease is held and worked on."""

    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The worker is stopped; what is finished is delivered, then the lease is given back."""

    held: Held
    reason: ReleaseReason
    detail: str
    since: datetime
    releasing: bool = False
    release_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The runner may end."""


Phase: TypeAlias = Parked | Asking | Holding | Leaving | Gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Everything a runner remembers of its own decisions."""

    phase: Phase
    latch: Latch
    exit_by: datetime | None = None
    """Set when the runner was asked to end."""


# --- what happens -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The signals were looked at, several times a second; this is also how time passes."""

    latch: Latch


@dataclass(frozen=True, slots=True, kw_only=True)
class PollAnswered:
    """A lease, or when to come back; `chance` in [0, 1) spreads the cars."""

    lease: Lease | None
    retry_after: timedelta
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswered:
    """The gateway heard the beat."""

    lease_id: str
    go_on: bool
    expires_in: timedelta
    beat_every: timedelta = timedelta()
    """The pace from here on, if not as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroupDone:
    """A worker finished a row group; the car was busy `busy_s` seconds since the one before."""

    lease_id: str
    row_group: int
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFailed:
    """No more row groups come.

    refused: trying again changes nothing (bundle or shard is bad). crashed: the worker died or hangs. unreached: the
    store does not answer.
    """

    lease_id: str
    kind: Literal["refused", "crashed", "unreached"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDelivered:
    """Row groups below `done_through` are durable."""

    lease_id: str
    done_through: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRefused:
    """The gateway will never take the part that was sent (a bug of ours, or too large)."""

    lease_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatRefused:
    """The gateway cannot understand our beats (a bug of ours); it still holds the lease for this car."""

    lease_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The lease was given back."""

    lease_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A terminal answer (409): the lease is over, whatever the car thinks; the same answer for ever."""

    lease_id: str
    reason: str


Call: TypeAlias = Literal["poll", "beat", "part", "release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """A call failed in a way that passes: network, 429, 503."""

    call: Call
    lease_id: str
    retry_after: timedelta | None
    """What the server asked for, if it could."""
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The runner was asked to end."""


Event: TypeAlias = (
    Looked
    | PollAnswered
    | BeatAnswered
    | RowGroupDone
    | WorkFailed
    | PartDelivered
    | PartRefused
    | BeatRefused
    | Released
    | Ended
    | Unreached
    | Stop
)


# --- what to do ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Say what the vehicle says; ask for work if willing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWork:
    """Let the workers compute from row group `start`, those in `ahead` excepted."""

    lease: Lease
    start: int
    ahead: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class KillWork:
    """End a worker that is at work now; the row group in work is lost. An idle worker may stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Say how far the lease got."""

    lease: Lease
    done: int
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverPart:
    """Deliver the answers of row groups [start, stop)."""

    lease: Lease
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Give the lease back."""

    lease: Lease
    reason: ReleaseReason
    detail: str
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Erase what is kept of a lease: its answers and its key."""

    lease_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """End the process."""


Action: TypeAlias = Poll | StartWork | KillWork | Beat | DeliverPart | Release | Forget | Exit
Actions: TypeAlias = tuple[Action, ...]
Step: TypeAlias = tuple[Phase, Actions]
