"""What a round is, for those who make it, check it, keep it and ask it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a round is worth beside a bound on every policy, adaptive ones included; in units of value."""

    placed: float
    """Expected value of this round's pieces, the running ones included."""
    value: float
    """Expected value, less energy, of the whole plan up to the last deadline, of which this round is the first part.

    Of open shards only, and late work counts for less (risk.py). A plan by the simple rule has no later part, and its
    value counts in full.
    """
    upper_bound: float
    """Nobody gets more of the open shards, whatever he knows later, where late work counts as it does in `value`.

    What work is worth in full it does not bound: with `upsets_per_hour` 0 and `buffer_worth` 1 it would.
    """
    value_in_full: float
    """The same plan's value where late work counts like any other."""
    priorities: pa.Table
    """priority, demand, expected: work units open, and expected to be completed by this round's pieces."""
    carbon_g: float
    """CO2 that this round's pieces are expected to cause, the running ones included; 0 where no intensity is known."""
    prices: pa.Table
    """workload, bytes_per_unit, from_s, until_s, price: the value of one more unit of a kind, block by block."""

    @property
    def gap(self) -> float:
        """Return the share of the bound that the plan may have missed; 0 where there is nothing to win.

        Of the objective with its discount of late work. Leaving late hours free costs more than this in full value
        (README.md has the figures), which the next rounds take back as the hours come nearer.
        """
        return 1.0 - self.value / self.upper_bound if self.upper_bound > 0.0 else 0.0

    def numbers(self) -> Mapping[str, float]:
        """Return what is kept with a round's offers."""
        return (
            {"value": self.value, "placed": self.placed, "bound": self.upper_bound, "gap": self.gap}
            | {"value_in_full": self.value_in_full}
            | ({"carbon_g": self.carbon_g} if self.carbon_g > 0.0 else {})
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round decided and why; the tables follow the contracts of their names."""

    at: datetime
    """The instant from which all seconds count."""
    planner: str
    """`prices`; `greedy` by the simple rule; `fallback` where the solver failed."""
    assignments: pa.Table
    """In order of car_id and seq. The first piece of a car that holds a lease is its running shard."""
    car_plan: pa.Table
    unassigned: pa.Table
    """Every shard with row groups left that no piece covers."""
    certificate: Certificate
    stats: Mapping[str, float] = field(default_factory=dict)
