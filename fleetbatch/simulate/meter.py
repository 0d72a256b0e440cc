"""What cars spend in a simulated night, in seconds, money and grams, and what of it comes to nothing."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fleetbatch.simulate.scenario import EUR_PER_KWH, GRAMS_PER_KWH, TARIFF_UNTIL_H
from fleetbatch.simulate.world import JOULES_PER_KWH, Floats, Ints, World

LOST: Final = ("left", "crashed", "late", "refused", "stopped")
"""Why busy seconds came to nothing: the owner left, the car fell silent, the deadline came, the answers were wrong, or
the car stopped by itself (its charger was busy, or it was out of reach for longer than its lease)."""
LEFT, CRASHED, LATE, REFUSED, STOPPED = range(5)

EDGES_S: Final = np.array([0.0, *TARIFF_UNTIL_H]) * 3600.0
EUR_UPTO, GRAMS_UPTO = (
    np.append(0.0, np.cumsum(np.diff(EDGES_S) * np.array(per_kwh))) / JOULES_PER_KWH
    for per_kwh in (EUR_PER_KWH, GRAMS_PER_KWH)
)
"""Of one watt from the night's start to each edge."""


@dataclass(slots=True)
class Meter:
    """What has been spent so far."""

    world: World
    busy_s: Floats = field(init=False)
    """[cars]"""
    cost_eur: float = 0.0
    carbon_g: float = 0.0
    lost_s: Floats = field(default_factory=lambda: np.zeros(len(LOST)))
    """By reason."""
    fetch_s: float = 0.0
    """Of the busy seconds, those in which the first row group of a shard was fetched."""
    load_s: float = 0.0
    """And those in which a model was loaded."""

    def __post_init__(self) -> None:
        """Begin with nothing spent."""
        self.busy_s = np.zeros(len(self.world.fleet))

    def spend(self, car: Ints | int, from_s: Floats | float, to_s: Floats | float) -> None:
        """Count work of different cars; a span that ends before it begins takes back what was counted too early."""
        self.busy_s[car] += np.asarray(to_s) - from_s
        watts = self.world.fleet.plugs.compute_w[car]
        eur, grams = (
            float(np.sum((np.interp(to_s, EDGES_S, upto) - np.interp(from_s, EDGES_S, upto)) * watts))
            for upto in (EUR_UPTO, GRAMS_UPTO)
        )
        self.cost_eur, self.carbon_g = self.cost_eur + eur, self.carbon_g + grams

    def begin(self, fetch_s: float, load_s: float) -> None:
        """Note what a lease needs before its first row group."""
        self.fetch_s, self.load_s = self.fetch_s + fetch_s, self.load_s + load_s
