"""What is paid for work and energy changes all night; the book must be what the leases say."""

import random
from dataclasses import replace
from datetime import date

import psycopg
from faults.simulation.dials import Dials
from faults.simulation.faulty import CrashedError, FaultyLedger
from faults.simulation.gateways import failing
from faults.simulation.witness import Witness

from fleetbatch.errors import TransientError
from fleetbatch.owners import recompute
from fleetbatch.units import CarId

_TARIFFS = (0.0, 123_456.7, 250_000.0, 333_333.3, 5_000_000.0)
"""Millionths of a credit for a kWh; the last is above what is paid at most."""
_PER_UNIT = (77.7, 100.0, 1234.5)


class SimulatedMoney:
    """Owners who name tariffs, a fleet that changes its terms, and whoever recomputes the book."""

    def __init__(self, ledger: FaultyLedger, witness: Witness, seed: int, dials: Dials) -> None:
        self.ledger = ledger
        self.witness = witness
        self.chance = random.Random(f"money {seed}")  # its own, so that a cell's story does not depend on it
        self.dials = dials

    def change(self, cars: list[int]) -> int:
        """Now and then somebody says what is paid from now on; return how many did."""
        if self.chance.random() >= self.dials.tariff:
            return 0
        car, tariff = CarId(self.chance.choice(cars)), self.chance.choice(_TARIFFS)
        try:
            if self.chance.random() < 0.3:
                terms = replace(self.ledger.terms()[-1], micro_per_unit=self.chance.choice(_PER_UNIT))
                failing(self.ledger, self.chance, self.dials, lambda: self.ledger.add_terms(terms))
            else:
                failing(self.ledger, self.chance, self.dials, lambda: self.ledger.set_tariff(car, tariff))
        except (CrashedError, TransientError):
            pass  # it was said, or not: the book asks the ledger which
        return 1

    def look(self, observer: psycopg.Connection[tuple[date]]) -> None:
        """Recompute the book of every night that is still here."""
        nights = observer.execute("SELECT DISTINCT night FROM fleetbatch.shards ORDER BY night").fetchall()
        terms, tariffs = self.ledger.terms(), self.ledger.tariffs()
        for (night,) in nights:
            book = recompute(*self.ledger.night_book(night), terms, tariffs)
            self.witness.check("P3 the book is what the leases say", book.differences[:3], holds=not book.differences)
        balances = self.ledger.balances()
        self.witness.check("P3 all accounts together are zero", balances, holds=not sum(balances.values()))
