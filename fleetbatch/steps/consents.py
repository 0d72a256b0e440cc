"""Whether the chains of consent are whole: in every cell's ledger, or in a statement that an owner kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.owners import CarConsents
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.owners import broken_car, broken_consent
from fleetbatch.protocol import ConsentEntry
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import find_car, open_ledgers
from fleetbatch.units import CarId, id_of

_CARS_A_PAGE: Final = 1000
_TOLD_MOST: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at, and what is broken: the first broken decision of each car, a hundred cars at most."""

    cars: int
    decisions: int
    broken_cars: int
    broken: tuple[str, ...]


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a statement as its chains need."""

    car_id: str
    consents: list[ConsentEntry]


def verify_ledgers(settings: Settings, car: CarId | None = None) -> Verified:
    """Recompute the chains of one car, or of every car of every cell; raise RejectedError for a car no cell knows."""
    cars = decisions = broken_cars = 0
    broken: list[str] = []
    with open_ledgers(settings) as ledgers:
        chosen = list(ledgers.values()) if car is None else [find_car(ledgers, car)[1]]
        for one in (one for ledger in chosen for one in _cars(ledger, car)):
            wrong = broken_car(one)
            cars, decisions, broken_cars = cars + 1, decisions + len(one.records), broken_cars + bool(wrong)
            if wrong and len(broken) < _TOLD_MOST:
                broken.append(wrong)
    return Verified(cars=cars, decisions=decisions, broken_cars=broken_cars, broken=tuple(broken))


def verify_statement(path: Path, kept: Sequence[str] = ()) -> Verified:
    """Recompute the chains in a statement, as `/v1/statement` and `owner statement --json` tell it; no cell is asked.

    Raises RejectedError for a file that is no statement, or one from before it told its chains.
    """
    try:
        told = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except OSError as error:
        summary = f"cannot read {path}: {error.strerror}"
        raise RejectedError(summary) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        summary = f"{path} is no statement of a car: {error}"
        raise RejectedError(summary) from error
    car = id_of(told.car_id)
    if car is None:
        summary = f"{path} is no statement of a car: its car_id is not sixteen hex digits"
        raise RejectedError(summary)
    wrong = broken_consent(CarId(car), told.consents, kept)
    return Verified(
        cars=1, decisions=len(told.consents), broken_cars=int(bool(wrong)), broken=(wrong,) if wrong else ()
    )


def _cars(ledger: PostgresLedger, car: CarId | None) -> Iterator[CarConsents]:
    """Give one car of a cell, or all, a page at a time."""
    if car is not None:
        yield from ledger.consented(CarId(car - 1), 1)
        return
    after = CarId(0)
    while page := ledger.consented(after, _CARS_A_PAGE):
        yield from page
        after = page[-1].car_id
