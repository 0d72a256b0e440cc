"""A car's agent under a clock turned by hand."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from fleetbatch.car import nouns as n
from fleetbatch.car.agent import parked, step
from fleetbatch.car.conditions import Latch, WhyNot
from fleetbatch.car.moment import Dials
from fleetbatch.protocol import Lease, ReleaseReason

NIGHT = datetime(2026, 11, 22, 23, tzinfo=UTC)
DIALS = Dials()
WILLING = Latch(willing=True)
Kind = TypeVar("Kind", bound=n.Action)


def lease(name: str = "lease-1", *, start: int = 0, row_groups: int = 10) -> Lease:
    return Lease(
        lease_id=name,
        fence=1,
        shard_id="00000000000000aa",
        order_key="2026-11-22/signs/g1",
        workload="image",
        options={},
        model_sha256="0" * 64,
        model_url="http://store/model",
        model_bytes=1,
        shard_url="http://store/shard",
        shard_bytes=1,
        shard_sha256="0" * 64,
        shard_key="key",
        row_groups=row_groups,
        start=start,
        expires_in_s=600.0,
        beat_every_s=60.0,
        part_every_s=60.0,
    )


@dataclass
class Car:
    """An agent under a clock turned by hand."""

    agent: n.Agent = field(default_factory=lambda: parked(NIGHT))
    now: datetime = NIGHT
    willing: Latch = WILLING
    doing: list[n.Action] = field(default_factory=list)
    """Everything it was ever told to do."""

    def happens(self, event: n.Event) -> list[n.Action]:
        self.agent, actions = step(self.agent, event, DIALS, now=self.now)
        self.doing += actions
        return list(actions)

    def look(self, **passes: float) -> list[n.Action]:
        """Let time pass and look at the signals."""
        self.now += timedelta(**passes)
        return self.happens(n.Looked(latch=self.willing))

    def leave(self, reason: ReleaseReason) -> list[n.Action]:
        self.willing = Latch(willing=False, why_not=WhyNot(reason=reason, detail=reason))
        return self.look()

    def take(self, granted: Lease | None = None) -> None:
        """Poll and get a lease."""
        assert self.look() == [n.Poll()]
        granted = granted or lease()
        actions = self.happens(n.PollAnswered(lease=granted, retry_after=timedelta(), chance=0.5))
        assert actions == [n.StartWork(lease=granted, start=granted.start)]

    def compute(self, row_group: int, *, seconds: float = 10.0) -> list[n.Action]:
        self.now += timedelta(seconds=seconds)
        return self.happens(n.RowGroupDone(lease_id="lease-1", row_group=row_group, busy_s=seconds))

    def delivered(self, through: int, *, complete: bool = False) -> list[n.Action]:
        return self.happens(n.PartDelivered(lease_id="lease-1", done_through=through, complete=complete))

    def lost(self, call: n.Call, *, retry_after: timedelta | None = None, chance: float = 0.0) -> list[n.Action]:
        about = "" if call == "poll" else "lease-1"
        return self.happens(n.Unreached(call=call, lease_id=about, retry_after=retry_after, chance=chance))

    def beat_answered(self, *, go_on: bool = True, minutes: float = 10, every_s: float = 0) -> list[n.Action]:
        lasts, pace = timedelta(minutes=minutes), timedelta(seconds=every_s)
        return self.happens(n.BeatAnswered(lease_id="lease-1", go_on=go_on, expires_in=lasts, beat_every=pace))

    def done(self, kind: type[Kind]) -> list[Kind]:
        return [action for action in self.doing if isinstance(action, kind)]


def of(actions: list[n.Action], kind: type[Kind]) -> list[Kind]:
    return [action for action in actions if isinstance(action, kind)]
