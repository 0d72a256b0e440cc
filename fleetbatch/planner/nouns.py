"""What a round is, for those who make it, check it, keep it and ask it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Expected value of the round's pieces beside a bound on every policy, in units of value."""

    objective: float
    upper_bound: float
    priorities: pa.Table
    """priority, demand, expected: work units open, and expected to be completed by this round's pieces."""

    @property
    def gap(self) -> float:
        """Return the share of the bound that the round may have missed; 0 where there is nothing to win."""
        return 1.0 - self.objective / self.upper_bound if self.upper_bound > 0.0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round decided and why; the tables follow the contracts of their names."""

    at: datetime
    """The instant from which all seconds count."""
    planner: str
    """The rule that decided: `greedy`."""
    assignments: pa.Table
    """In order of car_id and seq. The first piece of a car that holds a lease is its running shard."""
    car_plan: pa.Table
    unassigned: pa.Table
    """Every shard with row groups left that no piece covers."""
    certificate: Certificate
    stats: Mapping[str, float] = field(default_factory=dict)
