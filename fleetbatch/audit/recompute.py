"""What a trusted worker does with one shard: compute chosen rows again and compare, or compute row groups itself."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.audit.answering import Answerer, Recipe
from fleetbatch.audit.choice import Judgement, audit_seed, choose_rows, judge, refuse
from fleetbatch.audit.delivered import Limits, NotAPart, PartReader, form_problem
from fleetbatch.bundle import bundle_sha256
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import AuditPart, AuditTask, AuditVerdict, Delivery, Granted, LeaseFinding
from fleetbatch.nouns import FrozenOrder
from fleetbatch.sealing import shard_key, unseal
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import CLOUD_CAR, LeaseId, Sha256, ShardId, shard_hex
from fleetbatch.workloads import blamed, workload

_PART_OVERHEAD_BYTES: Final = 64 * 1024
"""A Parquet file's schema and footer, however few its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What every trusted job needs; it pickles, so that any machine of the engine may do it."""

    store: Store
    order: FrozenOrder
    secret: bytes = field(repr=False)
    """The order's, unwrapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditJob:
    """Audit one returned shard."""

    trusted: Trusted
    task: AuditTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A verdict, and what it cost: rows and the seconds that one worker computed them in."""

    verdict: AuditVerdict
    rows: int
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartJob:
    """Compute row groups from `start` on in the cloud lane, until `part_s` is over or the shard is at its end."""

    trusted: Trusted
    granted: Granted
    start: int
    part_s: float
    power_w: float


_reader: Final = PartReader()
"""This worker process's child that opens strangers' files; it starts with the first one."""
_answerer: Final = Answerer()
"""This worker process's child that computes; it has open what was asked for last: opening takes longer than a shard."""


def audit_shard(job: AuditJob) -> Audited:
    """Read what was delivered, compute the chosen rows again, and judge; nothing here changes the world.

    Raises RejectedError when the shard itself is broken, which no car can help, and TransientError or MissingObject
    when the store does not answer.
    """
    task, order = job.task, job.trusted.order
    file = _open_shard(job.trusted, task.key, task.shard_id, task.sha256)
    known = pa.Table.from_batches(file.iter_batches(columns=["item_id", "error"]))
    leases: dict[LeaseId, list[AuditPart]] = defaultdict(list)
    for part in task.parts:
        if part.car_id != CLOUD_CAR:
            leases[part.lease_id].append(part)
    findings, details, clock = [], [], _Clock()
    for lease, parts in leases.items():
        judged = _audit_lease(job, file, known, parts, clock)
        details += [judged.detail] if judged.detail else []
        findings.append(
            LeaseFinding(
                lease_id=lease,
                audited_rows=max(len(judged.audited_items), judged.disagreements),
                disagreements=judged.disagreements,
                audited_items=judged.audited_items,
            )
        )
    verdict = AuditVerdict(
        shard_id=task.shard_id,
        order_key=order.key,
        fence=task.fence,
        passed=not any(finding.disagreements for finding in findings),
        findings=tuple(findings),
        detail="; ".join(details),
    )
    return Audited(verdict=verdict, rows=clock.rows, busy_s=clock.busy_s)


def compute_part(job: PartJob) -> Delivery:
    """Compute some row groups of a shard on a trusted machine and put the part where the merge will look for it."""
    granted, order, began = job.granted, job.trusted.order, time.monotonic()
    file = _open_shard(job.trusted, granted.key, granted.shard_id, granted.sha256)
    stop, clock = job.start, _Clock()
    answers: list[pa.Table] = []
    while stop < granted.row_groups and (not answers or time.monotonic() - began < job.part_s):
        answers.append(_compute(job.trusted, file.read_row_group(stop), stop, clock))
        stop += 1
    table = pa.concat_tables(answers)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    sha256 = Sha256(hashlib.sha256(data).hexdigest())
    key = layout.part(order.key, granted.shard_id, granted.lease_id, job.start, stop, sha256)
    job.trusted.store.create(key, data)  # or an earlier try of this very job did
    return Delivery(
        car_id=CLOUD_CAR,
        lease_id=granted.lease_id,
        fence=granted.fence,
        start=job.start,
        stop=stop,
        rows=clock.rows,
        size_bytes=len(data),
        sha256=sha256,
        energy_wh=job.power_w * clock.busy_s / 3600,
        energy_source="estimated",
        busy_s=clock.busy_s,
    )


@dataclass(slots=True)
class _Clock:
    """Counts what was computed, and for how long."""

    rows: int = 0
    busy_s: float = 0.0


def _audit_lease(
    job: AuditJob,
    file: pq.ParquetFile,
    known: pa.Table,
    parts: Sequence[AuditPart],
    clock: _Clock,
) -> Judgement:
    """Judge what one lease delivered: its form, then chosen rows, then the rows that it says nobody can read."""
    order, task = job.trusted.order, job.task
    numbers = [row for part in parts for row in _rows_of(task, part)]
    alive = np.asarray(known["error"].is_null())
    seed = audit_seed(job.trusted.secret, task.shard_id, parts[0].lease_id)
    chosen = choose_rows(seed, [row for row in numbers if alive[row]], order.order.auditing)
    items = [str(item) for item in known["item_id"].to_pylist()]
    delivered = _read_parts(job, known, parts)
    if isinstance(delivered, NotAPart):
        return refuse(delivered.problems, [items[row] for row in chosen])
    judged = _compare(job, file, chosen, delivered, clock)
    if not judged.passed:
        return judged
    dead = set(delivered["item_id"].filter(pc.is_valid(delivered["error"])).to_pylist())
    claimed = [row for row in numbers if alive[row] and items[row] in dead and row not in chosen]
    again = _compare(job, file, claimed, delivered, clock)
    return Judgement(
        passed=again.passed,
        audited_items=judged.audited_items + again.audited_items,
        disagreements=again.disagreements,
        detail="; ".join(filter(None, (judged.detail, again.detail))),
    )


