"""The life of a car between two nights, as one pure `step`: state, event and time in, state and actions out.

                      lease                     complete, revoked, terminal
    Parked --> Asking -------> Holding -----------------------------------> Parked
      ^          | no work        |  unwilling, refused, shutting down
      +----------+                v
      ^                       Leaving --(what is finished is delivered, then released)--> Parked, or Gone
      +---------------------------+

A lease is computed row group by row group by a worker; what is finished is delivered in parts. Losing the network
changes nothing until the lease's time is over: then the part in work is finished, kept, and delivered when possible.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from fleetbatch.car import nouns as n
from fleetbatch.car.conditions import Latch
from fleetbatch.car.holding import holding
from fleetbatch.car.leaving import leave, leaving
from fleetbatch.car.moment import Dials, Moment, Step, lease_of
from fleetbatch.protocol import Lease


def parked(now: datetime) -> n.Agent:
    """Return a car that was just switched on."""
    return n.Agent(phase=n.Parked(poll_at=now), latch=Latch())


def step(agent: n.Agent, event: n.Event, dials: Dials, *, now: datetime) -> tuple[n.Agent, n.Actions]:
    """Return what the car is after an event, and what it must do; an event about an older lease changes nothing."""
    changed = isinstance(event, n.Looked) and event.latch.willing != agent.latch.willing
    if isinstance(event, n.Looked):
        agent = replace(agent, latch=event.latch)
    if isinstance(event, n.Stop) and agent.exit_by is None:
        agent = replace(agent, exit_by=now + dials.farewell)
    if isinstance(agent.phase, n.Gone) or _stale(agent, event):
        return agent, ()
    phase, actions = _step_phase(Moment(agent=agent, dials=dials, now=now, changed=changed), event)
    late = agent.exit_by is not None and now >= agent.exit_by
    if agent.exit_by is not None and (late or isinstance(phase, n.Parked)):
        return replace(agent, phase=n.Gone()), (*actions, n.KillWork(), n.Exit())
    return replace(agent, phase=phase), actions


def _stale(agent: n.Agent, event: n.Event) -> bool:
    """Return whether an event speaks of a lease that is no longer held."""
    named = getattr(event, "lease_id", "")
    lease = lease_of(agent)
    return bool(named) and (lease is None or lease.lease_id != named)


def _step_phase(at: Moment, event: n.Event) -> Step:
    match at.agent.phase:
        case n.Parked() as phase:
            return _parked(phase, at, event)
        case n.Asking() as phase:
            return _asking(phase, at, event)
        case n.Holding(held=held):
            return holding(held, at, event)
        case n.Leaving() as phase:
            return leaving(phase, at, event)
        case n.Gone() as phase:
            return phase, ()
        case _ as never:
            assert_never(never)


def _parked(phase: n.Parked, at: Moment, event: n.Event) -> Step:
    if isinstance(event, n.Looked) and (at.changed or at.now >= phase.poll_at):
        return n.Asking(unreached=phase.unreached), (n.Poll(),)
    return phase, ()


def _asking(phase: n.Asking, at: Moment, event: n.Event) -> Step:
    match event:
        case n.PollAnswered(lease=None):
            return n.Parked(poll_at=at.now + event.retry_after * (1 + event.chance / 10)), ()
        case n.PollAnswered(lease=Lease() as lease):
            return _begin(lease, at)
        case n.Unreached(call="poll"):
            return n.Parked(poll_at=at.wait(phase.unreached, event), unreached=phase.unreached + 1), ()
        case _:
            return phase, ()


def _begin(lease: Lease, at: Moment) -> Step:
    held = n.Held(
        lease=lease,
        expires_at=at.now + timedelta(seconds=lease.expires_in_s),
        beat_at=at.now + timedelta(seconds=lease.beat_every_s),
        part_since=at.now,
        work_since=at.now,
        done=lease.start,
        sent=lease.start,
    )
    against = at.leave_because()
    if against is not None:
        return leave(replace(held, working=False), at, against)
    return n.Holding(held=held), (n.StartWork(lease=lease, start=lease.start),)
