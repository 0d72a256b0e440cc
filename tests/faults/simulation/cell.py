"""What a cell consists of: a database, processes with a ledger each, cars, and the clock by which all of them live."""

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from faults.simulation.cars import SimulatedCar
from faults.simulation.dials import Dials
from faults.simulation.faulty import FaultyLedger
from faults.simulation.gateways import SimulatedGateway
from faults.simulation.money import SimulatedMoney
from faults.simulation.mornings import Mornings
from faults.simulation.network import Network
from faults.simulation.sound import SIDE, unsound
from faults.simulation.store import SimulatedStore
from faults.simulation.trusted import Epochs, SimulatedAuditor, SimulatedCloud, SimulatedPlanner
from faults.simulation.witness import Witness
from ledger_nights import EVENING, enrolment, yes

from fleetbatch.gateway.gate import Gate
from fleetbatch.ledger.dials import BY_KEY
from fleetbatch.ledger.messages import ConsentChange, LedgerDials
from fleetbatch.nouns import Cell as Nouns
from fleetbatch.units import CellName, RoundId

CELL = Nouns(
    name=CellName("eu-1"), region="eu", ledger_url="", gateway_ledger_url="", gateway_url="http://gateway.invalid"
)
BOOK_EVERY = 4
"""Looks at the tables between two at the whole book, which is only added to: what is wrong in it stays."""


class Here(Executor):
    """Nobody runs anything in the background of virtual time."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise NotImplementedError


class SimulatedCell:
    """Everything that lives in one cell; `World` says what happens to it."""

    def __init__(self, url: str, seed: int, dials: Dials, stack: ExitStack) -> None:
        self.url = url
        self.dials = dials
        self._stack = stack
        self.chance = chance = random.Random(seed)
        self.now = EVENING
        self.behind = timedelta(0)
        """How far the database's clock was set back in all; cars and gateways live by their own."""
        self.ticks = self.events = 0
        self.evening = False
        self.witness = Witness(dials)
        self.network = Network(chance, dials)
        self.store = SimulatedStore(chance)
        self.store.away, self.store.cut = dials.store_away, dials.cut_upload
        self.observer = stack.enter_context(psycopg.connect(url, autocommit=True))
        self.observer.execute(SIDE.encode())
        self.ledgers: list[FaultyLedger] = []
        self.gateways = [self._gateway(self._ledger(stack, patient=False)) for _ in range(dials.gateways)]
        self.owner = self._ledger(stack, patient=False)
        self.money = SimulatedMoney(self._ledger(stack, patient=True), self.witness, seed, dials)
        trusted = [self._ledger(stack, patient=True) for _ in range(5)]
        self.planners = [SimulatedPlanner(ledger, self.witness, chance, dials) for ledger in trusted[:2]]
        self.auditors = [SimulatedAuditor(one, self.witness, self.store, chance, dials) for one in trusted[2:4]]
        self.cloud = SimulatedCloud(trusted[4], self.witness, self.store, chance, dials)
        archives = Path(stack.enter_context(TemporaryDirectory(prefix="fleetbatch-archives-")))
        self.mornings = Mornings(trusted[4], self.witness, self.store, chance, dials, folder=archives)
        self.cars: dict[int, SimulatedCar] = {}
        self.decisions: list[tuple[datetime, ConsentChange]] = []
        self.epochs = Epochs()
        self.written: dict[RoundId, int] = {}
        self.busy: dict[tuple[int, int], datetime] = {}

    @property
    def database_now(self) -> datetime:
        return self.now - self.behind

    def reconnect(self) -> None:
        """The database was restarted."""
        self.observer.close()
        self.observer = self._stack.enter_context(psycopg.connect(self.url, autocommit=True))

    def look(self) -> None:
        """Look at every table."""
        for rule, rows in unsound(self.observer).items():
            self.witness.broken(rule, rows)
        if self.witness.seen["tables"] % BOOK_EVERY == 0:
            self.money.look(self.observer)
        self.witness.seen["tables"] += 1

    def _turn_clock(self) -> None:
        self.witness.now = self.database_now
        for ledger in self.ledgers:
            ledger.turn_clock(self.database_now)

    def _ledger(self, stack: ExitStack, *, patient: bool) -> FaultyLedger:
        """A ledger of one process; one that is not patient gives up where it meets another's lock."""
        dials = LedgerDials(
            connections=1,
            retries=2,
            outage_after=self.dials.outage_after,
            audit_claim=self.dials.audit_claim,
            planner_lock=self.dials.planner_lock,
            stalled_after=self.dials.stalled_after,
            batch_rows=16,  # less than an order has shards
            decisions_a_day=10_000,  # owners change their minds by the minute
            session={**BY_KEY} if patient else {**BY_KEY, "lock_timeout": "10ms"},
            retry_after=timedelta(0),  # one thread plays all: what holds a lock does not let go while another waits
        )
        ledger = FaultyLedger(self.url, dials)
        ledger._holder = f"process {len(self.ledgers)}"  # its own name is drawn anew in every run
        stack.callback(ledger.close)
        self.ledgers.append(ledger)
        return ledger

    def _gateway(self, ledger: FaultyLedger) -> SimulatedGateway:
        gate = Gate(
            cell=CELL,
            deployment_key=bytes(32),
            store=self.store.as_store(),
            ledger=ledger,
            executor=Here(),
            clock=lambda: self.now,
        )
        return SimulatedGateway(gate, ledger, self.chance, self.dials)

    def _enrol(self, cars: Any) -> None:
        ledger = self.planners[0].ledger
        ledger.enrol([enrolment(car) for car in cars])
        for car in cars:
            self.cars[car] = SimulatedCar(car, self.chance, self.dials, now=self.now)
            for purpose in PURPOSES:
                if self.chance.random() < 0.9:
                    ledger.set_consent(yes(car, purpose))
                    self.witness.consent[car, purpose] = True
                else:
                    self.decisions.append((self.now + timedelta(minutes=10), yes(car, purpose)))

    def _rows_of(self, shard: int) -> tuple[int, ...]:
        return self.witness.shards[shard].row_group_rows

    def _stray(self) -> int | None:
        """Now and then a gateway grants by an old plan: any shard that there is, or was."""
        if self.chance.random() > 0.15:
            return None
        if self.witness.exhausted and self.chance.random() < 0.3:
            return self.chance.choice(sorted(self.witness.exhausted))
        night = self.chance.randint(max(1, self.mornings.count - 4), self.mornings.count)
        return (night << 20) + self.chance.randrange(self.dials.shards)


PURPOSES = ("compute", "data:confidential")
