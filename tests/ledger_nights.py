"""A small cell for tests of the ledger: valid cars, orders and shards; a clock turned by hand."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pyarrow as pa

from fleetbatch.contracts import contract
from fleetbatch.ledger.messages import (
    AuditTask,
    AuditVerdict,
    Beat,
    BeatAnswer,
    ConsentChange,
    Delivered,
    Delivery,
    Enrolment,
    Granted,
    GrantRequest,
    LeaseFinding,
    LedgerDials,
    Refused,
    Release,
    Released,
    Terminal,
)
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.units import CarId, Night, OrderName, OwnerId, Sha256, ShardId

EVENING = datetime(2026, 11, 22, 20, tzinfo=UTC)
LEASE_FOR = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)


def digest(*words: object) -> Sha256:
    return Sha256(hashlib.sha256(repr(words).encode()).hexdigest())


def frozen_order(
    night: str = "2026-11-22", name: str = "signs", generation: int = 1, *, data_class: str = "open", attempts: int = 3
) -> FrozenOrder:
    key = OrderKey(night=Night(night), order=OrderName(name), generation=generation)
    order = Order(
        name=key.order,
        workload="image",
        source="generator:signs",
        model="signs.zip",
        region="any",
        priority=1,
        deadline_hours=10.0,
        data_class=data_class,
        schedule="0 20 * * *",
        timezone="Europe/Berlin",
        cutting=Cutting(),
        auditing=Auditing(attempts_max=attempts),
        options=(("count", "40"),),
    )
    return FrozenOrder(
        key=key,
        order=order,
        model_sha256=digest("model"),
        frozen_at=EVENING,
        deadline_at=EVENING + timedelta(hours=10),
        secret_wrapped=bytes(40),
    )


def manifest(shards: dict[int, tuple[int, ...]]) -> pa.Table:
    """Shards by id, each with the rows of its row groups."""
    rows = [
        {
            "shard_id": shard,
            "cell": "eu",
            "key": f"shard-{shard}",
            "rows": sum(groups),
            "dead_rows": 0,
            "row_groups": len(groups),
            "row_group_rows": list(groups),
            "row_group_start": [100 * n for n in range(len(groups))],
            "row_group_stop": [100 * n + 100 for n in range(len(groups))],
            "size_bytes": 100 * len(groups),
            "sha256": digest("shard", shard),
            "work_units": float(sum(groups)),
            "first_item_id": f"{shard:016x}-000000",
            "last_item_id": f"{shard:016x}-{sum(groups) - 1:06d}",
        }
        for shard, groups in shards.items()
    ]
    return pa.Table.from_pylist(rows, contract("manifest").schema)


def yes(car: int, purpose: str = "compute") -> ConsentChange:
    return ConsentChange(
        car_id=CarId(car), purpose=purpose, granted=True, notice_version="1", notice_sha256=digest("notice")
    )


def no(car: int, purpose: str = "compute") -> ConsentChange:
    return replace(yes(car, purpose), granted=False)


def request(car: int, shard: int) -> GrantRequest:
    return GrantRequest(
        car_id=CarId(car),
        shard_id=ShardId(shard),
        lease_for=LEASE_FOR,
        hardware_class="orin",
        provider="CPUExecutionProvider",
        threads=2,
        power_w=60.0,
        runner_version="0.1.0",
    )


def part(lease: Granted, start: int, stop: int, rows: int, *, content: str = "right") -> Delivery:
    return Delivery(
        car_id=lease.car_id,
        lease_id=lease.lease_id,
        fence=lease.fence,
        start=start,
        stop=stop,
        rows=rows,
        size_bytes=1000,
        sha256=digest(lease.lease_id, start, stop, content),
        energy_wh=2.0,
        energy_source="estimated",
        busy_s=30.0,
        signature="signed",
    )


class Cell:
    """One ledger, its clock, and one-request forms of its batch verbs."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self.ledger = ledger
        self.now = EVENING
        ledger.turn_clock(self.now)
        ledger.sweep()

    def pass_time(self, **span: float) -> None:
        """Let time pass while nobody answers beats."""
        self.now += timedelta(**span)
        self.ledger.turn_clock(self.now)

    def serve(self, **span: float) -> tuple[str, ...]:
        """Let time pass while gateways answer and sweep; return the leases that expired."""
        expired: list[str] = []
        until = self.now + timedelta(**span)
        while self.now < until:
            self.now = min(until, self.now + timedelta(seconds=20))
            self.ledger.turn_clock(self.now)
            expired += self.ledger.sweep().expired
        return tuple(expired)

    def enrol(self, *cars: int) -> None:
        """Enrol cars with consent to compute."""
        self.ledger.enrol([enrolment(car) for car in cars])
        for car in cars:
            self.ledger.set_consent(yes(car))

    def open(self, shards: dict[int, tuple[int, ...]], frozen: FrozenOrder | None = None) -> OrderKey:
        frozen = frozen or frozen_order()
        self.ledger.open_order(frozen)
        self.ledger.register_shards(frozen.key, manifest(shards))
        return frozen.key

    def ask(self, car: int, shard: int) -> Granted | Refused:
        [answer] = self.ledger.grant([request(car, shard)])
        return answer

    def take(self, car: int, shard: int) -> Granted:
        answer = self.ask(car, shard)
        assert isinstance(answer, Granted), answer
        return answer

    def beat(self, lease: Granted, *, energy_wh: float = 0.0, car: int | None = None) -> BeatAnswer:
        [answer] = self.ledger.beat(
            [
                Beat(
                    car_id=CarId(car) if car is not None else lease.car_id,
                    lease_id=lease.lease_id,
                    fence=lease.fence,
                    row_groups_done=0,
                    energy_wh=energy_wh,
                    busy_s=0.0,
                )
            ]
        )
        return answer

    def deliver(self, delivery: Delivery) -> Delivered | Terminal | Refused:
        [answer] = self.ledger.deliver([delivery])
        return answer

    def let_go(self, lease: Granted, reason: str = "unplugged", *, energy_wh: float = 0.0) -> Released | Terminal:
        [answer] = self.ledger.release(
            [
                Release(
                    car_id=lease.car_id,
                    lease_id=lease.lease_id,
                    fence=lease.fence,
                    reason=reason,
                    energy_wh=energy_wh,
                    busy_s=10.0,
                )
            ]
        )
        return answer


