"""The trusted side: two planners of whom one sleeps, two auditors who do the same work, and the cloud lane."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa
from faults.simulation.cars import RowsOf
from faults.simulation.dials import Dials
from faults.simulation.facts import tiled
from faults.simulation.faulty import CrashedError, FaultyLedger
from faults.simulation.gateways import failing
from faults.simulation.store import RIGHT, SimulatedStore, answers, digest, part_key
from faults.simulation.witness import Witness
from ledger_nights import judge, request

from fleetbatch.errors import TransientError
from fleetbatch.ledger.messages import (
    AuditTask,
    AuditVerdict,
    Delivered,
    Delivery,
    FencedOff,
    Granted,
    PlannerLock,
)
from fleetbatch.units import CLOUD_CAR, CellName, RoundId, Sha256

CELL = CellName("eu-1")


@dataclass(slots=True)
class Epochs:
    """What the planners' lock has come to."""

    heard: int = 0
    """The highest epoch that anyone was given."""
    unheard: int = 0
    """Calls since then that nobody heard the answer of; each may have taken the lock."""


class SimulatedPlanner:
    """A dispatcher: plans at random, with the lock that it holds or believes to hold."""

    def __init__(self, ledger: FaultyLedger, witness: Witness, chance: random.Random, dials: Dials) -> None:
        self.ledger = ledger
        self.witness = witness
        self.chance = chance
        self.dials = dials
        self.lock: PlannerLock | None = None
        self.next_at = witness.now

    def plan(self, now: datetime, epochs: Epochs, written: dict[RoundId, int]) -> None:
        """Write a round, or find that another plans."""
        self.next_at = now + timedelta(seconds=self.chance.uniform(20, 40))
        slept = self.chance.random() < 0.15
        if not slept or self.lock is None:  # who slept goes on as if no time had passed
            epochs.unheard += 1
            self.lock = failing(self.ledger, self.chance, self.dials, lambda: self.ledger.lock_planner(CELL))
            epochs.unheard -= 1
            if self.lock is None:
                return
            forward = self.lock.epoch >= epochs.heard
            self.witness.check("P2 a planner's epoch never goes back", self.lock, holds=forward)
            epochs.heard, epochs.unheard = max(epochs.heard, self.lock.epoch), 0
            self.witness.locked(self, self.dials.planner_lock)
            self.ledger.finish_giving_up()
        lock, offers = self.lock, self._offers()
        try:
            round_id = failing(self.ledger, self.chance, self.dials, lambda: self.ledger.write_round(lock, offers, {}))
        except FencedOff:
            lost = lock.epoch < epochs.heard + epochs.unheard
            self.witness.check("P2 only who lost the lock is fenced off", lock, holds=lost)
            self.lock = None
            return
        self.witness.wrote(self, self.dials.planner_lock)
        if round_id is not None:
            written[round_id] = offers.num_rows
        if self.chance.random() < 0.1:
            self.next_at = now + timedelta(minutes=self.chance.uniform(1, 4))

    def _offers(self) -> pa.Table:
        shards = self.ledger.open_shards()
        free = shards.filter(pa.compute.is_null(shards["held_by_car"]))["shard_id"].to_numpy().tolist()
        cars = self.ledger.cars()
        idle = cars.filter(pa.compute.is_null(cars["open_lease"]))["car_id"].to_numpy().tolist()
        self.chance.shuffle(free)
        queues = [
            (car, seq, shard)
            for car, one in zip(idle, _pairs(free, len(idle)), strict=False)
            for seq, shard in enumerate(one)
        ]
        return _assignments(queues)


def _pairs(shards: list[int], cars: int) -> list[list[int]]:
    """Two offers a car; the second is another car's first."""
    if not shards:
        return []
    return [[shards[n % len(shards)], shards[(n + 1) % len(shards)]] for n in range(cars)]


def _assignments(queues: list[tuple[int, int, int]]) -> pa.Table:
    count = len(queues)
    table = np.array(queues, np.uint64).reshape(count, 3)
    zeros = np.zeros(count)
    return pa.table(
        {
            "car_id": table[:, 0],
            "seq": table[:, 1].astype(np.uint16),
            "shard_id": table[:, 2],
            "copy": zeros.astype(np.uint8),
            "rg_start": zeros.astype(np.uint16),
            "rg_end": zeros.astype(np.uint16),
            "start_s": zeros.astype(np.float32),
            "end_s": zeros.astype(np.float32),
            "p_finish": zeros.astype(np.float32),
            "expected_units": zeros.astype(np.float32),
            "speculative": zeros.astype(bool),
            "reason": zeros.astype(np.uint8),
        }
    )


