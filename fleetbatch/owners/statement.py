"""What an owner may know about a car: consent as it was given, what ran when and for whom, and what it earned."""

import datetime as dt
import logging
from collections.abc import Iterable, Sequence

import msgspec
import pyarrow as pa

from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import Booked, EndedLease, LeaseRef
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import say
from fleetbatch.owners.archives import Archive
from fleetbatch.owners.consents import consent_entry
from fleetbatch.protocol import StatementNight, StatementReply
from fleetbatch.units import CarId


def car_statement(ledger: PostgresLedger, archive: Archive, car: CarId) -> StatementReply:
    """Return everything that the cell keeps about a car, archived nights included.

    A night whose archive cannot be read is named in place of being told, and its file is logged for whoever restores
    it. No sum lacks it: an archived night has nothing in escrow, and what was paid for it is in the book. Raises
    RejectedError for a car that never enrolled.
    """
    known = ledger.car_key(car)
    if known is None:
        summary = f"car {car:016x} is not enrolled in this cell"
        raise RejectedError(summary)
    here = ledger.ended_leases(car)  # first: a night that is archived meanwhile is told by both, and not by neither
    archived, unreadable = archive.ended_leases(car)
    for one in unreadable:
        say("archive cannot be read", level=logging.ERROR, night=one.night, detail=one.why)
    nights = [
        line
        for night, leases in by_night([*archived, *here]).items()
        for line in night_lines(leases, ledger.booked(night, leases))
    ]
    return StatementReply(
        car_id=f"{car:016x}",
        consents=[consent_entry(record) for record in ledger.consents(car)],
        nights=nights,
        unreadable_nights=sorted({one.night for one in unreadable}),
        escrow_micro=sum(line.escrow_micro for line in nights),
        owner_paid_micro=ledger.owner_balance(known.owner_id),
    )


def statement_table(told: StatementReply) -> pa.Table:
    """Return the nights of a statement as a table of contract `statement`, oldest first. Pure.

    Raises RejectedError for a statement that lacks a night: nothing in the table would say so.
    """
    if told.unreadable_nights:
        summary = f"the statement of car {told.car_id} lacks nights whose archives cannot be read"
        raise RejectedError(summary, told.unreadable_nights)
    rows = [{"car_id": told.car_id, **msgspec.structs.asdict(night)} for night in told.nights]
    return conform(pa.Table.from_pylist(rows, contract("statement").schema), "statement")


def by_night(leases: Iterable[EndedLease]) -> dict[dt.date, list[EndedLease]]:
    """Return each lease once, by night, oldest first. Pure.

    A night whose dropping was interrupted lies in an archive and in the ledger, or in two archives: of a lease that is
    told twice, the telling counts that knows its verdict.
    """
    once: dict[LeaseRef, EndedLease] = {}
    for lease in leases:
        before = once.get(lease.lease)
        if before is None or before.credit == "none":
            once[lease.lease] = lease
    nights: dict[dt.date, list[EndedLease]] = {}
    for ref in sorted(once):
        nights.setdefault(ref.night, []).append(once[ref])
    return nights


def night_lines(leases: Sequence[EndedLease], booked: Sequence[Booked]) -> list[StatementNight]:
    """Return what a car did in a night, order by order as `booked` names them. Pure."""
    return [_line([lease for lease in leases if lease.order_no == order.order_no], order) for order in booked]


def _line(leases: Sequence[EndedLease], order: Booked) -> StatementNight:
    return StatementNight(
        night=order.night.isoformat(),
        order=order.name,
        generation=order.generation,
        workload=order.workload,
        data_class=order.data_class,
        leases=len(leases),
        refused_leases=sum(lease.credit == "refused" for lease in leases),
        rows=sum(lease.rows for lease in leases),
        minutes=sum(lease.busy_s for lease in leases) / 60.0,
        energy_wh=sum(lease.energy_wh for lease in leases),
        bytes_read=sum(lease.bytes_read for lease in leases),
        bytes_sent=sum(lease.bytes_sent for lease in leases),
        paid_micro=order.paid_micro,
        escrow_micro=order.escrow_micro,
    )
