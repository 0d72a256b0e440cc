"""What an owner may know about a car: consent as it was given, what ran when and for whom, and what it earned."""

import msgspec
import pyarrow as pa

from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import StatementLine
from fleetbatch.ledger.messages import ConsentRecord
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.protocol import ConsentEntry, StatementNight, StatementReply
from fleetbatch.units import CarId


def car_statement(ledger: PostgresLedger, car: CarId) -> StatementReply:
    """Return everything that the cell keeps about a car; raise RejectedError for one that never enrolled."""
    known = ledger.car_key(car)
    if known is None:
        summary = f"car {car:016x} is not enrolled in this cell"
        raise RejectedError(summary)
    lines = ledger.statement(car)
    return StatementReply(
        car_id=f"{car:016x}",
        consents=[_consent(record) for record in ledger.consents(car)],
        nights=[_night(line) for line in lines],
        escrow_micro=sum(line.escrow_micro for line in lines),
        owner_paid_micro=ledger.owner_balance(known.owner_id),
    )


def statement_table(told: StatementReply) -> pa.Table:
    """Return the nights of a statement as a table of contract `statement`, oldest first. Pure."""
    rows = [{"car_id": told.car_id, **msgspec.structs.asdict(night)} for night in told.nights]
    return conform(pa.Table.from_pylist(rows, contract("statement").schema), "statement")


def _consent(record: ConsentRecord) -> ConsentEntry:
    return ConsentEntry(
        purpose=record.change.purpose,
        granted=record.change.granted,
        at=record.at.isoformat(),
        notice_version=record.change.notice_version,
        sha256=record.sha256,
    )


def _night(line: StatementLine) -> StatementNight:
    return StatementNight(
        night=line.night,
        order=line.order,
        generation=line.generation,
        workload=line.workload,
        data_class=line.data_class,
        leases=line.leases,
        refused_leases=line.refused_leases,
        rows=line.rows,
        minutes=line.minutes,
        energy_wh=line.energy_wh,
        bytes_read=line.bytes_read,
        bytes_sent=line.bytes_sent,
        paid_micro=line.paid_micro,
        escrow_micro=line.escrow_micro,
    )
