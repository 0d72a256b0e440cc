"""What a round is, for those who make it, check it, keep it and ask it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What classes of cars are to do up to the last deadline: the certified value follows from it.

    Kinds and blocks are those of the certificate's prices, in their order.
    """

    order: Ints
    """Every car once, class by class, as its place among the cars in order of car_id."""
    starts: Ints
    """order[starts[c]:starts[c + 1]] are the cars of class c."""
    share: Floats
    """[class, block, kind] of the time that each car of the class is there."""
    flow: Floats
    """[kind, block, deadline, priority], units of work done."""
    deadlines: Floats
    """Rising, seconds from now; work that is due between two of them is done by the earlier."""
    latest: Floats
    """[deadline], when the last work is due that is planned for it; the bound counts on these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a round is worth beside a bound on every policy, adaptive ones included; in units of value."""

    placed: float
    """Expected value of this round's pieces, the running ones included."""
    value: float
    """Expected value, less energy, of the whole plan up to the last deadline, of which this round is the first part.

    This is what a round maximises: of open shards only, and late work counts for less (risk.py). A plan by the simple
    rule has no later part, and its value counts in full.
    """
    upper_bound: float
    """Nobody gets more of the open shards, whatever he knows later, where late work counts as it does in `value`.

    What work is worth in full it does not bound: with `upsets_per_hour` 0 and `buffer_worth` 1 it would.
    """
    value_in_full: float
    """The same plan's value where late work counts like any other; beside it no bound is certified."""
    priorities: pa.Table
    """priority, demand, expected: work units open, and expected to be completed by this round's pieces."""
    carbon_g: float
    """CO2 that this round's pieces are expected to cause, the running ones included; 0 where no intensity is known."""
    prices: pa.Table
    """The value of one more unit (`price`) of each kind of work, block by block (`from_s`, `until_s`).

    A kind is the shards of one `workload`, `hw_mask` and `region` whose bytes a unit (in 32 bits) and memory are at
    least `bytes_per_unit_min`, `mem_B_min` and at most `bytes_per_unit`, `mem_B`: the plan counts on the most, the
    bound on the least.
    """
    plan: Plan | None = field(default=None, compare=False)
    """None of a plan by the simple rule, which has no part later than its pieces; not kept with a round."""

    @property
    def gap(self) -> float:
        """Return the certified gap, the share of the bound that the plan may have missed; 0 where nothing is to be won.

        Of what a round maximises, with its discount of late work. Leaving late hours free costs more than this in full
        value (README.md has the figures), which the next rounds take back as the hours come nearer.
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
