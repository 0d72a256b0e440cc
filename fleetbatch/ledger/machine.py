"""The life of a shard and of the leases on it. Pure: the statements in queries.sql do to rows what `step` does here.

    READY --Take--> OUT --last Deliver--> RETURNED --Judge(passed)--> VALID --Publish--> DONE
      ^              |                      |                          ^
      |              +--last Deliver, when no part is a car's-----------+
      +-- LetGo, TimePassed, Revoke: keeps done_through
      +------------------------------------- Judge(refused): row group 0, attempts + 1; MISSING once nobody wants it
    READY, OUT, RETURNED, VALID --GiveUp, as far as it goes--> MISSING

A lease is open from Take until the first of: its last part (DONE), LetGo (RELEASED), no beat in time or no part for
long (EXPIRED), Revoke or GiveUp (REVOKED). An ended lease never changes, and whoever asks about it gets the same answer
for ever.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never

from fleetbatch.ledger.life import (
    Answer,
    Beat,
    Deliver,
    EndedLease,
    Event,
    GiveUp,
    Judge,
    LetGo,
    OpenLease,
    Part,
    Publish,
    Revoke,
    Shard,
    Take,
    TimePassed,
)
from fleetbatch.ledger.messages import BeatAnswer, Delivered, Refused, Released, Terminal
from fleetbatch.ledger.states import LeaseState, ShardState
from fleetbatch.units import CLOUD_CAR, CarId, Fence

ARCHIVED: Final = Terminal(reason="the lease is over: its night is archived")
NOT_YOURS: Final = Terminal(reason="there is no such lease of this car")
REFUSED: Final = "refused"
"""The one reason for letting go that says something about the work."""


def step(  # noqa: C901, PLR0911 # one case an event; the whole life on one page
    shard: Shard, event: Event, *, now: datetime
) -> tuple[Shard, Answer]:
    """Return the shard after an event and what the sender is told."""
    match event:
        case Take():
            return _take(shard, event, now)
        case Beat():
            return _beat(shard, event, now)
        case Deliver():
            return _deliver(shard, event, now)
        case LetGo():
            return _let_go(shard, event)
        case TimePassed(resumed_at=resumed_at):
            return _expire(shard, resumed_at, now)
        case Revoke(reason=reason):
            return (_end(shard, LeaseState.REVOKED, reason), True) if shard.lease else (shard, False)
        case Judge():
            return _judge(shard, event)
        case GiveUp():
            return _give_up(shard, event)
        case Publish():
            valid = shard.state is ShardState.VALID
            return (replace(shard, state=ShardState.DONE), True) if valid else (shard, False)
        case _:
            assert_never(event)


def ending(state: LeaseState, reason: str) -> Terminal:
    """Return what is said for ever of a lease that ended so."""
    return Terminal(reason=f"the lease is {state.value}: {reason}", state=state)


def _take(shard: Shard, event: Take, now: datetime) -> tuple[Shard, Answer]:
    if shard.state is not ShardState.READY:
        return shard, Refused(reason=f"the shard is {shard.state.value}")
    if shard.cloud_only and event.car_id != CLOUD_CAR:
        return shard, Refused(reason="the shard is left to the cloud lane")
    if event.car_id in shard.failed and event.car_id != CLOUD_CAR:
        return shard, Refused(reason="the car has failed at the shard")
    lease = OpenLease(
        car_id=event.car_id,
        fence=Fence(shard.fence + 1),
        start=shard.done_through,
        lease_for=event.lease_for,
        expires_at=now + event.lease_for,
        progressed_at=now,
    )
    return replace(shard, state=ShardState.OUT, fence=lease.fence, lease=lease), lease


def _beat(shard: Shard, event: Beat, now: datetime) -> tuple[Shard, Answer]:
    if not _holds(shard, event):
        return shard, BeatAnswer(go_on=False, reason=_over(shard, event).reason, expires_at=None)
    lease = shard.lease
    assert lease is not None
    stalled_at = max(lease.progressed_at, event.resumed_at) + event.stalled_after
    renewed = _renew(shard, min(now + lease.lease_for, stalled_at))
    assert renewed.lease is not None
    return renewed, BeatAnswer(go_on=True, reason="", expires_at=renewed.lease.expires_at)


def _deliver(shard: Shard, event: Deliver, now: datetime) -> tuple[Shard, Answer]:
    kept = next(
        (p for p in shard.parts if (p.fence, p.start, p.car_id) == (event.fence, event.start, event.car_id)), None
    )
    if kept is not None and (kept.stop, kept.sha256) == (event.stop, event.sha256):
        return shard, Delivered(done_through=kept.stop, complete=kept.stop == shard.row_groups)
    if not _holds(shard, event):
        return shard, _over(shard, event)
    if not _fits(shard, event):
        return shard, Refused(reason=f"the shard is delivered up to {shard.done_through} of {shard.row_groups}")
    part = Part(car_id=event.car_id, fence=event.fence, start=event.start, stop=event.stop, sha256=event.sha256)
    after = replace(_progressed(shard, now), done_through=event.stop, parts=(*shard.parts, part))
    if event.stop < shard.row_groups:
        return after, Delivered(done_through=event.stop, complete=False)
    ended = _end(after, LeaseState.DONE, "the shard is complete")
    state = ShardState.RETURNED if after.car_made else ShardState.VALID
    return replace(ended, state=state), Delivered(done_through=event.stop, complete=True)


def _let_go(shard: Shard, event: LetGo) -> tuple[Shard, Answer]:
    if not _holds(shard, event):
        over = _over(shard, event)
        released = over.state is LeaseState.RELEASED
        return shard, Released(done_through=_ended(shard, event).done_through) if released else over
    after = _end(shard, LeaseState.RELEASED, event.reason)
    if event.reason == REFUSED:
        after = _failed(after, frozenset({event.car_id}))
    return after, Released(done_through=shard.done_through)


def _expire(shard: Shard, resumed_at: datetime, now: datetime) -> tuple[Shard, Answer]:
    lease = shard.lease
    if lease is None or now < max(lease.expires_at, resumed_at + lease.lease_for):
        return shard, False
    return _end(shard, LeaseState.EXPIRED, "it was not renewed in time"), True


def _judge(shard: Shard, event: Judge) -> tuple[Shard, Answer]:
    if shard.state is not ShardState.RETURNED or shard.fence != event.fence:
        return shard, False
    if event.passed:
        return replace(shard, state=ShardState.VALID), True
    state = ShardState.MISSING if shard.reason else ShardState.READY
    void = replace(shard, state=state, done_through=0, void_fence=shard.fence)
    return _failed(void, event.wrong), True


def _give_up(shard: Shard, event: GiveUp) -> tuple[Shard, Answer]:
    if shard.state not in event.gone:
        waits = shard.state is ShardState.RETURNED
        return (replace(shard, reason=shard.reason or event.reason), False) if waits else (shard, False)
    ended = _end(shard, LeaseState.REVOKED, event.reason) if shard.lease else shard
    return replace(ended, state=ShardState.MISSING, reason=event.reason), True


def _holds(shard: Shard, event: Beat | Deliver | LetGo) -> bool:
    lease = shard.lease
    return lease is not None and (lease.car_id, lease.fence) == (event.car_id, event.fence)


def _fits(shard: Shard, event: Deliver) -> bool:
    """A part continues the prefix, is not empty, ends inside the shard, and has all rows of its row groups."""
    inside = event.start == shard.done_through and event.start < event.stop <= shard.row_groups
    return inside and event.rows == sum(shard.row_group_rows[event.start : event.stop])


def _ended(shard: Shard, event: Beat | Deliver | LetGo) -> EndedLease:
    return next(e for e in shard.ended if (e.car_id, e.fence) == (event.car_id, event.fence))


def _over(shard: Shard, event: Beat | Deliver | LetGo) -> Terminal:
    if not any((e.car_id, e.fence) == (event.car_id, event.fence) for e in shard.ended):
        return NOT_YOURS
    ended = _ended(shard, event)
    return ending(ended.state, ended.reason)


def _renew(shard: Shard, until: datetime) -> Shard:
    assert shard.lease is not None
    return replace(shard, lease=replace(shard.lease, expires_at=max(shard.lease.expires_at, until)))


def _progressed(shard: Shard, now: datetime) -> Shard:
    assert shard.lease is not None
    moving = replace(shard, lease=replace(shard.lease, progressed_at=max(shard.lease.progressed_at, now)))
    return _renew(moving, now + shard.lease.lease_for)


def _end(shard: Shard, state: LeaseState, reason: str) -> Shard:
    """Close the open lease; the shard is free again with what was delivered."""
    lease = shard.lease
    assert lease is not None
    over = EndedLease(
        car_id=lease.car_id, fence=lease.fence, state=state, reason=reason, done_through=shard.done_through
    )
    return replace(shard, state=ShardState.READY, lease=None, ended=(*shard.ended, over))


def _failed(shard: Shard, by: frozenset[CarId]) -> Shard:
    """Count an attempt that says something about the work; after too many only trusted machines try again."""
    attempts = shard.attempts + 1
    cloud_only = shard.cloud_only or attempts >= shard.attempts_max
    return replace(shard, attempts=attempts, cloud_only=cloud_only, failed=shard.failed | by)
