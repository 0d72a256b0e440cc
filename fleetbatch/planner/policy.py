"""The planner's dials and what it believes of speeds and prices, one frozen value a round. Pure."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetbatch.errors import RejectedError

GRID_S = 900.0
GRID_POINTS = 97
HORIZON_S = GRID_S * (GRID_POINTS - 1)
ANY_REGION = 65535

Row = tuple[float, ...]
MOST: Final = {"power_w": 1e9, "carbon_g_per_j": 1e9, "carbon_currency_per_g": 1e6}
UNIT_CURRENCY_LEAST: Final = 1e-9
"""What these multiply to still is a 32-bit number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything a round follows that is neither a car nor a shard."""

    rates: tuple[Row, ...]
    """[hardware][workload], work units a second; 0 where the hardware cannot."""
    power_w: Row
    """[hardware], draw while computing."""
    price_per_j: tuple[Row, ...] = ((0.0,),)
    """[zone][tariff step], currency a joule."""
    price_until_s: Row = (HORIZON_S,)
    """End of each tariff step, seconds from now."""
    value_per_unit: Row = (10.0, 3.0, 1.0)
    """[priority], 0 is the highest; priorities beyond the last count as the last."""
    carbon_g_per_j: tuple[Row, ...] = ()
    """[zone][tariff step], grams of CO2 a joule; empty counts as 0."""
    carbon_currency_per_g: float = 0.0
    """What a gram is worth avoiding, in the currency of the prices."""
    workload_floor: float = 0.0
    """Share of its fair part of the cars' time that every workload gets, whatever the others are worth."""
    unit_currency: float = 4e-5
    """What one value is worth in the currency of the prices (the design's ten times the energy)."""
    upsets_per_hour: float = 0.05
    """How often many cars are lost at once; what is planned late must be worth the risk (risk.py). 0 knows no risk."""
    buffer_s: float = 3600.0
    """The last time before a deadline, at most half of what is left, is kept free for what goes wrong."""
    buffer_worth: float = 0.5
    """What a unit planned into the buffer is worth, as a share of its value."""
    model_bytes: Row = ()
    """[workload], what a car that has not cached the model loads first; empty counts as 0."""
    commit_s: float = 1800.0
    """No piece starts later: what lies further ahead is the next rounds'."""
    pieces_max: int = 16
    """Longest queue of a car."""
    piece_row_groups_min: int = 1
    """A shorter piece is only placed where it ends its shard."""
    stay_min: float = 0.02
    """No piece ends where the probability that the car is still there is smaller."""
    window_risk: float = 0.1
    """A bookable window is left early with at most this probability."""
    prices_from_cars: int = 1
    """Smaller fleets are planned by the simple rule, which looks at every car alone; README.md says what that loses."""
    solver_iterations_max: int = 200
    """An interior point needs 10 to 30; bounded by these and not by time, the same input gives the same round."""
    solver_s_max: float = 30.0
    """A guard only: a solver that hangs gives way to the simple rule. No good round comes near it."""


def rate_matrix(policy: Policy) -> npt.NDArray[np.float64]:
    """Return the rates as [hardware, workload], also where there is none of either."""
    return np.asarray(policy.rates, np.float64).reshape(len(policy.rates), len(policy.rates[0]) if policy.rates else 0)


def energy_prices(policy: Policy) -> npt.NDArray[np.float64]:
    """Return [zone, tariff step], what a joule costs with its carbon."""
    prices = np.asarray(policy.price_per_j, np.float64)
    grams = np.asarray(policy.carbon_g_per_j or np.zeros_like(prices), np.float64)
    return prices + policy.carbon_currency_per_g * grams


def check_policy(policy: Policy) -> None:
    """Raise RejectedError naming every dial that makes no sense."""
    problems = [*_shape_problems(policy), *_number_problems(policy)]
    if problems:
        summary = "the planner's policy cannot be used"
        raise RejectedError(summary, problems)


def _shape_problems(policy: Policy) -> Iterator[str]:
    workloads = {len(row) for row in policy.rates}
    if len(workloads) > 1:
        yield f"rates: rows of {sorted(workloads)} workloads; every hardware class needs the same"
    if len(policy.power_w) != len(policy.rates):
        yield f"power_w: {len(policy.power_w)} values for {len(policy.rates)} hardware classes"
    if policy.model_bytes and {len(policy.model_bytes)} != workloads:
        yield f"model_bytes: {len(policy.model_bytes)} values for {sorted(workloads)} workloads"
    if any(len(zone) != len(policy.price_until_s) for zone in policy.price_per_j):
        yield f"price_per_j: every zone needs {len(policy.price_until_s)} steps, as price_until_s has"
    if policy.carbon_g_per_j and [len(zone) for zone in policy.carbon_g_per_j] != [len(z) for z in policy.price_per_j]:
        yield "carbon_g_per_j: expected the zones and steps of price_per_j"
    rising = all(before <= after for before, after in itertools.pairwise((-math.inf, *policy.price_until_s)))
    if not rising or not policy.price_until_s:
        yield "price_until_s: at least one step, in rising order"
    if not any(policy.value_per_unit):
        yield f"value_per_unit: {policy.value_per_unit!r}; expected at least one priority whose work is worth something"


def _number_problems(policy: Policy) -> Iterator[str]:
    numbers = {
        "rates": [rate for row in policy.rates for rate in row],
        "power_w": policy.power_w,
        "price_per_j": [price for zone in policy.price_per_j for price in zone],
        "value_per_unit": policy.value_per_unit,
        "carbon_g_per_j": [grams for zone in policy.carbon_g_per_j for grams in zone],
        "carbon_currency_per_g": (policy.carbon_currency_per_g,),
        "model_bytes": policy.model_bytes,
        "unit_currency": (policy.unit_currency,),
        "upsets_per_hour": (policy.upsets_per_hour,),
        "buffer_s": (policy.buffer_s,),
        "commit_s": (policy.commit_s,),
        "solver_s_max": (policy.solver_s_max,),
    }
    for name, values in numbers.items():
        most = MOST.get(name, 1e12)
        if not all(0.0 <= value <= most for value in values):
            yield f"{name}: {tuple(values)!r}; expected finite numbers of at least 0 and at most {most:g}"
    if policy.unit_currency < UNIT_CURRENCY_LEAST:
        yield f"unit_currency: {policy.unit_currency:g}; expected at least {UNIT_CURRENCY_LEAST:g}"
    for name in ("pieces_max", "piece_row_groups_min", "prices_from_cars", "solver_iterations_max"):
        if getattr(policy, name) < 1:
            yield f"{name}: {getattr(policy, name)}; expected at least 1"
    for name in ("stay_min", "window_risk", "buffer_worth", "workload_floor"):
        if not 0.0 <= getattr(policy, name) <= 1.0:
            yield f"{name}: {getattr(policy, name)}; expected 0 to 1"
