"""A lease is held: row groups are computed, parts delivered, beats sent. Pure."""

from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias, assert_never

from fleetbatch.car import nouns as n
from fleetbatch.car.conditions import WhyNot
from fleetbatch.car.leaving import drop_unsent, leave
from fleetbatch.car.moment import Moment, Step, not_reached, over, send_part, stop_work


def holding(held: n.Held, at: Moment, event: n.Event) -> Step:
    """Return what becomes of a held lease after an event."""
    match event:
        case n.Looked() | n.Stop():
            against = at.leave_because()
            return _tick(held, at) if against is None else leave(held, at, against)
        case n.RowGroupDone():
            return _computed(held, at, event)
        case n.WorkFailed():
            return _failed(held, at, event)
        case n.BeatAnswered() | n.PartDelivered() | n.Ended() | n.Unreached() as answer:
            return _answered(held, at, answer)
        case n.PartRefused() | n.BeatRefused():
            kept = drop_unsent(held) if isinstance(event, n.PartRefused) else held
            return leave(kept, at, WhyNot(reason="refused", detail=event.detail))
        case n.PollAnswered() | n.Released():
            return n.Holding(held=held), ()
        case _ as never:
            assert_never(never)


_Answer: TypeAlias = n.BeatAnswered | n.PartDelivered | n.Ended | n.Unreached


def _answered(held: n.Held, at: Moment, answer: _Answer) -> Step:
    match answer:
        case n.BeatAnswered():
            return _beaten(held, at, answer)
        case n.PartDelivered():
            return _delivered(held, at, answer)
        case n.Ended():
            return over(at)
        case n.Unreached():
            return n.Holding(held=not_reached(held, at, answer)), ()
        case _ as never:
            assert_never(never)


def _tick(held: n.Held, at: Moment) -> Step:
    """Do what time has made due: a beat, a part, the end of work without contact, a fresh worker."""
    if held.working and held.done < held.lease.row_groups and at.now - held.work_since >= at.dials.worker_silent:
        hangs = f"no row group for {at.dials.worker_silent}"
        return _failed(held, at, n.WorkFailed(lease_id=held.lease.lease_id, kind="crashed", detail=hangs))
    actions: list[n.Action] = []
    if at.now >= held.beat_at and not held.beating:
        actions.append(n.Beat(lease=held.lease, done=held.done, busy_s=held.busy_s))
        held = replace(held, beating=True, beat_at=at.now + timedelta(seconds=held.lease.beat_every_s))
    part_over = at.now - held.part_since >= timedelta(seconds=held.lease.part_every_s)
    cut_off = at.now >= held.expires_at
    held, parts = send_part(held, at)
    actions += parts
    if held.working and cut_off and part_over:
        held = stop_work(held, at)
        actions.append(n.KillWork())
    if held.work_at is not None and at.now >= held.work_at and not cut_off:
        held, started = _resume(held, at)
        actions += started
    return n.Holding(held=held), tuple(actions)


def _computed(held: n.Held, at: Moment, event: n.RowGroupDone) -> Step:
    if event.row_group < held.done or event.row_group in held.ahead:
        return n.Holding(held=held), ()  # a worker that was replaced
    done, ahead = held.done, held.ahead | {event.row_group}
    while done in ahead:
        ahead, done = ahead - {done}, done + 1
    held = replace(held, done=done, ahead=ahead, busy_s=held.busy_s + event.busy_s, work_since=at.now)
    held = replace(held, stalls=0, stalled_since=None)
    held, parts = send_part(held, at)
    return n.Holding(held=held), parts


def _failed(held: n.Held, at: Moment, event: n.WorkFailed) -> Step:
    """Start the worker again after a while; give the lease back when that has no prospect."""
    held = stop_work(held, at)
    match event.kind:
        case "refused":
            hopeless, tries = True, 0
        case "crashed":
            hopeless, tries = held.crashes >= at.dials.crashes_max, held.crashes
            held = replace(held, crashes=held.crashes + 1)
        case "unreached":
            since = held.stalled_since or at.now
            hopeless, tries = at.now - since >= at.dials.stalled_longest, held.stalls
            held = replace(held, stalls=held.stalls + 1, stalled_since=since)
        case _ as never:
            assert_never(never)
    if hopeless:
        return leave(held, at, WhyNot(reason="refused", detail=event.detail))
    pause = min(at.dials.retry_first * 2 ** min(tries, 16), at.dials.retry_longest)
    return n.Holding(held=replace(held, work_at=at.now + pause)), (n.KillWork(),)


def _beaten(held: n.Held, at: Moment, event: n.BeatAnswered) -> Step:
    if not event.go_on:
        return over(at)
    if held.unreached:
        # the cell is back: an outage of everything says nothing about the shard, and work need not wait
        held = replace(held, stalled_since=None, work_at=at.now if held.work_at is not None else None)
    held = replace(held, beating=False, unreached=0, expires_at=at.now + event.expires_in)
    if event.beat_every:
        held = replace(held, beat_at=at.now + min(event.beat_every, event.expires_in / 2))
    if held.working or held.work_at is not None or held.done >= held.lease.row_groups:
        return n.Holding(held=held), ()
    held, started = _resume(held, at)  # work had ended for want of contact
    return n.Holding(held=held), started


def _delivered(held: n.Held, at: Moment, event: n.PartDelivered) -> Step:
    if event.complete:
        return over(at)
    held = replace(held, sent=max(held.sent, event.done_through), sending=0, send_at=None, unreached=0)
    held, parts = send_part(held, at)
    return n.Holding(held=held), parts


def _resume(held: n.Held, at: Moment) -> tuple[n.Held, n.Actions]:
    held = replace(held, working=True, work_at=None, work_since=at.now, part_since=at.now)
    return held, (n.StartWork(lease=held.lease, start=held.done, ahead=held.ahead),)
