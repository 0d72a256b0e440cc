"""The desk of one auditor: gives audits and shards of the cloud lane to trusted workers, and takes in what they found.

What counts is in the ledger. A desk that is killed loses nothing: its claims and its leases run out.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fleetbatch.audit.answering import TRUSTED
from fleetbatch.audit.lane import Lane, due_before
from fleetbatch.audit.recompute import (
    Audited,
    AuditJob,
    PartJob,
    Trusted,
    audit_shard,
    compute_part,
)
from fleetbatch.errors import FleetbatchError, RejectedError
from fleetbatch.ledger.messages import (
    Beat,
    Delivered,
    Delivery,
    Granted,
    GrantRequest,
    Release,
)
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import say
from fleetbatch.nouns import OrderKey
from fleetbatch.sealing import unwrap_secret
from fleetbatch.store import Store
from fleetbatch.units import CLOUD_CAR, CLOUD_CLASS, LeaseId, ShardId, shard_hex

"""The hardware class of trusted machines in the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """How a desk is turned."""

    workers: int = 2
    """Processes of the engine that this desk keeps busy."""
    part_s: float = 60.0
    """A part of the cloud lane is what one worker computes in about so long."""
    lease_for: timedelta = timedelta(minutes=3)
    beat_every: timedelta = timedelta(seconds=20)
    look_every: timedelta = timedelta(seconds=3)
    """How often the lane asks again after it found nothing due: the answer costs a look at all open shards."""
    power_w: float = 65.0
    """What a trusted machine draws more while one worker computes."""
    tries: int = 3
    """How often a job that did not come back is given out before its claim or lease is left to run out."""
    lane: Lane = field(default_factory=Lane)
    runner_version: str = "trusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a desk works with."""

    ledger: PostgresLedger
    store: Store
    pool: Executor
    deployment_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """A job that a worker has, and what to do with its result."""

    shard_id: ShardId
    work: Callable[[Any], Any]
    job: Any
    then: Callable[[Any], None]


