"""The runner's loop: looks at the signals, hears worker and gateway, asks `agent.step`, does what it says."""

import logging
import queue
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias, assert_never

from fleetbatch.car import nouns as n
from fleetbatch.car.agent import parked, step
from fleetbatch.car.conditions import NOTHING_KNOWN, Limits, Reading, decide
from fleetbatch.car.moment import Dials, asks_when_it_looks, lease_of
from fleetbatch.contracts import contract
from fleetbatch.logs import say
from fleetbatch.protocol import Hardware, PollRequest
from fleetbatch.runner.cache import cached_models
from fleetbatch.runner.calls import Broken, Calls, FromCalls
from fleetbatch.runner.crew import Computed, Crew, FromCrew, FromWorker, Lost, WorkerEnded
from fleetbatch.runner.delivery import GroupAnswers, make_part
from fleetbatch.runner.energy import Account, PowerSignal
from fleetbatch.runner.frames import Failed
from fleetbatch.runner.signals import SignalSource
from fleetbatch.runner.worker import WorkerSettings

LOOK_EVERY_S: Final = 0.2
"""Compute stops within one second of unplugging: the look, the kill, and room to spare."""

_TOLD: Final = frozenset(contract("signals").schema.names)

Heard: TypeAlias = FromCalls | FromCrew


