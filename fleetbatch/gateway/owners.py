"""Owners say yes or no, and read what is known of their cars; their tokens are their own."""

import re
from collections.abc import Mapping
from typing import Final

from fleetbatch.gateway.gate import Gate
from fleetbatch.gateway.problems import Kind, ProblemError
from fleetbatch.ledger.messages import ConsentChange, ConsentRefused
from fleetbatch.logs import say
from fleetbatch.owners import Archive, car_statement, consent_entry
from fleetbatch.protocol import ConsentReply, ConsentRequest, StatementReply
from fleetbatch.units import CarId, OwnerId, Sha256

_CAR: Final = re.compile("[0-7][0-9a-f]{15}")


async def consent(gate: Gate, owner: OwnerId, request: ConsentRequest) -> ConsentReply:
    """Keep an owner's decision; from its commit on no lease can be granted against it."""
    car = await _own_car(gate, owner, request.car_id)
    change = ConsentChange(
        car_id=car,
        purpose=request.purpose,
        granted=request.granted,
        notice_version=request.notice_version,
        notice_sha256=Sha256(request.notice_sha256),
    )
    record = await gate.off_loop(gate.ledger.set_consent, change)
    if isinstance(record, ConsentRefused):
        if record.again_in is None:
            raise ProblemError(Kind.UNKNOWN_PURPOSE, record.reason)
        again_in_s = record.again_in.total_seconds()
        raise ProblemError(Kind.TOO_MANY_REQUESTS, record.reason, retry_after_s=again_in_s)
    if record.voids_tokens:
        for voided, until in gate.void_tokens({car: record.at}).items():  # it may be older than what is known
            gate.void_until[voided] = max(until, gate.void_until.get(voided, until))
    say("consent", car=request.car_id, purpose=request.purpose, granted=request.granted)
    kept = consent_entry(record)
    return ConsentReply(
        car_id=request.car_id,
        purpose=kept.purpose,
        granted=kept.granted,
        number=kept.number,
        at=kept.at,
        sha256=kept.sha256,
    )


async def statement(gate: Gate, owner: OwnerId, query: Mapping[str, str]) -> StatementReply:
    """Return what is kept about one of the owner's cars (`?car=`, 16 hex digits)."""
    car = await _own_car(gate, owner, query.get("car", ""))
    archive = Archive(store=gate.store, cell=gate.cell.name)
    async with gate.statements:
        told: StatementReply = await gate.off_loop(car_statement, gate.ledger, archive, car)
    gate.metrics.events["archives_unreadable"] += len(told.unreadable_nights)
    return told


async def _own_car(gate: Gate, owner: OwnerId, name: str) -> CarId:
    """Return the car; an owner hears the same of a stranger's car and of none. A revoked car is still its owner's."""
    row = await gate.off_loop(gate.ledger.car_key, CarId(int(name, 16))) if _CAR.fullmatch(name) else None
    if row is None or row.owner_id != owner:
        raise ProblemError(Kind.NOT_YOUR_CAR, "this is not the name of one of the owner's cars")
    return row.car_id
