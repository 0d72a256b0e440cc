"""The doors of a deployment that every step goes through: its store and the ledgers of its cells."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import FrozenOrder, OrderKey
from fleetbatch.settings import Settings
from fleetbatch.store import Store, open_store
from fleetbatch.units import CarId, CellName


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """An open deployment."""

    settings: Settings
    store: Store
    ledgers: Mapping[CellName, PostgresLedger]


@contextlib.contextmanager
def open_doors(settings: Settings) -> Iterator[Doors]:
    """Open the store and every cell's ledger; raise TransientError when one cannot be reached."""
    with open_ledgers(settings) as ledgers:
        store = open_store(settings.store, deployment_key=settings.deployment_key)
        yield Doors(settings=settings, store=store, ledgers=ledgers)


@contextlib.contextmanager
def open_ledgers(settings: Settings) -> Iterator[dict[CellName, PostgresLedger]]:
    """Open every cell's ledger; raise TransientError when one cannot be reached."""
    with contextlib.ExitStack() as stack:
        yield {cell.name: stack.enter_context(PostgresLedger.open(cell.ledger_url)) for cell in settings.cells}


def find_car(ledgers: Mapping[CellName, PostgresLedger], car: CarId) -> tuple[CellName, PostgresLedger]:
    """Return the cell that knows a car, and its ledger; raise RejectedError when none does."""
    for cell, ledger in ledgers.items():
        if ledger.car_key(car) is not None:
            return cell, ledger
    summary = f"no cell knows the car {car:016x}"
    raise RejectedError(summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedOrder:
    """An order and the ledgers of the cells that compute it."""

    frozen: FrozenOrder
    ledgers: tuple[PostgresLedger, ...]


def find_order(ledgers: Mapping[CellName, PostgresLedger], key: OrderKey) -> OpenedOrder:
    """Return an order as its cells hold it; raise RejectedError when none of them does."""
    found = [(row.frozen, ledger) for ledger in ledgers.values() if (row := ledger.order(key)) is not None]
    if not found:
        summary = f"no cell knows the order {key}; run the night from its first task"
        raise RejectedError(summary)
    return OpenedOrder(frozen=found[0][0], ledgers=tuple(ledger for _, ledger in found))