def _read_parts(job: AuditJob, known: pa.Table, parts: Sequence[AuditPart]) -> pa.Table | NotAPart:
    """Return all rows that a lease delivered, in the order of the shard, once their form is what it must be."""
    tables = []
    for part in parts:
        table = _read_part(job, known, part)
        if isinstance(table, NotAPart):
            where = f"row groups {part.start} to {part.stop}"
            return NotAPart(problems=tuple(f"{where}: {problem}" for problem in table.problems))
        tables.append(table)
    return pa.concat_tables(tables)


def _read_part(job: AuditJob, known: pa.Table, part: AuditPart) -> pa.Table | NotAPart:
    name, limits = workload(job.trusted.order.order.workload).answers_contract, Limits()
    if part.size_bytes > _PART_OVERHEAD_BYTES + limits.answers_max(name, part.rows) * limits.answer.row_bytes:
        return NotAPart(problems=(f"{part.size_bytes} bytes are too many for {part.rows} rows",))
    try:
        data = job.trusted.store.read(part.key)
    except MissingObject:
        return NotAPart(problems=("the file is not in the store any more",))
    if hashlib.sha256(data).hexdigest() != part.sha256:
        return NotAPart(problems=("the file is not the one that was delivered",))
    table = _reader.read(data, name, part.rows)
    if isinstance(table, NotAPart):
        return table
    rows = _rows_of(job.task, part)
    groups = np.repeat(np.arange(part.start, part.stop), job.task.row_group_rows[part.start : part.stop])
    problem = form_problem(table, name, known.slice(rows.start, len(rows)), groups.tolist())
    return NotAPart(problems=(problem,)) if problem else table


def _compare(job: AuditJob, file: pq.ParquetFile, rows: Sequence[int], delivered: pa.Table, clock: _Clock) -> Judgement:
    """Compute rows again, row group by row group, and judge the delivered ones by the workload's comparator.

    Rows that disagree are computed once more, alone: a workload that does not repeat itself refuses no honest car.
    """
    kind = workload(job.trusted.order.order.workload)
    bounds = np.cumsum([0, *job.task.row_group_rows])
    items: list[str] = []
    disagreements: list[tuple[str, str]] = []
    unsteady: list[tuple[str, str]] = []
    for group in np.unique(np.searchsorted(bounds, rows, side="right") - 1).tolist():
        places = [row - int(bounds[group]) for row in rows if bounds[group] <= row < bounds[group + 1]]
        asked = file.read_row_group(group).take(places)
        ours = _compute(job.trusted, asked, group, clock)
        theirs = _of_items(delivered, ours["item_id"].combine_chunks())
        items += [str(item) for item in ours["item_id"].unique().to_pylist()]  # one may have several answers
        with blamed(f"workload {kind.name!r} cannot compare answers"):
            found = kind.compare(ours, theirs).disagreements
            if found:
                doubted = pa.array([item for item, _ in found], pa.string())
                again = _compute(job.trusted, _of_items(asked, doubted), group, clock)
                unsteady += kind.compare(_of_items(ours, doubted), again).disagreements
        disagreements += found
    return judge(items, disagreements, unsteady)


def _of_items(rows: pa.Table, items: "pa.Array[Any]") -> pa.Table:
    return rows.filter(pc.is_in(rows["item_id"], value_set=items))


def _compute(trusted: Trusted, rows: pa.Table, row_group: int, clock: _Clock) -> pa.Table:
    order, began = trusted.order.order, time.monotonic()
    recipe = Recipe(workload=order.workload, model_sha256=trusted.order.model_sha256, options=order.options)
    answers = _answerer.answer(recipe, lambda: _model(trusted), rows, row_group=row_group)
    clock.rows += rows.num_rows
    clock.busy_s += time.monotonic() - began
    return answers


def _model(trusted: Trusted) -> bytes | None:
    sha256 = trusted.order.model_sha256
    if not sha256:
        return None
    data = trusted.store.read(layout.bundle(sha256))
    if bundle_sha256(data) != sha256:
        summary = f"the bundle {layout.bundle(sha256)} is not the one that was frozen with order {trusted.order.key}"
        raise RejectedError(summary)
    return data


def _open_shard(trusted: Trusted, key: str, shard_id: ShardId, sha256: Sha256) -> pq.ParquetFile:
    """Open a sealed shard; raise RejectedError when it is not what was cut."""
    data = trusted.store.read(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        summary = f"shard {shard_hex(shard_id)} is not the file that was cut; run the night again with force"
        raise RejectedError(summary)
    seal = unseal(shard_key(trusted.secret, shard_id))
    return pq.ParquetFile(pa.BufferReader(data), decryption_properties=seal)


def _rows_of(task: AuditTask, part: AuditPart) -> range:
    start = sum(task.row_group_rows[: part.start])
    return range(start, start + sum(task.row_group_rows[part.start : part.stop]))
