"""Parts and release: what a car computed becomes durable, or its shard free; every answer may be asked for again."""

import logging
from datetime import datetime
from typing import assert_never

from fleetbatch.gateway.arrivals import Announced, Arrived, Counted, Found, Lacking, part_key, upload_of
from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.identity import signed_by
from fleetbatch.gateway.problems import Kind, ProblemError
from fleetbatch.ledger.machine import NOT_YOURS, REFUSED
from fleetbatch.ledger.messages import Delivered, Delivery, LeaseRow, LeaseState, Refused, Release, Terminal
from fleetbatch.logs import say
from fleetbatch.nouns import OrderKey
from fleetbatch.protocol import (
    ConfirmReply,
    PartReply,
    PartRequest,
    ReleaseReply,
    ReleaseRequest,
)
from fleetbatch.units import CarId, Fence, LeaseId, Sha256, ShardId, shard_hex


async def part(gate: Gate, car: CarId, request: PartRequest) -> PartReply:
    """Sign a PUT for a part, unless it is here already."""
    await gate.turns.begin(request.lease_id)
    try:
        row, found = await gate.announcements.ask(Announced(car, request))
        return await _announced(gate, await _owned(gate, car, request, row), request, found)
    finally:
        gate.turns.end(request.lease_id)


async def _announced(gate: Gate, row: LeaseRow, request: PartRequest, found: Found) -> PartReply:
    _refuse_misfit(gate, row, request)
    delivered = request.stop <= row.done_through
    if row.state is not LeaseState.GRANTED and not delivered:
        raise _over(row)
    key = part_key(row.order_key, row.shard_id, request)
    match found:
        case "whole":
            return PartReply(already=True, url="", headers={})
        case _ if delivered:
            raise _over(row) if row.state is not LeaseState.GRANTED else _other_bytes(row)
        case "damaged":
            await _remove(gate, request, key)
        case "absent":
            pass
    now = gate.clock()
    _refuse_unconfirmed(gate, row, request, key, now=now)
    put = gate.store.sign_put(
        key, size=request.bytes, sha256=Sha256(request.sha256), now=now, expires=gate.dials.put_for
    )
    return PartReply(already=False, url=put.url, headers=put.headers)


async def confirm(gate: Gate, car: CarId, request: PartRequest) -> ConfirmReply:
    """Check what lies in the store against the claim and the claim against the car's key; then the ledger commits."""
    order_key, shard = await _shard(gate, car, request)
    await _refuse_unsigned(gate, car, request)
    key = part_key(order_key, shard, request)
    await gate.turns.begin(request.lease_id)
    try:
        answer = await gate.arrivals.ask(Arrived(upload_of(key, request), _delivery(car, request)))
        return await _arrived(gate, car, request, key, answer)
    finally:
        gate.turns.end(request.lease_id)


async def _arrived(gate: Gate, car: CarId, request: PartRequest, key: str, answer: Lacking | Counted) -> ConfirmReply:
    match answer:
        case "absent":
            row = await _own_lease(gate, car, request)
            if row.state is not LeaseState.GRANTED:
                raise _over(row)
            raise ProblemError(Kind.PART_NOT_UPLOADED, "nothing lies under this part's key; ask /v1/part for a URL")
        case "damaged":
            await _remove(gate, request, key)
            detail = f"the upload is not the {request.bytes} bytes of sha256 {request.sha256}; send it again"
            raise ProblemError(Kind.PART_DAMAGED, detail)
        case Delivered() | Terminal() | Refused():
            reply = _counted(gate, car, request, answer)
            gate.unconfirmed.confirmed(car, LeaseId(request.lease_id), key)
            return reply
        case _:
            assert_never(answer)


async def release(gate: Gate, car: CarId, request: ReleaseRequest) -> ReleaseReply:
    """Free the shard for the next car, which starts where this one's parts end."""
    lease = LeaseId(request.lease_id)
    answer = await gate.releases.ask(
        Release(
            car_id=car,
            lease_id=lease,
            fence=Fence(request.fence),
            reason=request.reason,
            detail=request.detail,
            energy_wh=request.energy_wh,
            busy_s=request.busy_s,
        )
    )
    held = gate.let_go(lease, told=car)
    if isinstance(answer, Terminal):
        raise ProblemError(Kind.LEASE_IS_OVER, answer.reason)
    if held is not None:
        gate.book.freed(held.shard_id)
        if request.reason == REFUSED:
            gate.book.refused(car, held.shard_id)
    if request.reason == REFUSED:
        gate.refusals.count(car, lease, now=gate.clock())
    gate.metrics.events["released"] += 1
    say(
        "released",
        car=car,
        lease=lease,
        reason=request.reason,
        detail=request.detail,
        done_through=answer.done_through,
    )
    return ReleaseReply(done_through=answer.done_through)


async def _own_lease(gate: Gate, car: CarId, request: PartRequest) -> LeaseRow:
    return await _owned(gate, car, request, await gate.leases.ask(LeaseId(request.lease_id)))


async def _owned(gate: Gate, car: CarId, request: PartRequest, row: LeaseRow | None) -> LeaseRow:
    """Return the lease, of which the ledger has just told; raise a ProblemError unless it is this car's."""
    if row is None:
        [end] = await gate.off_loop(gate.ledger.gone, [LeaseId(request.lease_id)])
        raise ProblemError(Kind.LEASE_IS_OVER, end.reason)
    if row.car_id != car or row.fence != request.fence:
        raise ProblemError(Kind.LEASE_IS_OVER, NOT_YOURS.reason)
    gate.know(row.key)  # its part is confirmed soon, and must be signed
    return row


