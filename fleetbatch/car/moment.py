"""What every phase of a car's life shares: the moment it looks at, and what happens to a lease. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from fleetbatch.car import nouns as n
from fleetbatch.car.conditions import WhyNot
from fleetbatch.protocol import Lease

Step: TypeAlias = tuple[n.Phase, n.Actions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """How patient a car is; all else the server says."""

    retry_first: timedelta = timedelta(seconds=1)
    retry_longest: timedelta = timedelta(minutes=1)
    worker_silent: timedelta = timedelta(minutes=15)
    """A worker that finishes no row group for so long hangs: it is replaced."""
    crashes_max: int = 3
    """After so many crashes of workers under one lease the car lets go of it."""
    stalled_longest: timedelta = timedelta(minutes=10)
    """A shard that cannot be read for so long, although the gateway answers, is given back."""
    after_refusal: timedelta = timedelta(minutes=1)
    """How long a car waits after it gave work back as unusable, so that it is not offered the same at once."""
    farewell: timedelta = timedelta(seconds=1.2)
    """How long a shutdown may wait for the last delivery and the release."""
    keep_parts: timedelta = timedelta(hours=12)
    """How long a finished part is kept for a gateway that cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What every phase's step looks at besides the event."""

    agent: n.Agent
    dials: Dials
    now: datetime
    changed: bool
    """The car has just become willing, or unwilling."""

    def wait(self, unreached: int, event: n.Unreached) -> datetime:
        """Return when to call again: not before the server said, else doubling; spread by chance."""
        if event.retry_after is not None:
            return self.now + event.retry_after * (1 + event.chance / 2)
        doubled: timedelta = self.dials.retry_first * 2 ** min(unreached, 16)
        spread = 0.5 + event.chance / 2
        return self.now + min(doubled, self.dials.retry_longest) * spread

    def leave_because(self) -> WhyNot | None:
        """Return why a lease must be given back now, or None."""
        if self.agent.exit_by is not None:
            return WhyNot(reason="shutdown", detail="the runner was asked to end")
        if self.agent.latch.willing:
            return None
        return self.agent.latch.why_not or WhyNot(reason="unplugged", detail="nothing is known yet")


def lease_of(agent: n.Agent) -> Lease | None:
    """Return the lease that is held or being given back."""
    match agent.phase:
        case n.Holding(held=held) | n.Leaving(held=held):
            return held.lease
        case n.Parked() | n.Asking() | n.Gone():
            return None
        case _ as never:
            assert_never(never)


def asks_when_it_looks(agent: n.Agent, *, now: datetime) -> bool:
    """Return whether the next look makes the car ask for work: then it need not wait for it, with all cores idle."""
    return isinstance(agent.phase, n.Parked) and agent.phase.poll_at <= now


def send_part(held: n.Held, at: Moment, *, all_finished: bool = False) -> tuple[n.Held, n.Actions]:
    """Send the part that is due, or repeat the one that failed; one is on its way at a time."""
    if held.sending:
        if held.send_at is None or at.now < held.send_at:
            return held, ()
        part = n.DeliverPart(lease=held.lease, start=held.sent, stop=held.sending)
        return replace(held, send_at=None), (part,)
    part_over = at.now - held.part_since >= timedelta(seconds=held.lease.part_every_s)
    due = all_finished or part_over or held.done >= held.lease.row_groups
    if held.done <= held.sent or not due:
        return held, ()
    part = n.DeliverPart(lease=held.lease, start=held.sent, stop=held.done)
    return replace(held, sending=held.done, part_since=at.now), (part,)


def stop_work(held: n.Held, at: Moment) -> n.Held:
    """Count the time of the row group that is lost."""
    if not held.working or held.done >= held.lease.row_groups:
        return replace(held, working=False, work_at=None)
    lost_s = (at.now - held.work_since).total_seconds()
    return replace(held, working=False, work_at=None, busy_s=held.busy_s + lost_s)


def not_reached(held: n.Held, at: Moment, event: n.Unreached) -> n.Held:
    """Try a beat or a part again later."""
    again = at.wait(held.unreached, event)
    held = replace(held, unreached=held.unreached + 1)
    match event.call:
        case "beat":
            return replace(held, beating=False, beat_at=again)
        case "part":
            return replace(held, send_at=again)
        case "poll" | "release":
            return held
        case _ as never:
            assert_never(never)


def over(at: Moment) -> Step:
    """Forget a lease that ended, and ask for the next: at once, unless this one was unusable."""
    lease = lease_of(at.agent)
    assert lease is not None
    refused = isinstance(at.agent.phase, n.Leaving) and at.agent.phase.reason == "refused"
    return n.Parked(poll_at=at.now + at.dials.after_refusal if refused else at.now), (
        n.KillWork(),
        n.Forget(lease_id=lease.lease_id),
    )
