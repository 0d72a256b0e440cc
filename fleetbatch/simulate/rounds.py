"""The dispatcher in virtual time: the very rooms, fed with what simulated cars say and a simulated ledger holds."""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from fleetbatch import fleet as fleet_room
from fleetbatch import planner
from fleetbatch.contracts import conform
from fleetbatch.simulate.believing import Curves
from fleetbatch.simulate.scenario import (
    EUR_PER_KWH,
    GRAMS_PER_KWH,
    GRAMS_PER_TONNE,
    HARDWARE,
    RATES,
    TARIFF_UNTIL_H,
    WORKLOADS,
    Scenario,
)
from fleetbatch.simulate.telemetry import Standing, ledger_cars, open_shards, signals
from fleetbatch.simulate.world import Ints, World, model_bytes

ZONE: Final = "simulated"
MEASURED_S: Final = 1e7
"""Seconds of earlier nights behind the rates that the ledger has measured."""
MEASURED_CARS: Final = 100
"""Cars of each class that did it."""
BELIEFS: Final = planner.Beliefs(row_units_usual=1.0, unit_s=1.0)
"""A simulated row is a unit, and a second of a middle car."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What cars may ask for until the next round: shards by car in order of their queues, as places in the world."""

    first: Ints
    """[cars + 1]: the queue of car i is shard[first[i]:first[i + 1]]."""
    shard: Ints
    given_away: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Shards whose leases end with the round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A round and what it was made of."""

    offers: Offers
    planner: str
    value: float
    """Certified, of the whole plan that the round begins."""
    gap: float
    pieces: int
    forecasts: int
    """Cars whose stay was forecast anew."""


class Dispatcher:
    """What a cell's dispatcher remembers between rounds."""

    def __init__(self, world: World) -> None:
        """Start with nothing heard, and the rates that earlier nights have measured."""
        self.world = world
        self.newest = fleet_room.nothing_heard()
        self.at_s = -math.inf
        self.rates = measured_rates()
        self.curves = Curves(world)
        self.silent_s = fleet_room.Dials(silent_after_s=max(1200.0, 1.5 * world.scenario.replan.total_seconds()))

    def run_round(self, standing: Standing, at_s: float) -> Planned:
        """Plan from what is known at an instant; the plan that is returned has passed verify_round."""
        world, now = self.world, self.instant(at_s)
        heard = signals(world, standing, now, unheard_s=at_s - self.at_s)
        self.newest, self.at_s = fleet_room.fold(self.newest, heard), at_s
        shards_open, cars_known = open_shards(world, standing, now, at_s), ledger_cars(world, standing, now)
        frame = fleet_room.frame(shards_open, self.newest["hardware_class"].to_list())
        shards = planner.open_work(shards_open, cars_known, frame.kinds, BELIEFS, now=now)
        sizes = dict(zip(WORKLOADS, model_bytes(world.scenario).tolist(), strict=True))
        policy = replace(
            policy_at(world.scenario, frame, self.rates, at_s),
            piece_row_groups_min=world.scenario.piece_row_groups_min,
            model_bytes=tuple(sizes[workload] for workload, _, _ in frame.kinds),
        )
        policy = planner.with_powers(policy, self.newest, frame.hardware)
        plugged = fleet_room.plugged(self.newest, world.fleet.timezone)
        ahead, forecasts = self.curves.ahead(plugged, at_s, now)
        snapshot = fleet_room.snapshot(self.newest, cars_known, ahead, frame, self.silent_s, now=now)
        cars = planner.with_free_times(snapshot.cars, shards, policy)
        plans = (planner.plan_round, planner.plan_simply)
        made = planner.verified(cars, shards, now, policy, plans=plans)
        return Planned(
            offers=_offers(world, planner.offers_of(made), planner.given_away(cars, made)),
            planner=made.planner,
            value=made.certificate.value,
            gap=made.certificate.gap,
            pieces=made.assignments.num_rows,
            forecasts=forecasts,
        )

    def instant(self, at_s: float) -> datetime:
        """Return an instant of the night."""
        return self.world.scenario.starts_at + timedelta(seconds=at_s)


def measured_rates() -> pa.Table:
    """Return contract-free `rates` as the ledger gives them: what earlier nights have measured of every class."""
    rows = [
        {
            "workload": workload,
            "hardware_class": name,
            "provider": "sim",
            "cars": MEASURED_CARS,
            "rows": int(rate * MEASURED_S),
            "busy_s": MEASURED_S,
        }
        for name, row in zip(HARDWARE, RATES, strict=True)
        for workload, rate in zip(WORKLOADS, row, strict=True)
    ]
    return pa.Table.from_pylist(rows)


def energy(scenario: Scenario) -> pa.Table:
    """Return contract `energy` of the night."""
    from_h = (0.0, *TARIFF_UNTIL_H[:-1])
    table = {
        "zone": [ZONE] * len(from_h),
        "from_at": [scenario.starts_at + timedelta(hours=hours) for hours in from_h],
        "price_per_kwh": EUR_PER_KWH,
        "carbon_g_per_kwh": GRAMS_PER_KWH,
    }
    return conform(pa.table(table), "energy")


def policy_at(scenario: Scenario, frame: fleet_room.Frame, rates: pa.Table, at_s: float) -> planner.Policy:
    """Return the policy of a round: measured rates, and what energy costs and emits from now on."""
    dials = planner.Policy(rates=(), power_w=(), carbon_currency_per_g=scenario.carbon_eur_per_tonne / GRAMS_PER_TONNE)
    measured = planner.measured_policy(dials, rates, frame.kinds, frame.hardware, BELIEFS)
    now = scenario.starts_at + timedelta(seconds=at_s)
    return planner.with_energy(measured, energy(scenario), ZONE, now=now, until_s=scenario.night_s - at_s)


def _offers(world: World, offers: pa.Table, given_away: list[tuple[int, int]]) -> Offers:
    car = np.searchsorted(world.fleet.car_id, offers["car_id"].to_numpy())
    shard = np.searchsorted(world.work.shard_id, offers["shard_id"].to_numpy())
    away = np.searchsorted(world.work.shard_id, np.array([one for _, one in given_away], np.uint64))
    first = np.searchsorted(car, np.arange(len(world.fleet) + 1))
    return Offers(first=first, shard=shard.astype(np.int64), given_away=away.astype(np.int64))