async def _shard(gate: Gate, car: CarId, request: PartRequest) -> tuple[OrderKey, ShardId]:
    """Return what the lease is about, from memory when this gateway granted it."""
    held = gate.held.get(LeaseId(request.lease_id))
    if held is None or held.car_id != car:
        row = await _own_lease(gate, car, request)
        found = row.order_key, row.shard_id
    else:
        found = held.order_key, held.shard_id
    if shard_hex(found[1]) != request.shard_id:
        raise ProblemError(Kind.WRONG_SHARD, f"lease {request.lease_id} is about shard {shard_hex(found[1])}")
    if not request.start < request.stop:
        raise ProblemError(Kind.WRONG_RANGE, "a part holds at least one row group")
    return found


def _over(row: LeaseRow) -> ProblemError:
    return ProblemError(Kind.LEASE_IS_OVER, f"the lease is {row.state.value}: {row.reason}")


def _other_bytes(row: LeaseRow) -> ProblemError:
    detail = f"row groups below {row.done_through} are delivered, and not with these bytes: go on from there"
    return ProblemError(Kind.PART_DOES_NOT_FIT, detail)


def _refuse_misfit(gate: Gate, row: LeaseRow, request: PartRequest) -> None:
    """Raise when the part cannot belong to the lease's shard."""
    if shard_hex(row.shard_id) != request.shard_id:
        raise ProblemError(Kind.WRONG_SHARD, f"lease {row.lease_id} is about shard {shard_hex(row.shard_id)}")
    if not row.start <= request.start < request.stop <= row.row_groups:
        detail = f"row groups {request.start} to {request.stop} are not inside {row.start} to {row.row_groups}"
        raise ProblemError(Kind.WRONG_RANGE, detail)
    rows = sum(row.row_group_rows[request.start : request.stop])
    if request.rows != rows:
        raise ProblemError(Kind.WRONG_ROWS, f"these row groups have {rows} rows, the part claims {request.rows}")
    if not 0 < request.bytes <= gate.dials.part_bytes:
        raise ProblemError(Kind.WRONG_SIZE, f"a part has 1 to {gate.dials.part_bytes} bytes")


def _refuse_unconfirmed(gate: Gate, row: LeaseRow, request: PartRequest, key: str, *, now: datetime) -> None:
    """Count the part; raise when too many of its lease, or of its car, lie in the store and are confirmed by nobody."""
    if not gate.unconfirmed.admits(row.lease_id, key, done_through=row.done_through):
        detail = f"{gate.dials.unconfirmed_max} parts of this lease wait to be confirmed; confirm one before another"
        raise ProblemError(Kind.TOO_MANY_PARTS, detail)
    over_s = gate.unconfirmed.count(row.car_id, row.lease_id, key, stop=request.stop, now=now)
    if over_s:
        detail = "too many parts of this car were never confirmed; confirm one, or come again later"
        raise ProblemError(Kind.TOO_MANY_REQUESTS, detail, retry_after_s=over_s)


async def _refuse_unsigned(gate: Gate, car: CarId, request: PartRequest) -> None:
    known = await gate.car(car)
    if known is None:
        raise ProblemError(Kind.UNAUTHORIZED, "this car's key was revoked")
    if not signed_by(known.key, request):
        raise ProblemError(Kind.WRONG_SIGNATURE, "the part's claim is not signed by this car's key")


async def _remove(gate: Gate, request: PartRequest, key: str) -> None:
    """Remove an upload that is not what was claimed, unless it is acknowledged: then the claim is the lie."""
    row = await gate.leases.ask(LeaseId(request.lease_id))
    if row is not None and row.state is LeaseState.GRANTED and row.done_through <= request.start:
        await gate.off_loop(gate.store.delete, key)
        gate.metrics.events["damaged"] += 1
        say("removed a damaged part", level=logging.WARNING, lease=request.lease_id, key=key)


def _delivery(car: CarId, request: PartRequest) -> Delivery:
    return Delivery(
        car_id=car,
        lease_id=LeaseId(request.lease_id),
        fence=Fence(request.fence),
        start=request.start,
        stop=request.stop,
        rows=request.rows,
        size_bytes=request.bytes,
        sha256=Sha256(request.sha256),
        energy_wh=request.energy_wh,
        energy_source=request.energy_source,
        busy_s=request.busy_s,
        signature=request.signature,
    )


def _counted(gate: Gate, car: CarId, request: PartRequest, answer: Counted) -> ConfirmReply:
    if isinstance(answer, Terminal):
        gate.let_go(LeaseId(request.lease_id), told=car)
        raise ProblemError(Kind.LEASE_IS_OVER, answer.reason)
    if isinstance(answer, Refused):
        raise ProblemError(Kind.PART_DOES_NOT_FIT, answer.reason)
    if answer.complete:
        gate.let_go(LeaseId(request.lease_id), told=car)
    gate.metrics.events["parts"] += 1
    say(
        "delivered",
        car=car,
        lease=request.lease_id,
        shard=request.shard_id,
        done_through=answer.done_through,
        complete=answer.complete,
    )
    return ConfirmReply(done_through=answer.done_through, complete=answer.complete)