class SimulatedAuditor:
    """An auditor: claims, takes its time, judges by what lies in the store, and sometimes says it twice."""

    def __init__(
        self, ledger: FaultyLedger, witness: Witness, store: SimulatedStore, chance: random.Random, dials: Dials
    ) -> None:
        self.ledger = ledger
        self.witness = witness
        self.store = store
        self.chance = chance
        self.dials = dials
        self.work: list[tuple[datetime, AuditVerdict]] = []

    def claim(self, now: datetime, busy: dict[tuple[int, int], datetime]) -> None:
        """Claim returned shards; `busy` says until when each is another's. Who dies forgets what it claimed."""
        if self.chance.random() < self.dials.crash:
            self.work.clear()
        tasks = failing(self.ledger, self.chance, self.dials, lambda: self.ledger.to_audit(self.chance.choice((3, 20))))
        for task in tasks:
            free = busy.get((task.shard_id, task.fence), now) <= now
            self.witness.check("P3 a claimed shard is one auditor's", task.shard_id, holds=free)
            self._covers(task)
            until = now + self.dials.audit_claim
            self.witness.check("P3 a claim is kept for its time", task, holds=task.claimed_until == until)
            busy[task.shard_id, task.fence] = until
            wait = timedelta(seconds=self.chance.choice((10, 10, 60, 200, 500, 1000)))
            self.work.append((now + wait, self._verdict(task)))

    def tell(self, now: datetime) -> int:
        """Send the verdicts that are ready; return how many were sent."""
        ready = [verdict for at, verdict in self.work if at <= now]
        self.work = [(at, verdict) for at, verdict in self.work if at > now]
        for verdict in ready:
            for _ in range(2 if self.chance.random() < 0.1 else 1):
                self._record(verdict, now)
            if self.chance.random() < self.dials.told_late:
                longest_min = self.dials.told_late_max / timedelta(minutes=1)
                self.work.append((now + timedelta(minutes=self.chance.uniform(2, longest_min)), verdict))
        return len(ready)

    def _record(self, verdict: AuditVerdict, now: datetime) -> None:
        facts = self.witness.shards.get(verdict.shard_id)
        try:
            counted = failing(self.ledger, self.chance, self.dials, lambda: self.ledger.record_audit(verdict))
        except (CrashedError, TransientError):
            self.work.append((now + timedelta(seconds=20), verdict))  # nobody heard whether it counted
            counted = None
        if facts is None:
            return
        if counted:
            self.witness.judged(verdict.shard_id, verdict.fence)
            facts.valid = verdict.passed
        if not verdict.passed:
            lies = {one.lease_id for one in verdict.findings if one.disagreements}
            wrong = {car for lease, car in self.witness.owners.items() if lease in lies}
            self.witness.refused_by_audit(verdict.shard_id, wrong=wrong, surely=bool(counted))

    def _covers(self, task: AuditTask) -> None:
        spans = [(part.start, part.stop) for part in task.parts]
        self.witness.check("P2 what is audited is whole", (task.shard_id, spans), holds=tiled(spans, task.row_groups))

    def _verdict(self, task: AuditTask) -> AuditVerdict:
        """Judge; of some shards the auditor looks no further than at what is wrong."""
        verdict = judge(task, wrong=self._liars(task))
        if verdict.passed or task.shard_id % 2:
            return verdict
        return replace(verdict, findings=tuple(one for one in verdict.findings if one.disagreements))

    def _liars(self, task: AuditTask) -> frozenset[int]:
        return frozenset(p.car_id for p in task.parts if not self.store.objects.get(p.key, b"").startswith(RIGHT))


class SimulatedCloud:
    """Trusted machines for what cars no longer get; they may die half-way, too."""

    def __init__(
        self, ledger: FaultyLedger, witness: Witness, store: SimulatedStore, chance: random.Random, dials: Dials
    ) -> None:
        self.ledger = ledger
        self.witness = witness
        self.store = store
        self.chance = chance
        self.dials = dials

    def compute(self, now: datetime, rows_of: RowsOf) -> int:
        """Take some shards and deliver them; return how many were taken."""
        due = self.ledger.cloud_shards(5, deadline_before=now + timedelta(minutes=10))
        asked = [replace(request(CLOUD_CAR, shard.shard_id)) for shard in due]
        answers_ = failing(self.ledger, self.chance, self.dials, lambda: self.ledger.grant(asked)) if asked else []
        for question, answer in zip(asked, answers_, strict=True):
            self.witness.granted(question, answer)
            if isinstance(answer, Granted):
                self._deliver(answer, rows_of(answer.shard_id))
        return len(asked)

    def _deliver(self, lease: Granted, rows: tuple[int, ...]) -> None:
        for start in range(lease.start, len(rows)):
            if self.chance.random() < self.dials.crash:
                return  # dies; its lease expires
            part = self._part(lease, start, rows[start])
            self.witness.maybe([part])
            [answer] = failing(self.ledger, self.chance, self.dials, partial(self.ledger.deliver, [part]))
            self.witness.delivered(part, answer)
            if not isinstance(answer, Delivered):
                return

    def _part(self, lease: Granted, start: int, rows: int) -> Delivery:
        empty = Delivery(
            car_id=CLOUD_CAR,
            lease_id=lease.lease_id,
            fence=lease.fence,
            start=start,
            stop=start + 1,
            rows=rows,
            size_bytes=0,
            sha256=Sha256(""),
            energy_wh=1.0,
            energy_source="estimated",
            busy_s=1.0,
        )
        data = answers(empty, wrong=False)
        part = replace(empty, size_bytes=len(data), sha256=digest(data))
        self.store.objects.setdefault(part_key(lease.order_key, lease.shard_id, part), data)
        return part
