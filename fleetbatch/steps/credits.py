"""The book beside the leases that it follows from, cell by cell and night by night, archived nights included."""

import datetime as dt
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import DeliveredLease, Entry, Terms, delivered_lease
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.owners import (
    Archive,
    ArchiveFile,
    Recomputed,
    ShardRanges,
    Spill,
    balances,
    car_statement,
    recompute,
)
from fleetbatch.protocol import StatementReply
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import find_car, open_doors, open_ledgers
from fleetbatch.store import Store
from fleetbatch.units import CLOUD_CAR, CarId, CellName

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
_Row = dict[str, Any]
_ROWS_AT_A_TIME: Final = 50_000
_TOLD_MOST: Final = 1000
"""Differences of a cell; of the rest their number is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBook:
    """One cell's book, computed a second time."""

    nights: int
    leases: int
    entries: int
    balances: Mapping[str, int]
    differences: tuple[str, ...]


class _Tally:
    """What some nights come to, as much of it as a person reads."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.told, self.booked = Counter[str](), Counter[str]()
        self.leases = self.entries = self.more = 0
        self.differences: list[str] = []

    def add(self, found: Recomputed, booked: Mapping[str, int]) -> None:
        """Count some shards of a night."""
        self.told.update(found.balances)
        self.booked.update(booked)
        self.leases, self.entries = self.leases + found.leases, self.entries + found.entries
        self.differ(found.differences)

    def join(self, other: "_Tally") -> None:
        """Count what another has counted."""
        self.told.update(other.told)
        self.booked.update(other.booked)
        self.leases, self.entries = self.leases + other.leases, self.entries + other.entries
        self.differ(other.differences, more=other.more)

    def differ(self, lines: Sequence[str], *, more: int = 0) -> None:
        """Keep the first differences, and the number of the others."""
        room = _TOLD_MOST - len(self.differences)
        self.differences += lines[:room]
        self.more += len(lines[room:]) + more

    def accounts(self) -> list[str]:
        """Return in which accounts book and leases differ."""
        return [
            f"account {account}: the book holds {self.booked[account]}, the leases say {self.told[account]}"
            for account in sorted(self.booked.keys() | self.told.keys())
            if self.booked[account] != self.told[account]
        ]


class _Prices:
    """What is paid, asked anew for leases later than those that it was asked for: what is added is for later ones."""

    def __init__(self, ledger: PostgresLedger) -> None:
        """Ask once."""
        self._ledger, self._until = ledger, dt.datetime.min.replace(tzinfo=dt.UTC)
        self.terms, self.tariffs = ledger.terms(), ledger.tariffs()

    def hear(self, leases: Sequence[DeliveredLease]) -> None:
        """Know what is paid for these leases, which were just read."""
        newest = max((lease.granted_at for lease in leases), default=self._until)
        if newest > self._until:
            self._until = newest
            self.terms, self.tariffs = self._ledger.terms(), self._ledger.tariffs()


def recompute_credits(settings: Settings, *, at_a_time: int = _ROWS_AT_A_TIME) -> dict[CellName, CellBook]:
    """Rebuild every cell's book from its leases, and compare.

    Of a night's leases and entries about `at_a_time` are in memory together, or a 256th of them if that is more.
    """
    with open_doors(settings) as doors:
        return {
            cell: _recompute_cell(_Cell(doors.store, cell, ledger), at_a_time=at_a_time)
            for cell, ledger in doors.ledgers.items()
        }


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


class _Cell:
    """A cell, and what of it every night is recomputed with."""

    def __init__(self, store: Store, name: CellName, ledger: PostgresLedger) -> None:
        """Ask what holds for all nights."""
        self.store, self.name, self.ledger = store, name, ledger
        self.owners, self.prices = ledger.owners(), _Prices(ledger)

    def files(self, table: str, night: dt.date) -> list[ArchiveFile]:
        """Return what was archived of a night, if it was."""
        keys = self.store.keys(layout.archived(self.name, table, str(night)))
        return [ArchiveFile(store=self.store, key=key) for key in keys]


def _recompute_cell(cell: _Cell, *, at_a_time: int) -> CellBook:
    whole = _Tally()
    nights = cell.ledger.nights()
    for night in nights:
        whole.join(_recompute_night(cell, night, at_a_time=at_a_time))
    whole.differ(whole.accounts())
    return CellBook(
        nights=len(nights),
        leases=whole.leases,
        entries=whole.entries,
        balances=dict(sorted(whole.told.items())),
        differences=(*whole.differences, *([f"and {whole.more} more"] if whole.more else [])),
    )


def _recompute_night(cell: _Cell, night: dt.date, *, at_a_time: int) -> _Tally:
    """Compare a night, again when it went to the archive meanwhile: the leases that were still looked for are there."""
    while True:
        archived, tally = cell.files("leases", night), _Tally()
        for found, moves in _recomputed(cell, night, archived, at_a_time=at_a_time):
            tally.add(found, balances(moves))
        if cell.files("leases", night) == archived:
            return tally


def _recomputed(
    cell: _Cell, night: dt.date, archived: Sequence[ArchiveFile], *, at_a_time: int
) -> Iterator[tuple[Recomputed, list[Entry]]]:
    """Rebuild a night's book, some shards at a time, each as of one instant; give what was found and what is written.

    Their leases, archived or not, and their entries are in memory.
    """
    rows = cell.ledger.booked_rows(night) + sum(file.rows() for file in archived)
    ranges = ShardRanges.of(rows, at_a_time=at_a_time)
    with tempfile.TemporaryDirectory(prefix="fleetbatch-credits-") as folder:
        past = Spill(Path(folder) / "leases", ranges, _paid(archived))
        shard_tables = (table for file in cell.files("shards", night) for table in file.tables(_SHARD))
        shards = Spill(Path(folder) / "shards", ranges, shard_tables)
        for place, some in enumerate(ranges):
            there = _delivered(cell, past.rows(place), {row["shard_id"]: row for row in shards.rows(place)})
            here, moves = cell.ledger.night_book(night, some)
            cell.prices.hear(here)
            yield recompute([*there, *here], moves, cell.prices.terms, cell.prices.tariffs), moves


def _delivered(cell: _Cell, leases: Iterable[_Row], shards: Mapping[int, _Row]) -> Iterator[DeliveredLease]:
    for lease in leases:
        shard = shards.get(lease["shard_id"])
        if shard is None:
            where = f"shard {lease['shard_id']:016x}, night {lease['night']}"
            summary = (
                f"the archives of {cell.name} have a lease of {where}, and no such shard; restore them from a copy"
            )
            raise RejectedError(summary)
        yield delivered_lease(lease | shard, cell.owners[CarId(lease["car_id"])])


def _paid(files: Iterable[ArchiveFile]) -> Iterator[pa.Table]:
    """Give the leases of cars that delivered rows; one that was archived twice comes twice."""
    for file in files:
        for table in file.tables(_LEASE):
            yield table.filter((pc.field("delivered_rows") > 0) & (pc.field("car_id") != int(CLOUD_CAR)))