def enrolment(car: int) -> Enrolment:
    return Enrolment(
        car_id=CarId(car), owner_id=OwnerId(1000 + car % 1000), public_key_pem=f"key of {car}", region="eu"
    )


@contextmanager
def open_cell(url: str, dials: LedgerDials | None = None) -> Iterator[Cell]:
    with PostgresLedger.open(url, dials=dials) as ledger:
        yield Cell(ledger)


def judge(task: AuditTask, *, wrong: frozenset[int] = frozenset()) -> AuditVerdict:
    """A verdict on a task that looked at two rows of every lease and found one wrong in those of some cars."""
    leases = {part.lease_id: part.car_id for part in task.parts}
    return AuditVerdict(
        shard_id=task.shard_id,
        order_key=task.order_key,
        fence=task.fence,
        passed=not wrong,
        findings=tuple(
            LeaseFinding(
                lease_id=lease, audited_rows=2, disagreements=int(car in wrong), audited_items=(f"row of {car}",)
            )
            for lease, car in leases.items()
        ),
    )


UNSOUND = {
    "a lease is open exactly where its shard is out": """
        SELECT coalesce(s.shard_id, l.shard_id) FROM (SELECT * FROM fleetbatch.shards WHERE state = 'out') s
        FULL JOIN fleetbatch.open_leases l ON l.night = s.night AND l.shard_id = s.shard_id AND l.fence = s.fence
        WHERE s.shard_id IS NULL OR l.shard_id IS NULL""",
    "every fence was one lease, open or ended": """
        SELECT s.shard_id FROM fleetbatch.shards s, generate_series(1, s.fence) f
        WHERE (SELECT count(*) FROM fleetbatch.open_leases l WHERE (l.shard_id, l.fence) = (s.shard_id, f))
            + (SELECT count(*) FROM fleetbatch.leases l WHERE (l.shard_id, l.fence) = (s.shard_id, f)) <> 1""",
    "valid parts follow each other from 0 to done_through": """
        SELECT s.shard_id FROM fleetbatch.shards s
        WHERE s.done_through <> coalesce((SELECT sum(p.stop - p.start) FROM fleetbatch.parts p
                                          WHERE p.shard_id = s.shard_id AND p.fence > s.void_fence), 0)
           OR EXISTS (SELECT FROM fleetbatch.parts p WHERE p.shard_id = s.shard_id AND p.fence > s.void_fence
                      AND p.start <> coalesce((SELECT max(q.stop) FROM fleetbatch.parts q WHERE q.shard_id = p.shard_id
                                               AND q.fence > s.void_fence AND q.start < p.start), 0))""",
    "a shard waits for an audit exactly while it is returned": """
        SELECT coalesce(s.shard_id, a.shard_id) FROM (SELECT * FROM fleetbatch.shards WHERE state = 'returned') s
        FULL JOIN fleetbatch.audits a ON a.shard_id = s.shard_id AND a.fence = s.fence
        WHERE s.shard_id IS NULL OR a.shard_id IS NULL""",
    "what came back is complete": """
        SELECT shard_id FROM fleetbatch.shards
        WHERE state IN ('returned', 'valid', 'done') AND done_through <> row_groups""",
    "a lease counts what its parts hold": """
        SELECT l.shard_id FROM (SELECT shard_id, fence, delivered_rows FROM fleetbatch.open_leases
                                UNION ALL SELECT shard_id, fence, delivered_rows FROM fleetbatch.leases) l
        WHERE l.delivered_rows <> coalesce((SELECT sum(rows) FROM fleetbatch.parts p
                                            WHERE (p.shard_id, p.fence) = (l.shard_id, l.fence)), 0)""",
    "no car that may not work holds a lease": """
        SELECT l.car_id FROM fleetbatch.open_leases l JOIN fleetbatch.cars c ON c.car_id = l.car_id
        WHERE c.revoked_at IS NOT NULL OR NOT 'compute' = ANY (c.consents)""",
    "what a car may do is what its newest consents say": """
        SELECT c.car_id FROM fleetbatch.cars c
        WHERE c.car_id <> 0 AND ARRAY(SELECT unnest(c.consents) ORDER BY 1) <> ARRAY(
            SELECT d.purpose FROM fleetbatch.consents d WHERE d.car_id = c.car_id AND d.granted AND d.number = (
                SELECT max(number) FROM fleetbatch.consents e WHERE (e.car_id, e.purpose) = (d.car_id, d.purpose))
            ORDER BY 1)""",
}


def assert_sound(url: str) -> None:
    """Look for anything that must never be, whatever happened before."""
    with psycopg.connect(url) as connection:
        broken = {claim: connection.execute(query.encode()).fetchall() for claim, query in UNSOUND.items()}
    assert not {claim: rows for claim, rows in broken.items() if rows}


def wipe(url: str) -> None:
    """Make a migrated database as good as new, in a tenth of the time that a new one takes."""
    with psycopg.connect(url) as owner:
        owner.execute("SET session_replication_role = replica")  # consents refuse to be emptied otherwise
        owner.execute(
            "TRUNCATE fleetbatch.consents, fleetbatch.orders, fleetbatch.shards, fleetbatch.open_leases,"
            " fleetbatch.leases, fleetbatch.parts, fleetbatch.audits, fleetbatch.planner_locks, fleetbatch.rounds,"
            " fleetbatch.offers RESTART IDENTITY"
        )
        owner.execute("DELETE FROM fleetbatch.cars WHERE car_id <> 0")
        owner.execute("UPDATE fleetbatch.service SET served_at = '-infinity', resumed_at = '-infinity'")