@dataclass(slots=True, kw_only=True)
class Runner:
    """A car at its plug. `heard` is where threads put what happened; everything else belongs to the loop."""

    source: SignalSource
    hardware: Hardware
    worker: WorkerSettings
    calls: Calls
    heard: "queue.SimpleQueue[Heard]"
    limits: Limits
    account: Account
    """What the present lease has drawn."""
    power_signal: str = ""
    """The signal that `account` hears of, in watts; empty when something else measures or estimates."""
    dials: Dials = field(default_factory=Dials)
    reading: Reading = NOTHING_KNOWN
    answers: dict[int, GroupAnswers] = field(default_factory=dict)
    """Computed and not yet forgotten row groups of the present lease."""
    down_bytes_per_s: float = 0.0
    first_told: bool = False

    def run(self) -> None:
        """Live until told to stop; raise RejectedError when the gateway does not want this car."""
        clock, crew = _Clock(), Crew(self.worker, self.heard.put)
        agent, look_at, running = parked(clock.now()), time.monotonic(), True
        while running:
            event = self._next(crew, agent, look_at)
            if event is None:
                look_at = time.monotonic() + LOOK_EVERY_S
                event = self._look(agent, crew, clock.now())
            agent, actions = step(agent, event, self.dials, now=clock.now())
            running = self._do(actions, agent, crew)
            if asks_when_it_looks(agent, now=clock.now()):
                look_at = time.monotonic()
        crew.close()

    def _next(self, crew: Crew, agent: n.Agent, look_at: float) -> n.Event | None:
        """Return what happened next, or None when it is time to look at the signals."""
        left = look_at - time.monotonic()
        if left <= 0:
            return None
        try:
            message = self.heard.get(timeout=left)
        except queue.Empty:
            return None
        match message:
            case Broken():
                crew.close()
                raise message.error
            case FromWorker() | WorkerEnded():
                return self._from_crew(message, crew, agent)
            case event:
                return event

    def _from_crew(self, message: FromCrew, crew: Crew, agent: n.Agent) -> n.Event | None:
        lease = lease_of(agent)
        match crew.note(message):
            case Computed() as done:
                return self._computed(done, crew) if lease is not None and done.lease_id == lease.lease_id else None
            case Failed() as failed:
                say("work failed", level=logging.ERROR, lease=failed.lease_id, detail=failed.detail)
                kind: Literal["refused", "unreached"] = "refused" if failed.refused else "unreached"
                return n.WorkFailed(lease_id=failed.lease_id, kind=kind, detail=failed.detail)
            case Lost() as lost:
                if lease is None:
                    return None
                say("worker died", level=logging.ERROR, lease=lease.lease_id, detail=lost.detail)
                return n.WorkFailed(lease_id=lease.lease_id, kind="crashed", detail=lost.detail)
            case None:
                return None
            case _ as never:
                assert_never(never)

    def _computed(self, done: Computed, crew: Crew) -> n.Event:
        """Keep a row group's answers, and what was drawn since the one before."""
        if not self.first_told:
            self.first_told = True
            say("first answers", lease=done.lease_id)
        drawn = self.account.cut()
        if not crew.at_work:
            self.account.end()
        self.answers[done.row_group] = GroupAnswers(table=done.answers, drawn=drawn)
        self.down_bytes_per_s = done.down_bytes_per_s
        return n.RowGroupDone(lease_id=done.lease_id, row_group=done.row_group, busy_s=drawn.busy_s)

    def _look(self, agent: n.Agent, crew: Crew, now: datetime) -> n.Event:
        self.reading = self.source.current()
        self._hear_power()
        crew.look()
        latch = decide(agent.latch, self.reading, self.limits, now=now)
        if latch.willing != agent.latch.willing:
            say("willing" if latch.willing else "not willing", why=latch.why_not.detail if latch.why_not else "")
        if not latch.willing and isinstance(agent.phase, n.Parked):
            crew.kill(idle_too=True)
        return n.Looked(latch=latch)

    def _hear_power(self) -> None:
        if isinstance(self.account.meter, PowerSignal):
            watts = self.reading.signals.get(self.power_signal)
            known = isinstance(watts, int | float) and watts >= 0
            self.account.meter.saw(float(watts) if known and watts is not None else None)

    def _do(self, actions: n.Actions, agent: n.Agent, crew: Crew) -> bool:
        """Do what the agent said; return False when it is time to end."""
        for action in actions:
            if isinstance(action, n.Exit):
                return False
            self._do_one(action, agent, crew)
        return True

    def _do_one(self, action: n.Action, agent: n.Agent, crew: Crew) -> None:
        match action:
            case n.StartWork():
                say("work starts", lease=action.lease.lease_id, shard=action.lease.shard_id, row_group=action.start)
                self.account.begin()
                crew.start(action.lease, sorted(set(range(action.start, action.lease.row_groups)) - action.ahead))
            case n.KillWork():
                crew.kill(idle_too=False)
                self.account.end()
            case n.Forget():
                self.answers.clear()
                self.account.reset()
            case n.Poll() | n.Beat() | n.DeliverPart() | n.Release():
                self._call(action, agent)
            case n.Exit():
                pass
            case _ as never:
                assert_never(never)

    def _call(self, action: n.Poll | n.Beat | n.DeliverPart | n.Release, agent: n.Agent) -> None:
        match action:
            case n.Poll():
                self.calls.poll(self._poll_request(agent))
            case n.Beat():
                self.calls.beat(action, self.account.whole_wh(), self._told_signals())
            case n.DeliverPart():
                self.calls.deliver(make_part(action.lease, action.start, action.stop, self.answers))
            case n.Release():
                self.calls.release(action, self.account.whole_wh())
            case _ as never:
                assert_never(never)

    def _told_signals(self) -> dict[str, float | bool | str | None]:
        """Return the signals that the fleet uses; a vehicle has thousands of others, which are nobody's business."""
        return {name: value for name, value in self.reading.signals.items() if name in _TOLD}

    def _poll_request(self, agent: n.Agent) -> PollRequest:
        latch, departure, trip = agent.latch, self.reading.departure_at, self.reading.next_trip_at
        return PollRequest(
            signals=self._told_signals(),
            hardware=self.hardware,
            willing=latch.willing,
            unwilling_reason=f"{latch.why_not.reason}: {latch.why_not.detail}" if latch.why_not else "",
            cached_models=cached_models(self.worker.cache),
            link_down_bytes_per_s=self.down_bytes_per_s,
            reserve_soc=self.reading.reserve_soc,
            departure_at=departure.isoformat() if departure else None,
            next_trip_at=trip.isoformat() if trip else None,
        )


class _Clock:
    """Time that never jumps: the wall clock at the start, and what has passed since."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._mono = time.monotonic()

    def now(self) -> datetime:
        return self._began + timedelta(seconds=time.monotonic() - self._mono)
