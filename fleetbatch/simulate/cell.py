"""A night event by event: real agents talk to a gateway that does what ours does, in front of real shard machines."""

import math
from collections import deque
from datetime import datetime, timedelta

import numpy as np

from fleetbatch.car import nouns as n
from fleetbatch.ledger import life
from fleetbatch.ledger.messages import Delivered, Released, Terminal
from fleetbatch.ledger.states import ShardState
from fleetbatch.simulate.agenda import Agenda
from fleetbatch.simulate.deliveries import Log
from fleetbatch.simulate.desk import OPEN, Desk
from fleetbatch.simulate.driver import SECOND, Call, Driver, unreached
from fleetbatch.simulate.meter import CRASHED, LATE, LEFT, REFUSED, STOPPED, Meter
from fleetbatch.simulate.rounds import Offers
from fleetbatch.simulate.telemetry import CLOUD, NOBODY, Standing
from fleetbatch.simulate.world import Bools, Floats, Ints, World
from fleetbatch.units import Fence

LOOK, GROUP, CRASH, EXPIRE, JUDGE, DEADLINE = range(6)


class Cell:
    """The whole night's state; `advance` lives from one round to the next."""

    def __init__(self, world: World) -> None:
        """Plug in who is there, and line up what will happen anyway."""
        self.world, self.epoch = world, world.scenario.starts_at
        self.desk, self.log, self.meter = Desk(world), Log(), Meter(world)
        reserve = world.fleet.plugs.reserve_at().tolist()
        self.cars = [Driver.at_plug(i, world.fleet.plugs, reserve[i], self.epoch) for i in range(len(world.fleet))]
        self.agenda, self.next_round_s = Agenda(), 0.0
        self.offers = Offers(first=np.zeros(len(self.cars) + 1, np.int64), shard=np.zeros(0, np.int64))
        self.spoiled = np.zeros(len(world.work), bool)
        self.void_s = np.full(len(world.work), -np.inf)
        self.caught = np.zeros(len(self.cars), bool)
        self.cached = world.fleet.cached.copy()
        for car in np.flatnonzero(world.fleet.consent).tolist():
            self._look_at(car, self.cars[car].charge.at_s)
        for car in np.flatnonzero(np.isfinite(world.fleet.crash_s)).tolist():
            self.agenda.note(float(world.fleet.crash_s[car]), CRASH, car, 0)
        for deadline in np.unique(world.work.deadline_s).tolist():
            self.agenda.note(deadline, DEADLINE, 0, 0)

    def settle(self, at_s: float) -> None:
        """Let everything happen that is due by then."""
        self._run(at_s)
        self._give_up(self.epoch + timedelta(seconds=at_s), at_s)

    def advance(self, offers: Offers, from_s: float, to_s: float) -> None:
        """Hold a round's offers and live to the next."""
        self.offers, self.next_round_s = offers, to_s
        self.desk.give_away(offers.given_away, self.epoch + timedelta(seconds=from_s))
        for car in self.cars:
            car.turn = int(offers.first[car.place])
            if isinstance(car.life.phase, n.Parked) and car.life.latch.willing and not car.silent:
                self._look_at(car.place, from_s)
        self._run(to_s)

    def standing(self, at_s: float, since_s: float) -> Standing:
        """Return how things stand at a round."""
        heard = np.array([car.place for car in self.cars if car.heard_s > max(since_s - 1.0, -SECOND)], np.int64)
        some = [self.cars[place] for place in heard.tolist()]
        for car in some:
            car.charge.pass_time(min(at_s, car.leave_s))
        plugged = self.world.fleet.plugs.leave_s[heard] > at_s
        cached = self.cached.copy()
        for car in self.cars:
            if car.working and car.loaded_s > at_s:
                cached[self._model(car)] = False
        running = np.full(len(self.cars), NOBODY, np.int64)
        holder = self.desk.holders()
        held = np.flatnonzero(holder >= 0)
        running[holder[held]] = held
        return Standing(
            heard=heard,
            heard_ago_s=np.array([max(0.0, at_s - car.heard_s) for car in some]),
            plugged=plugged,
            willing=np.array([car.life.latch.willing for car in some], bool) & plugged,
            missing_wh=np.array([car.charge.missing_wh for car in some]),
            drawn_w=np.array([car.charge.drawn_w for car in some]) * plugged,
            cached=cached,
            running=running,
            holder=holder,
            open=self.desk.among(OPEN),
            done=self.desk.done(),
            caught=self.caught,
        )

    def take_by_cloud(self, shards: Ints, ends_s: Floats) -> None:
        """Trusted machines compute shards that nobody holds."""
        for place, ends in zip(shards.tolist(), ends_s.tolist(), strict=True):
            lease = self.desk.compute_whole(place, CLOUD, self.epoch + timedelta(seconds=ends))
            if lease is not None:
                self._note(CLOUD, place, (lease.start, lease.row_groups), ends)
            if lease is not None and self.desk.shards[place].state is ShardState.RETURNED:
                self.agenda.note(ends + self.world.scenario.audit_after.total_seconds(), JUDGE, place, lease.fence)

    def hand_in(self, at_s: float) -> None:
        """The night ends; what was delivered is in the log already, and what came back is still audited."""
        self._run(at_s + 1e-3)
        for car in self.cars:
            phase = car.life.phase
            if car.working and isinstance(phase, n.Holding):
                self._lose(car, at_s, LATE)
                self.meter.lost_s[LATE] += (phase.held.done - phase.held.sent) * self._tau(car)[0]
            car.work(at_s, on=False)
            car.silent = True
        self._run(at_s + self.world.scenario.audit_after.total_seconds() + 1.0)

    def charges_later(self) -> int:
        """Return how many charges ended later, or lower when the owner left, than without compute."""
        for car in self.cars:
            car.charge.pass_time(car.leave_s)
        return sum(car.charge.later(car.leave_s) for car in self.cars)

    @property
    def valid(self) -> Bools:
        """Return which shards are audited, or made by trusted machines alone."""
        return self.desk.among(frozenset({ShardState.VALID, ShardState.DONE}))

    def _run(self, until_s: float) -> None:
        for us, kind, one, other in self.agenda.due(until_s):
            self._happen(kind, us, one, other)

    def _happen(self, kind: int, us: int, one: int, other: int) -> None:
        now, at_s = self.epoch + timedelta(microseconds=us), us / SECOND
        match kind:
            case 0 if self.cars[one].look_us == us and not self.cars[one].silent:
                self._tell(self.cars[one], self.cars[one].look(at_s, now), now, at_s)
            case 1 if self.cars[one].token == other and self.cars[one].working:
                self._group(self.cars[one], now, at_s)
            case 2:
                self._crash(self.cars[one], at_s)
            case 3:
                again = self.desk.expire(one, now)
                if again is not None:
                    self.agenda.note((again - self.epoch).total_seconds(), EXPIRE, one, 0)
            case 4:
                self._judge(one, other, now, at_s)
            case 5:
                self._give_up(now, at_s)
            case _:
                return

    def _tell(self, car: Driver, event: n.Event, now: datetime, at_s: float) -> None:
        """Let the agent decide, do what it says, and tell it the answers, until it has nothing more to say."""
        waiting = deque([event])
        while waiting:
            for action in car.tell(waiting.popleft(), now):
                answer = self._do(car, action, now, at_s)
                if answer is not None:
                    waiting.append(answer)
            phase = car.life.phase
            if not waiting and isinstance(phase, n.Parked) and phase.poll_at <= now and car.life.latch.willing:
                waiting.append(n.Looked(latch=car.life.latch))
        self._look_at(car.place, car.next_look_s(at_s))

    def _do(self, car: Driver, action: n.Action, now: datetime, at_s: float) -> n.Event | None:
        match action:
            case n.Poll() | n.Beat() | n.DeliverPart() | n.Release():
                return self._call(car, action, now, at_s)
            case n.StartWork():
                self._start(car, at_s)
            case n.KillWork():
                self._kill(car, at_s)
        return None

    def _call(self, car: Driver, call: Call, now: datetime, at_s: float) -> n.Event:
        begins, ends = self.world.fleet.outage_s[car.place]
        if begins <= at_s < ends:
            return unreached(call)
        car.heard_s = at_s
        match call:
            case n.Poll():
                return self._poll(car, now, at_s)
            case n.Beat(lease=lease):
                said = self.desk.beat(car.shard, car.place, lease.fence, now)
                lease_for = self.world.scenario.lease_for
                return n.BeatAnswered(lease_id=lease.lease_id, go_on=said.go_on, expires_in=lease_for)
            case n.DeliverPart():
                return self._deliver(car, call, now, at_s)
            case n.Release(lease=lease):
                answer = self.desk.let_go(car.shard, (car.place, lease.fence), call.reason, now)
                if isinstance(answer, Released):
                    return n.Released(lease_id=lease.lease_id)
                return n.Ended(lease_id=lease.lease_id, reason=str(getattr(answer, "reason", "")))

    def _poll(self, car: Driver, now: datetime, at_s: float) -> n.Event:
        wait = timedelta(seconds=max(self.next_round_s - at_s, 1e-3))
        last = int(self.offers.first[car.place + 1])
        held = self.desk.shards[car.shard].lease if car.shard >= 0 else None
        free = held is None or held.car_id != car.place + 1
        while free and car.life.latch.willing and car.turn < last:
            place = int(self.offers.shard[car.turn])
            car.turn += 1
            lease = self.desk.take(place, car.place, now)
            if lease is not None:
                car.shard = place
                self.agenda.note(at_s + lease.expires_in_s, EXPIRE, place, 0)
                return n.PollAnswered(lease=lease, retry_after=timedelta(0), chance=0.0)
        return n.PollAnswered(lease=None, retry_after=wait, chance=0.0)

    def _deliver(self, car: Driver, part: n.DeliverPart, now: datetime, at_s: float) -> n.Event:
        lease, place = part.lease, car.shard
        before = self.desk.shards[place].done_through
        answer = self.desk.deliver(place, (car.place, lease.fence), (part.start, part.stop), now)
        match answer:
            case Delivered(done_through=done, complete=complete):
                self._note(car.place, place, (before, done), at_s)
                if complete:
                    wait = self.world.scenario.audit_after.total_seconds()
                    self.agenda.note(at_s + wait, JUDGE, place, lease.fence)
                return n.PartDelivered(lease_id=lease.lease_id, done_through=done, complete=complete)
            case Terminal(reason=reason):
                return n.Ended(lease_id=lease.lease_id, reason=reason)
            case _:
                return n.PartRefused(lease_id=lease.lease_id, detail="refused")

    def _note(self, car: int, place: int, span: tuple[int, int], at_s: float) -> None:
        who, what, start, stop = np.array([[car], [place], [span[0]], [span[1]]], np.int64)
        self.log.add(who, what, start, stop, np.array([at_s]))
        self.spoiled[place] |= span[1] > span[0] and car >= 0 and bool(self.world.fleet.bad[car])

    def _tau(self, car: Driver) -> tuple[float, float]:
        tau, fetch = self.world.row_group_s(np.array([car.place]), np.array([car.shard]))
        return float(tau[0]), float(fetch[0])

    def _start(self, car: Driver, at_s: float) -> None:
        tau, fetch = self._tau(car)
        model = self._model(car)
        load = 0.0 if self.cached[model] else float(self.world.load_s(np.array([car.place]), np.array([car.shard]))[0])
        self.cached[model], car.loaded_s = True, at_s + load
        car.work(at_s, on=True)
        car.since_s = at_s
        self.meter.begin(fetch, load)
        self.agenda.note(at_s + load + fetch + tau, GROUP, car.place, car.token)

    def _model(self, car: Driver) -> tuple[int, int]:
        """Return the place among `cached` of the model that the car's worker uses."""
        return car.place, int(self.world.work.workload[car.shard])

    def _group(self, car: Driver, now: datetime, at_s: float) -> None:
        """A row group is computed; the next begins at once."""
        phase = car.life.phase
        assert isinstance(phase, n.Holding)
        lease, number = phase.held.lease, phase.held.done
        spent, tau = at_s - car.since_s, self._tau(car)[0]
        self.meter.spend(car.place, car.since_s, at_s)
        car.since_s = at_s
        if number + 1 < lease.row_groups:
            self.agenda.note(at_s + tau, GROUP, car.place, car.token)
        else:
            car.work(at_s, on=False)
        self._tell(car, n.RowGroupDone(lease_id=lease.lease_id, row_group=number, busy_s=spent), now, at_s)

    def _kill(self, car: Driver, at_s: float) -> None:
        if car.working:
            missing = self.desk.shards[car.shard].state is ShardState.MISSING
            self._lose(car, at_s, LEFT if at_s >= car.leave_s else LATE if missing else STOPPED)
            car.work(at_s, on=False)

    def _lose(self, car: Driver, at_s: float, why: int) -> None:
        self.meter.spend(car.place, car.since_s, at_s)
        self.meter.lost_s[why] += at_s - car.since_s
        if car.loaded_s > at_s:
            self.cached[self._model(car)] = False

    def _crash(self, car: Driver, at_s: float) -> None:
        """The car falls silent with whatever it had not delivered."""
        phase = car.life.phase
        if car.working and isinstance(phase, n.Holding):
            self._lose(car, at_s, CRASHED)
            self.meter.lost_s[CRASHED] += (phase.held.done - phase.held.sent) * self._tau(car)[0]
        car.work(at_s, on=False)
        car.silent = True

    def _judge(self, place: int, fence: int, now: datetime, at_s: float) -> None:
        passed = not self.spoiled[place]
        if not self.desk.step(place, life.Judge(fence=Fence(fence), passed=passed), now) or passed:
            return
        bad, lost_s = self.log.refused(self.world, np.array([place]), self.void_s)
        self.caught[bad] = True
        self.meter.lost_s[REFUSED] += lost_s
        self.void_s[place], self.spoiled[place] = at_s, False

    def _give_up(self, now: datetime, at_s: float) -> None:
        due = np.flatnonzero(self.world.work.deadline_s <= at_s)
        for place in due.tolist():
            if self.desk.shards[place].state in OPEN:
                self.desk.step(place, life.GiveUp(reason="the deadline is here"), now)

    def _look_at(self, car: int, at_s: float) -> None:
        if math.isfinite(at_s):
            self.cars[car].look_us = math.ceil(at_s * SECOND)
            self.agenda.note(at_s, LOOK, car, 0)
