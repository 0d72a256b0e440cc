"""A small cell for tests of the ledger: valid cars, orders and shards; a clock turned by hand."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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

    def let_go(
        self, lease: Granted, reason: str = "unplugged", *, detail: str = "", energy_wh: float = 0.0
    ) -> Released | Terminal:
        [answer] = self.ledger.release(
            [
                Release(
                    car_id=lease.car_id,
                    lease_id=lease.lease_id,
                    fence=lease.fence,
                    reason=reason,
                    detail=detail,
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


def publish(ledger: PostgresLedger, key: OrderKey) -> None:
    """Close an order and mark it as published, as if its table had been committed in between."""
    assert ledger.close_order(key, ledger.settled_version(key))
    ledger.mark_published(key)


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
