"""Who may work: a car is enrolled once, by the public half of its key, and revoked for good."""

from collections.abc import Sequence

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import Enrolment
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.settings import Settings, cell_named
from fleetbatch.steps.doors import find_car, open_ledgers
from fleetbatch.units import CarId, CellName, OwnerId


def enrol_cars(settings: Settings, cell: str, keys: Sequence[tuple[CarId, str]], owner: OwnerId) -> int:
    """Make an owner's cars (id, public key as PEM) known to a cell; return how many are new to it.

    Said twice is said once. Raises RejectedError, enrolling none, for a car that is another owner's, was revoked, or is
    known to another cell.
    """
    region = cell_named(settings, cell).region
    cars = [car for car, _ in keys]
    with open_ledgers(settings) as ledgers:
        problems = [p for name, ledger in ledgers.items() for p in _problems(name, ledger, cars, cell, owner)]
        if problems:
            summary = "these cars cannot be enrolled"
            raise RejectedError(summary, problems)
        ledger = ledgers[CellName(cell)]
        known = ledger.car_keys(cars)
        ledger.enrol([Enrolment(car_id=car, owner_id=owner, public_key_pem=pem, region=region) for car, pem in keys])
        return sum(one is None for one in known)


def revoke_car(settings: Settings, car: CarId, reason: str) -> CellName:
    """Distrust a car for ever: its lease ends, its tokens are void, and no key of its name is let in again.

    Returns its cell; raises RejectedError for a car that none knows. Said twice, the first reason stays.
    """
    with open_ledgers(settings) as ledgers:
        cell, ledger = find_car(ledgers, car)
        ledger.revoke_car(car, reason)
        return cell


def _problems(name: CellName, ledger: PostgresLedger, cars: Sequence[CarId], wanted: str, owner: OwnerId) -> list[str]:
    problems = []
    for car, known in zip(cars, ledger.car_keys(cars), strict=True):
        if known is None:
            continue
        if known.revoked:
            problems.append(f"car {car:016x} was revoked, for good; give it a new key")
        elif name != wanted:
            problems.append(f"car {car:016x} is enrolled in cell {name}; a car is of one cell")
        elif known.owner_id != owner:
            problems.append(
                f"car {car:016x} is enrolled for owner {known.owner_id:016x}; give it a new key when it is sold"
            )
    return problems
