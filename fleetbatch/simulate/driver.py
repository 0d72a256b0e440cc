"""One car of a simulated night: the real agent, the real conditions, a battery, and a worker that takes its time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from fleetbatch.car import agent, conditions
from fleetbatch.car import nouns as n
from fleetbatch.car.moment import Dials
from fleetbatch.simulate.charge import Charge, Plugs, reading

SECOND: Final = 1_000_000
"""Virtual time is counted in whole microseconds, as the agent's own clock is."""
DIALS: Final = Dials(worker_silent=timedelta(hours=12))
"""A worker never hangs here; on the slowest links a row group of video takes longer than a real car would wait."""
FIRST_LOOK_S: Final = 1.0
"""So long before the night cars look and say how they are, so that the first round knows them."""
LEAST_S: Final = 1e-3
LOOK_EVERY_S: Final = 0.25
LOOK_AGAIN_S: Final = 60.0
"""How often a car looks while it is giving a lease back."""
CHANCE: Final = 0.5
"""Where a car spreads its calls by chance; a simulated one always draws the middle."""

Call: TypeAlias = n.Poll | n.Beat | n.DeliverPart | n.Release


def unreached(call: Call) -> n.Unreached:
    """Return what a car hears of a call while it has no network."""
    match call:
        case n.Poll():
            return n.Unreached(call="poll", lease_id="", retry_after=None, chance=CHANCE)
        case n.Beat(lease=lease):
            return n.Unreached(call="beat", lease_id=lease.lease_id, retry_after=None, chance=CHANCE)
        case n.DeliverPart(lease=lease):
            return n.Unreached(call="part", lease_id=lease.lease_id, retry_after=None, chance=CHANCE)
        case n.Release(lease=lease):
            return n.Unreached(call="release", lease_id=lease.lease_id, retry_after=None, chance=CHANCE)


@dataclass(slots=True)
class Driver:
    """A car at its plug; `place` is its place in the fleet."""

    place: int
    plugs: Plugs
    epoch: datetime
    charge: Charge
    reserve_at_s: float
    limits: conditions.Limits
    life: n.Agent
    look_us: int = 0
    """The one look that counts; others that are due were overtaken."""
    token: int = 0
    """Grows when a worker is started or killed: what an older one finishes is not heard."""
    working: bool = False
    since_s: float = 0.0
    """When the row group in work was begun, its first fetch included."""
    loaded_s: float = -math.inf
    """When it has the model of what its worker is at."""
    heard_s: float = -math.inf
    turn: int = 0
    silent: bool = False
    shard: int = -1
    """What its worker is at, as a place."""

    @classmethod
    def at_plug(cls, place: int, plugs: Plugs, reserve_at_s: float, epoch: datetime) -> "Driver":
        """Return a car as it stands when the night begins, or when it arrives."""
        charge = Charge(
            need_wh=float(plugs.need_wh[place]),
            accept_w=float(plugs.accept_w[place]),
            plug_w=float(plugs.plug_w[place]),
            compute_w=float(plugs.compute_w[place]),
            begin_s=float(plugs.arrive_s[place]),
        )
        begins = max(-FIRST_LOOK_S, float(plugs.arrive_s[place]))
        charge.pass_time(begins)
        life = agent.parked(epoch + timedelta(seconds=begins))
        limits = conditions.Limits(power_w=float(plugs.compute_w[place]))
        return cls(place, plugs, epoch, charge, reserve_at_s, limits, life)

    @property
    def leave_s(self) -> float:
        """Return when the owner leaves."""
        return float(self.plugs.leave_s[self.place])

    def look(self, at_s: float, now: datetime) -> n.Looked:
        """Look at sensors and owner."""
        plugged = at_s < self.leave_s
        self.charge.pass_time(min(at_s, self.leave_s))
        seen = reading(self.plugs, self.place, self.charge, plugged=plugged, epoch=self.epoch)
        return n.Looked(latch=conditions.decide(self.life.latch, seen, self.limits, now=now))

    def tell(self, event: n.Event, now: datetime) -> n.Actions:
        """Let the agent decide."""
        self.life, actions = agent.step(self.life, event, DIALS, now=now)
        return actions

    def work(self, at_s: float, *, on: bool) -> None:
        """Start or end the worker's draw."""
        self.charge.pass_time(min(at_s, self.leave_s))
        self.charge.computing = self.working = on
        self.token += 1

    def next_look_s(self, at_s: float) -> float:
        """Return when something may be due: a call, a change of the sensors, the owner's leaving."""
        due = [one for one in (*self._due_calls(at_s), *self._due_changes(at_s)) if one > at_s]
        return max(min(due, default=math.inf), at_s + LEAST_S)

    def next_change_s(self, at_s: float) -> float:
        """Return when sensors or owner may say something new."""
        return max(min((one for one in self._due_changes(at_s) if one > at_s), default=math.inf), at_s + LEAST_S)

    def _due_calls(self, at_s: float) -> Iterator[float]:
        match self.life.phase:
            case n.Parked(poll_at=poll_at):
                yield max(self._s(poll_at), at_s + LOOK_EVERY_S)
            case n.Holding(held=held):
                yield self._s(held.beat_at)
                yield self._s(held.expires_at)
                yield self._s(held.part_since) + held.lease.part_every_s
                yield from (self._s(one) for one in (held.send_at, held.work_at) if one is not None)
            case n.Leaving():
                yield at_s + LOOK_AGAIN_S
            case _:
                return

    def _due_changes(self, at_s: float) -> Iterator[float]:
        yield self.leave_s
        if at_s >= self.leave_s:
            return
        changed = self.life.latch.changed_at
        if changed is not None:
            yield self._s(changed) + self.limits.settle.total_seconds()
        drawn = self.charge.drawn_w
        if drawn > 0.0:
            yield self.reserve_at_s
            yield at_s + 3600.0 * self.charge.missing_wh / drawn

    def _s(self, instant: datetime) -> float:
        return (instant - self.epoch).total_seconds()
