"""The whole cell in virtual time: one seed, one story. Real statements on a real PostgreSQL; the rest is simulated."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from faults.simulation.cars import FORGED, Message, Poll
from faults.simulation.cell import PURPOSES, SimulatedCell
from faults.simulation.dials import CALM, Dials
from faults.simulation.faulty import CrashedError
from faults.simulation.gateways import SimulatedGateway, failing
from ledger_nights import no, yes

from fleetbatch.errors import TransientError
from fleetbatch.ledger.messages import Beat, ConsentChange, Delivery, Release
from fleetbatch.units import CarId, ShardId


class World(SimulatedCell):
    """Everything that happens to one cell."""

    def begin(self) -> None:
        """Enrol cars and open orders."""
        self._turn_clock()
        self._enrol(range(1, self.dials.cars + 1))
        for _ in range(self.dials.orders):
            self.mornings.open_next(self.database_now)

    def tick(self) -> None:
        """Let everybody live for a moment."""
        self.ticks += 1
        self.now += self.dials.tick
        if self.chance.random() < self.dials.step_back:
            self.behind += timedelta(seconds=self.chance.randint(1, self.dials.step_back_s))
        self._turn_clock()
        self._outage()
        self._owners()
        self.events += self.money.change(list(self.cars))
        self._cars_speak()
        self._gateways_answer()
        self._gateways_serve()
        self._trusted()
        self._nights()
        if self.ticks % self.dials.sound_every == 0:
            self.look()

    def calm_down(self) -> None:
        """End the bad day: everybody is well, willing and honest from now on."""
        calm = replace(self.dials, **CALM)  # type: ignore[arg-type] # names and values of the same dataclass
        everybody: list[Any] = [
            self,
            self.network,
            self.cloud,
            self.money,
            self.mornings,
            *self.gateways,
            *self.planners,
            *self.auditors,
        ]
        for one in (*everybody, *self.cars.values()):
            one.dials = calm
        self.store.away = self.store.cut = 0.0
        for car in self.cars.values():
            car.liar = car.zombie = False
        self.decisions = [
            (self.now, yes(car, purpose))
            for car in self.cars
            for purpose in PURPOSES
            if self.witness.consent.get((car, purpose)) is not True
        ]
        self.mornings.resume()
        self.evening = True

    # -- what happens in a tick

    def _outage(self) -> None:
        if self.chance.random() < self.dials.outage:
            away = self.chance.choice((40, 200, 900, 1500))
            for gateway in self.gateways:
                gateway.die(seconds=away)

    def _owners(self) -> None:
        dials, chance = self.dials, self.chance
        for car in list(self.cars):
            dice = chance.random()
            if dice < dials.withdraw:
                purpose = chance.choice(PURPOSES)
                self.decisions.append((self.now, no(car, purpose)))
                self.decisions.append((self.now + timedelta(minutes=chance.uniform(1, 20)), yes(car, purpose)))
            elif dice > 1 - dials.distrust and car not in self.witness.distrusted:
                self._distrust(car)
        due = [change for at, change in self.decisions if at <= self.now]
        self.decisions = [(at, change) for at, change in self.decisions if at > self.now]
        for change in due:
            self._decide(change)

    def _decide(self, change: ConsentChange) -> None:
        """An owner's decision counts from its answer on; one who hears nothing decides again."""
        key = (change.car_id, change.purpose)
        self.witness.consent[key] = None
        self.events += 1
        try:
            failing(self.owner, self.chance, self.dials, lambda: self.owner.set_consent(change))
        except (CrashedError, TransientError):
            self.decisions.append((self.now, change))
            return
        self.witness.consent[key] = change.granted
        if not change.granted:
            self._holds_nothing(change.car_id)

    def _holds_nothing(self, car: int) -> None:
        held = self.observer.execute("SELECT 1 FROM fleetbatch.open_leases WHERE car_id = %s", [car]).fetchall()
        self.witness.check("P4 a withdrawal ends the open lease", car, holds=not held)

    def _distrust(self, car: int) -> None:
        self.events += 1
        try:
            failing(
                self.owner, self.chance, self.dials, lambda: self.planners[0].ledger.revoke_car(CarId(car), "copied")
            )
        except (CrashedError, TransientError):
            return
        self.witness.distrusted.add(car)
        self._holds_nothing(car)
        self._enrol([max(self.cars) + 1])

    def _cars_speak(self) -> None:
        now = self.now
        for car in list(self.cars.values()):
            if car.next_at <= now:
                for message in car.act(now, self.store, self._rows_of):
                    self.network.send(message, now)

    def _gateways_answer(self) -> None:
        alive = [gateway for gateway in self.gateways if gateway.alive]
        messages = self.network.arrived(self.now)
        if not alive:
            return
        shares: list[list[Message]] = [[] for _ in alive]
        for message in messages:
            self.chance.choice(shares).append(message)
        if self.chance.random() < self.dials.overlap:
            self._overlap(alive[0], shares)
            return
        for gateway, share in zip(alive, shares, strict=True):
            self._answer(gateway, share)

    def _overlap(self, gateway: SimulatedGateway, shares: list[list[Message]]) -> None:
        """An owner withdraws while a grant to the same car is under way: one of them is committed first."""
        polls: list[Message] = [message for share in shares for message in share if isinstance(message, Poll)]
        if not polls:
            return
        car = self.chance.choice(polls).car_id
        first, second = self.owner, gateway.ledger
        if self.chance.random() < 0.5:
            first, second = second, first
        self.witness.consent[car, "compute"] = None
        with first.faults.held_open():
            if first is self.owner:
                self.owner.set_consent(no(car))
                self._answer(gateway, polls, calm=True)
            else:
                self._answer(gateway, polls, calm=True)
                self._try_to_withdraw(car)
        if first is self.owner:
            self.witness.consent[car, "compute"] = False
            self._holds_nothing(car)
        self.decisions.append((self.now + timedelta(minutes=2), yes(car)))

    def _try_to_withdraw(self, car: CarId) -> None:
        try:
            self.owner.set_consent(no(car))
        except TransientError:
            return  # it waits for the grant
        self.witness.consent[car, "compute"] = False

    def _answer(self, gateway: SimulatedGateway, messages: list[Message], *, calm: bool = False) -> None:
        ready = [m for m in messages if not isinstance(m, Delivery) or self._confirmed(gateway, m)]
        usual = gateway.dials
        if calm:
            gateway.dials = replace(usual, crash=0.0, again=0.0)
        self.witness.let_go |= {(m.car_id, m.lease_id) for m in ready if isinstance(m, Release)}
        heard, lost = gateway.handle(ready, self._stray)
        gateway.dials = usual
        self.witness.maybe([question for _, question in lost if isinstance(question, Delivery)])
        self.events += len(heard) + len(lost)
        for message, (question, answer) in heard:
            self._hold_against(question, answer)
            car = self.cars.get(message.car_id)
            if car is not None and self.chance.random() >= self.dials.lost:
                car.hear(message, answer, self.now)

    def _hold_against(self, question: Any, answer: Any) -> None:
        witness = self.witness
        if isinstance(question, Beat):
            witness.beaten(question, answer)
        elif isinstance(question, Delivery):
            witness.delivered(question, answer)
        elif isinstance(question, Release):
            witness.released(question, answer)
        else:
            witness.granted(question, answer)

    def _confirmed(self, gateway: SimulatedGateway, part: Delivery) -> bool:
        """Look into the store; a part under a foreign lease or fence goes to the ledger in any case."""
        shard = int(part.lease_id[9:25], 16)
        facts = self.witness.shards.get(shard)
        if facts is None or self.witness.forged(part) or part.signature == FORGED:
            return True
        whole = gateway.checked(part, facts.order, ShardId(shard))
        if whole is False and part.car_id in self.cars:
            self.cars[part.car_id].damaged(part)
        return whole is True

    def _gateways_serve(self) -> None:
        """Sweep, and look for rounds."""
        for place, gateway in enumerate(self.gateways):
            if not gateway.alive or (self.ticks + place) % 2:
                continue
            self.witness.served()
            self.events += 2
            try:
                swept = failing(gateway.ledger, self.chance, self.dials, gateway.ledger.sweep)
                found = failing(gateway.ledger, self.chance, self.dials, gateway.look)
            except CrashedError:
                gateway.die(seconds=20)
                continue
            except TransientError:
                continue
            for lease in swept.expired:
                self.witness.expired(lease)
            if found and found[0] in self.written:
                whole = self.written[found[0]] == found[1]
                self.witness.check("P2 a round is seen as a whole", found, holds=whole)

    def _trusted(self) -> None:
        for planner in self.planners:
            if planner.next_at <= self.database_now:
                self._alone(lambda p=planner: p.plan(self.database_now, self.epochs, self.written))  # type: ignore[misc] # bound early
        for auditor in self.auditors:
            self.events += auditor.tell(self.database_now)
            if self.chance.random() < 0.3:
                self._alone(lambda a=auditor: a.claim(self.database_now, self.busy))  # type: ignore[misc] # bound early
        if self.ticks % 6 == 0:
            self._alone(lambda: self.cloud.compute(self.database_now, self._rows_of))

    def _alone(self, work: Callable[[], object]) -> None:
        """A process that dies here starts again at its next turn."""
        self.events += 1
        try:
            work()
        except (CrashedError, TransientError):
            return

    def _nights(self) -> None:
        if self.ticks % self.dials.night_every == 0:
            self.mornings.look(self.database_now)
        if self.mornings.nights and self.chance.random() < self.dials.operator:
            self.events += 1
            self.mornings.operate()
        while not self.evening and len(self.mornings.nights) < self.dials.orders:
            self.mornings.open_next(self.database_now)


@contextmanager
def world(url: str, seed: int, dials: Dials) -> Iterator[World]:
    """Give a cell at eight in the evening, in an empty database that is migrated."""
    with ExitStack() as stack:
        found = World(url, seed, dials, stack)
        found.begin()
        yield found
