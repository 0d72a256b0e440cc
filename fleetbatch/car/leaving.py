"""A lease is given back: the worker is stopped, what is finished is delivered, then the lease is released. Pure."""

from dataclasses import replace
from typing import assert_never

from fleetbatch.car import nouns as n
from fleetbatch.car.conditions import WhyNot
from fleetbatch.car.moment import Moment, Step, not_reached, over, send_part, stop_work


def leave(held: n.Held, at: Moment, against: WhyNot) -> Step:
    """Begin to give a lease back: stop at once, then say goodbye."""
    held = stop_work(held, at)
    if against.reason == "consent":
        held = drop_unsent(held)  # what was computed under a withdrawn consent is erased, not delivered
    phase = n.Leaving(held=held, reason=against.reason, detail=against.detail, since=at.now)
    phase, actions = _farewell(phase, at)
    return phase, (n.KillWork(), *actions)


def drop_unsent(held: n.Held) -> n.Held:
    """Give up what is computed and not durable."""
    return replace(held, done=held.sent, ahead=frozenset(), sending=0, send_at=None)


def _answered(held: n.Held, event: n.PartDelivered | n.PartRefused) -> n.Held:
    if isinstance(event, n.PartRefused):
        return drop_unsent(held)
    return replace(held, sent=max(held.sent, event.done_through), sending=0, send_at=None, unreached=0)


def _farewell(phase: n.Leaving, at: Moment) -> tuple[n.Leaving, n.Actions]:
    """Deliver what is finished, then release."""
    held, parts = send_part(phase.held, at, all_finished=True)
    phase = replace(phase, held=held)
    waiting = phase.release_at is not None and at.now < phase.release_at
    if held.sending or phase.releasing or waiting:
        return phase, parts
    release = n.Release(lease=held.lease, reason=phase.reason, detail=phase.detail, busy_s=held.busy_s)
    return replace(phase, releasing=True, release_at=None), (release,)


def leaving(phase: n.Leaving, at: Moment, event: n.Event) -> Step:
    """Return what becomes of the farewell after an event; without contact it is tried for `keep_parts`."""
    held = phase.held
    match event:
        case n.Looked() | n.Stop():
            return over(at) if at.now - phase.since >= at.dials.keep_parts else _farewell(phase, at)
        case n.PartDelivered(complete=True) | n.BeatAnswered(go_on=False) | n.Ended() | n.Released():
            return over(at)
        case n.PartDelivered() | n.PartRefused():
            return _farewell(replace(phase, held=_answered(held, event)), at)
        case n.Unreached(call="release"):
            again = at.wait(held.unreached, event)
            held = replace(held, unreached=held.unreached + 1)
            return replace(phase, held=held, releasing=False, release_at=again), ()
        case n.Unreached():
            return replace(phase, held=not_reached(held, at, event)), ()
        case n.RowGroupDone() | n.WorkFailed() | n.PollAnswered() | n.BeatAnswered() | n.BeatRefused():
            return phase, ()
        case _ as never:
            assert_never(never)