class Desk:
    """One auditor's notes: which jobs run, which shards of the cloud lane it holds, how fast workers are."""

    def __init__(self, door: Door, dials: Dials | None = None) -> None:
        """Start with an empty desk."""
        self._door, self._dials = door, dials or Dials()
        self._running: dict[Future[Any], _Errand] = {}
        self._leases: dict[LeaseId, Granted] = {}
        self._trusted: dict[OrderKey, Trusted] = {}
        self._tries: Counter[ShardId] = Counter()
        self._measured: Counter[tuple[str, str]] = Counter()
        self._beat_at = datetime.min.replace(tzinfo=UTC)
        self._waiting: list[_Errand] = []
        self._lane_at = datetime.min.replace(tzinfo=UTC)
        self.broken = False
        """The engine lost a worker and takes no more work: `hire` another one."""

    @property
    def running(self) -> tuple[Future[Any], ...]:
        """Return the jobs that workers have."""
        return tuple(self._running)

    def tick(self, *, now: datetime) -> None:
        """Take in what is done, keep leases alive, give out new work.

        Raises TransientError when the ledger does not answer; the next tick goes on from there.
        """
        for future in [future for future in self._running if future.done()]:
            self._take_in(future)
        self._beat(now)
        free = self._dials.workers + 1 - len(self._running)  # one waits its turn, so that no worker does
        if free > 0 and not self.broken:
            self._take_audits(free)
        free = self._dials.workers - len(self._running)
        if free > 0 and not self.broken:
            self._take_lane(free, now)

    def hire(self, pool: Executor) -> None:
        """Go on with another engine; what the broken one had is given out again."""
        errands = [*self._running.values(), *self._waiting]
        self._door, self.broken = replace(self._door, pool=pool), False
        self._running, self._waiting = {}, []
        for errand in errands:
            self._give_out(errand)

    def let_go(self) -> None:
        """Free the shards of the cloud lane, so that nobody has to wait until their leases run out."""
        held = [
            Release(car_id=CLOUD_CAR, lease_id=lease.lease_id, fence=lease.fence, reason="shutdown")
            for lease in self._leases.values()
        ]
        for lease in self._leases.values():
            say("cloud lane lets go", shard=shard_hex(lease.shard_id), lease=lease.lease_id)
        self._leases.clear()
        self._door.ledger.release(held)

    def _take_in(self, future: Future[Any]) -> None:
        """Do with a result what is to be done; when the ledger does not answer, it stays on the desk."""
        errand = self._running[future]
        try:
            result = future.result()
        except (FleetbatchError, OSError, BrokenExecutor) as error:
            self.broken = self.broken or isinstance(error, BrokenExecutor)
            self._try_again(errand, error)
        else:
            errand.then(result)
        del self._running[future]

    def _try_again(self, errand: _Errand, error: Exception) -> None:
        self._tries[errand.shard_id] += 1
        tries, hopeless = self._tries[errand.shard_id], isinstance(error, RejectedError)
        say(
            "job failed",
            level=logging.ERROR,
            shard=shard_hex(errand.shard_id),
            leases=_leases_of(errand.job),
            tries=tries,
            why=str(error),
        )
        if tries < self._dials.tries and not hopeless:
            self._give_out(errand)
        elif isinstance(errand.job, PartJob):
            self._leases.pop(errand.job.granted.lease_id, None)  # it runs out, and then the shard is free again

    def _give_out(self, errand: _Errand) -> None:
        try:
            self._running[self._door.pool.submit(errand.work, errand.job)] = errand
        except BrokenExecutor:
            self.broken = True
            self._waiting.append(errand)

    def _take_audits(self, limit: int) -> None:
        for task in self._door.ledger.to_audit(limit):
            job = AuditJob(trusted=self._trusted_of(task.order_key), task=task)
            self._give_out(_Errand(shard_id=task.shard_id, work=audit_shard, job=job, then=self._record))

    def _record(self, audited: Audited) -> None:
        verdict = audited.verdict
        workload = self._trusted_of(verdict.order_key).order.order.workload
        self._measured.update({(workload, "rows"): audited.rows, (workload, "busy_ms"): round(1000 * audited.busy_s)})
        counted = self._door.ledger.record_audit(verdict)
        say(
            "audit passed" if verdict.passed else "audit refused",
            level=logging.INFO if verdict.passed else logging.WARNING,
            shard=shard_hex(verdict.shard_id),
            order=str(verdict.order_key),
            leases=sorted(finding.lease_id for finding in verdict.findings),
            counted=counted,
            rows=verdict.audited_rows,
            disagreements=verdict.disagreements,
            detail=verdict.detail,
        )

    def _take_lane(self, limit: int, now: datetime) -> None:
        """Take shards that cars no longer get, or that only trusted machines can still finish in time."""
        door, dials = self._door, self._dials
        if now - self._lane_at < dials.look_every:
            return
        due = due_before(door.ledger.open_shards(), self._rates(), dials.workers, dials.lane, now=now)
        wanted = door.ledger.cloud_shards(limit, deadline_before=due)
        if not wanted:
            self._lane_at = now
            return
        granted = door.ledger.grant(
            [
                GrantRequest(
                    car_id=CLOUD_CAR,
                    shard_id=shard.shard_id,
                    lease_for=dials.lease_for,
                    hardware_class=CLOUD_CLASS,
                    provider=TRUSTED.provider,
                    threads=1,
                    power_w=dials.power_w,
                    runner_version=dials.runner_version,
                )
                for shard in wanted
            ]
        )
        for lease in granted:
            if isinstance(lease, Granted):
                self._leases[lease.lease_id] = lease
                say("cloud lane takes", shard=shard_hex(lease.shard_id), lease=lease.lease_id, start=lease.start)
                self._compute(lease, lease.start)

    def _compute(self, lease: Granted, start: int) -> None:
        job = PartJob(
            trusted=self._trusted_of(lease.order_key),
            granted=lease,
            start=start,
            part_s=self._dials.part_s,
            power_w=self._dials.power_w,
        )
        self._give_out(_Errand(shard_id=lease.shard_id, work=compute_part, job=job, then=self._deliver))

    def _deliver(self, part: Delivery) -> None:
        """Count a part, and go on with the shard, unless it is complete or its lease is over."""
        lease = self._leases.get(part.lease_id)
        if lease is None:
            return
        [answer] = self._door.ledger.deliver([part])
        name = shard_hex(lease.shard_id)
        say("cloud lane delivers", shard=name, lease=lease.lease_id, stop=part.stop, answer=answer)
        if isinstance(answer, Delivered) and not answer.complete:
            self._compute(lease, answer.done_through)
        else:
            del self._leases[lease.lease_id]

    def _beat(self, now: datetime) -> None:
        if not self._leases or now - self._beat_at < self._dials.beat_every:
            return
        leases = list(self._leases.values())
        beats = [
            Beat(
                car_id=CLOUD_CAR,
                lease_id=lease.lease_id,
                fence=lease.fence,
                row_groups_done=lease.start,
                energy_wh=0.0,
                busy_s=0.0,
            )
            for lease in leases
        ]
        for lease, answer in zip(leases, self._door.ledger.beat(beats), strict=True):
            if not answer.go_on:
                say("cloud lane stops", shard=shard_hex(lease.shard_id), lease=lease.lease_id, why=answer.reason)
                del self._leases[lease.lease_id]
        self._beat_at = now

    def _rates(self) -> Mapping[str, float]:
        """Return rows a second of one trusted worker: what the lane did, else what our own audits did."""
        known = {
            name: self._measured[name, "rows"] / (self._measured[name, "busy_ms"] / 1000)
            for name, what in self._measured
            if what == "busy_ms" and self._measured[name, what]
        }
        for row in self._door.ledger.rates().to_pylist():
            if row["hardware_class"] == CLOUD_CLASS and row["busy_s"]:
                known[row["workload"]] = row["rows"] / row["busy_s"]
        return known

    def _trusted_of(self, key: OrderKey) -> Trusted:
        if key not in self._trusted:
            row = self._door.ledger.order(key)
            assert row is not None, key
            secret = unwrap_secret(row.frozen.secret_wrapped, self._door.deployment_key)
            self._trusted[key] = Trusted(store=self._door.store, order=row.frozen, secret=secret)
        return self._trusted[key]


def _leases_of(job: AuditJob | PartJob) -> list[LeaseId]:
    """Return the leases that a job is about: one of the lane, or those whose parts an audit looks at. Pure."""
    if isinstance(job, PartJob):
        return [job.granted.lease_id]
    return sorted({part.lease_id for part in job.task.parts})
