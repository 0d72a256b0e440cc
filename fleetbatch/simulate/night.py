"""A whole night: rounds of the real dispatcher's rooms, and between them the lives of cars. One seed, one answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fleetbatch.planner import Policy
from fleetbatch.simulate.bounding import upper_bound
from fleetbatch.simulate.casting import Past
from fleetbatch.simulate.cell import Cell
from fleetbatch.simulate.cloud import Cloud
from fleetbatch.simulate.deliveries import Deliveries, Log, counted
from fleetbatch.simulate.lives import Lives
from fleetbatch.simulate.meter import Meter
from fleetbatch.simulate.rounds import Dispatcher, Offers, Planned
from fleetbatch.simulate.scenario import GRAMS_PER_TONNE, Scenario, check_scenario
from fleetbatch.simulate.telemetry import Standing
from fleetbatch.simulate.world import Bools, Floats, Ints, World, draw


class Played(Protocol):
    """What lives a night between rounds: agents and machines one by one, or all of them as arrays."""

    log: Log
    meter: Meter
    void_s: Floats
    caught: Bools

    @property
    def valid(self) -> Bools:
        """Return which shards are audited and whole."""

    def settle(self, at_s: float) -> None:
        """Let everything happen that is due by then."""

    def standing(self, at_s: float, since_s: float) -> Standing:
        """Return how things stand at a round."""

    def take_by_cloud(self, shards: Ints, ends_s: Floats) -> None:
        """Let trusted machines compute shards that nobody holds."""

    def advance(self, offers: Offers, from_s: float, to_s: float) -> None:
        """Live to the next round."""

    def hand_in(self, at_s: float) -> None:
        """End the night."""

    def charges_later(self) -> int:
        """Return how many charges compute made end later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A round and how the night stood then."""

    at_s: float
    plugged: int
    willing: int
    holding: int
    planned: Planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What happened."""

    world: World
    moments: tuple[Moment, ...]
    deliveries: Deliveries
    """Those that count: by honest cars or trusted machines, in time, not refused."""
    whole: Bools
    """[shards]"""
    meter: Meter
    caught: Bools
    charges_later: int
    cloud_units: float
    upper_bound: float

    @property
    def cost_value(self) -> float:
        """Return what the energy costs, its carbon included, in the planner's units of value."""
        carbon_eur = self.meter.carbon_g * self.world.scenario.carbon_eur_per_tonne / GRAMS_PER_TONNE
        return (self.meter.cost_eur + carbon_eur) / Policy(rates=(), power_w=()).unit_currency


def simulate(scenario: Scenario, *, past: Past | None = None, told: Callable[[Moment], None] | None = None) -> Night:
    """Live a night and measure it against its bound; raise RejectedError when the scenario makes no night.

    Many nights may share a past; without one each has its own.
    """
    check_scenario(scenario)
    world = draw(scenario, past)
    return live(world, Cell(world) if scenario.is_exact else Lives(world), told=told)


def live(world: World, played: Played, *, told: Callable[[Moment], None] | None = None) -> Night:
    """Live a drawn night."""
    scenario, dispatcher, cloud = world.scenario, Dispatcher(world), Cloud(world)
    step, moments = scenario.replan.total_seconds(), list[Moment]()
    starts = np.arange(0.0, scenario.night_s - 1.0, step).tolist()
    for at_s, to_s in zip(starts, [*starts[1:], scenario.night_s], strict=True):
        played.settle(at_s)
        standing = played.standing(at_s, moments[-1].at_s if moments else -np.inf)
        if scenario.cloud:
            played.take_by_cloud(*cloud.wanted(standing, at_s, to_s))
            standing = played.standing(at_s, moments[-1].at_s if moments else -np.inf)
        planned = dispatcher.run_round(standing, at_s)
        moments.append(_moment(standing, planned, at_s))
        if told is not None:
            told(moments[-1])
        played.advance(planned.offers, at_s, to_s)
    played.hand_in(scenario.night_s)
    deliveries = played.log.close()
    honest = (deliveries.car < 0) | ~world.fleet.bad[np.maximum(deliveries.car, 0)]
    counts = counted(deliveries, played.void_s) & honest & (deliveries.at_s <= world.work.deadline_s[deliveries.shard])
    return Night(
        world=world,
        moments=tuple(moments),
        deliveries=deliveries.where(counts),
        whole=played.valid,
        meter=played.meter,
        caught=played.caught,
        charges_later=played.charges_later(),
        cloud_units=cloud.units,
        upper_bound=upper_bound(world),
    )


def _moment(standing: Standing, planned: Planned, at_s: float) -> Moment:
    return Moment(
        at_s=at_s,
        plugged=int(standing.plugged.sum()),
        willing=int(standing.willing.sum()),
        holding=int((standing.running >= 0).sum()),
        planned=planned,
    )
