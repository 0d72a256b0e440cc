"""The book beside the leases that it follows from, cell by cell and night by night, archived nights included."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow.compute as pc

from fleetbatch import layout
from fleetbatch.contracts import parquet_table
from fleetbatch.ledger.book import DeliveredLease, Terms, delivered_lease
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.owners import Archive, balances, car_statement, recompute, whole_archive
from fleetbatch.protocol import StatementReply
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import find_car, open_doors, open_ledgers
from fleetbatch.store import Store
from fleetbatch.units import CarId, CellName, OwnerId

_LEASE: Final = (
    "night",
    "shard_id",
    "fence",
    "car_id",
    "granted_at",
    "delivered_rows",
    "delivered_wh",
    "credit",
)
_SHARD: Final = ("shard_id", "work_units", "rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBook:
    """One cell's book, computed a second time."""

    nights: int
    leases: int
    entries: int
    balances: Mapping[str, int]
    differences: tuple[str, ...]


def recompute_credits(settings: Settings) -> dict[CellName, CellBook]:
    """Rebuild every cell's book from its leases, and compare."""
    with open_doors(settings) as doors:
        return {cell: _recompute_cell(doors.store, cell, ledger) for cell, ledger in doors.ledgers.items()}


def find_statement(settings: Settings, car: CarId) -> StatementReply:
    """Return the statement of a car from the cell that knows it; raise RejectedError when none does."""
    with open_doors(settings) as doors:
        cell, ledger = find_car(doors.ledgers, car)
        return car_statement(ledger, Archive(store=doors.store, cell=cell), car)


def set_tariff(settings: Settings, car: CarId, *, micro_per_kwh: float) -> CellName:
    """Keep what a car's owner pays for energy from now on; return the cell. Raises RejectedError for an unknown car."""
    with open_ledgers(settings) as ledgers:
        cell, ledger = find_car(ledgers, car)
        ledger.set_tariff(car, micro_per_kwh)
        return cell


def change_terms(settings: Settings, changes: Mapping[str, float]) -> dict[CellName, Terms]:
    """Change what every cell pays from now on, if there are changes (fields of `Terms`); return what each pays."""
    with open_ledgers(settings) as ledgers:
        for ledger in ledgers.values() if changes else ():
            # With the old instant, which the ledger moves to its own now.
            ledger.add_terms(Terms(**{**asdict(ledger.terms()[-1]), **changes}))
        return {cell: ledger.terms()[-1] for cell, ledger in ledgers.items()}


def _recompute_cell(store: Store, cell: CellName, ledger: PostgresLedger) -> CellBook:
    """Compare night by night, each as of one instant, and look into the archive last: nights go there meanwhile.

    What is paid is asked after the leases that it is asked for: what is added later is for later leases.
    """
    owners, terms, tariffs = ledger.owners(), ledger.terms(), ledger.tariffs()
    told, booked = Counter[str](), Counter[str]()
    leases = entries = 0
    differences: list[str] = []
    nights = ledger.nights()
    for night in nights:
        here, moves = ledger.night_book(night)
        if here:
            terms, tariffs = ledger.terms(), ledger.tariffs()
        found = recompute([*_archived(store, cell, night, owners), *here], moves, terms, tariffs)
        told.update(found.balances)
        booked.update(balances(moves))
        leases, entries = leases + found.leases, entries + found.entries
        differences += found.differences
    differences += [
        f"account {account}: the book holds {booked[account]}, the leases say {told[account]}"
        for account in sorted(booked.keys() | told.keys())
        if booked[account] != told[account]
    ]
    return CellBook(
        nights=len(nights),
        leases=leases,
        entries=entries,
        balances=dict(sorted(told.items())),
        differences=tuple(differences),
    )


def _archived(
    store: Store, cell: CellName, night: dt.date, owners: Mapping[CarId, OwnerId]
) -> Iterator[DeliveredLease]:
    """Give the leases of a night that lie in the store; one that was archived twice comes twice."""
    shards = {row["shard_id"]: row for row in _rows(store, layout.archived(cell, "shards", str(night)), _SHARD)}
    for row in _rows(store, layout.archived(cell, "leases", str(night)), _LEASE):
        if row["delivered_rows"] > 0 and row["car_id"] != 0:
            yield delivered_lease(row | shards[row["shard_id"]], owners[CarId(row["car_id"])])


def _rows(store: Store, folder: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for key in store.keys(folder):
        table = parquet_table(whole_archive(store, key), columns)
        if "delivered_rows" in columns:
            table = table.filter(pc.field("delivered_rows") > 0)
        yield from table.to_pylist()
