"""Forecasts as a dispatcher keeps them: made now and then, conditioned on still being there in between."""

from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch import windows
from fleetbatch.simulate.scenario import Believed
from fleetbatch.simulate.world import Floats, Ints, World
from fleetbatch.windows.forecast import survival_of

Singles = npt.NDArray[np.float32]
POINTS: Final = 96
GRID_S: Final = 900.0
HOPEFUL, GLOOMY, SWAPPED = 0.4, 2.5, 0.3
LEAST: Final = 1e-3
"""A car that was all but sure to have left by now, and has not, is given the shape of what is left of its curve."""


class Curves:
    """Each plugged-in car's last forecast and when it was made."""

    def __init__(self, world: World) -> None:
        """Start without a forecast."""
        self.world = world
        self.made_s = np.full(len(world.fleet), -np.inf)
        self.since = np.full(len(world.fleet), -1, np.int64)
        self.curve = np.ones((len(world.fleet), POINTS + 1), np.float32)
        self.chance = np.random.default_rng([world.scenario.seed, 7])

    def ahead(self, plugged: pa.Table, at_s: float, now: datetime) -> tuple[pa.Table, int]:
        """Return contract `idle_windows` of the plugged-in cars, and how many were forecast anew.

        Forecast are those whose forecast is old, and those that have plugged in since the last round.
        """
        place = np.searchsorted(self.world.fleet.car_id, plugged["car_id"].to_numpy())
        since = plugged["plugged_in_at"].cast(pa.int64()).to_numpy()
        old = at_s - self.made_s[place] > self.world.scenario.forecast_every.total_seconds() - 1.0
        fresh = old | (since != self.since[place])
        if fresh.any():
            self._forecast(plugged.filter(pa.array(fresh)), place[fresh], at_s, now)
            self.since[place] = since
        curve = believed(self._now(place, at_s), self.world.scenario.believed, self.chance)
        return _windows(plugged["car_id"], curve), int(fresh.sum())

    def _forecast(self, plugged: pa.Table, place: Ints, at_s: float, now: datetime) -> None:
        made = windows.predict(plugged, self.world.fleet.past, now)
        self.curve[place, 1:] = survival_of(made)
        self.made_s[place] = at_s

    def _now(self, place: Ints, at_s: float) -> Singles:
        """Return each curve from now on for who is still there; beyond the forecast its last value holds.

        Most forecasts are of the same few rounds, so that curves are moved many at a time.
        """
        moved = np.empty((len(place), POINTS), np.float32)
        steps = (at_s - self.made_s[place]) / GRID_S
        for step in np.unique(steps).tolist():
            some = np.flatnonzero(steps == step)
            for first in range(0, len(some), AT_A_TIME):
                part = some[first : first + AT_A_TIME]
                moved[part] = _moved(self.curve[place[part]], step)
        return moved


AT_A_TIME: Final = 4_096
"""Curves that are moved at a time; they stay in the cache."""


def _moved(curve: Singles, steps: float) -> Singles:
    """Return the curves so many steps later, given that the car is still there."""
    whole = min(int(steps), POINTS)
    part = np.float32(steps - int(steps))
    last = np.repeat(curve[:, -1:], whole + 1, axis=1)
    ahead = np.concatenate([curve[:, whole:], last], axis=1)
    later = ahead[:, :-1] * (1 - part) + ahead[:, 1:] * part
    return np.asarray(later[:, 1:] / np.maximum(later[:, :1], LEAST), np.float32).clip(0.0, 1.0)


def believed(curve: Singles, how: Believed, chance: np.random.Generator) -> Singles:
    """Return the curves as the planner is told them; only `honest` is what was forecast."""
    match how:
        case "honest":
            return curve
        case "hopeful":
            return np.asarray(curve**HOPEFUL, np.float32)
        case "gloomy":
            return np.asarray(curve**GLOOMY, np.float32)
        case "shuffled":
            order = np.arange(len(curve))
            some = np.flatnonzero(chance.random(len(curve)) < SWAPPED)
            order[some] = chance.permutation(some)
            return curve[order]
        case "flat":
            return np.repeat(curve.mean(axis=0, keepdims=True), len(curve), axis=0) if len(curve) else curve


def _windows(car_id: "pa.ChunkedArray[Any]", curve: Floats | Singles) -> pa.Table:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(curve, np.float32).ravel()), POINTS)
    return pa.table({"car_id": car_id, "survival": flat})
