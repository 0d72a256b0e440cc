"""Many nights at once: charging alone, through the real conditions, for as many cars as one likes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from fleetbatch.simulate.driver import Driver
from fleetbatch.simulate.scenario import Scenario
from fleetbatch.simulate.world import World, draw

LOOK_AT_LEAST_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Charges:
    """What compute did to charges when every car computed whenever it was willing."""

    cars: int
    later: int
    """Charges that ended later, or stood lower when the owner left, than without compute."""
    later_than_stated: int
    """Of those, how many were not full when the owner left or had stated to leave, and would have been."""
    computed: int
    """Cars that computed at all."""


def charges(scenario: Scenario) -> Charges:
    """Let all cars of a night charge and compute as much as their conditions allow."""
    return charges_of(draw(scenario))


def charges_of(world: World) -> Charges:
    """Let all cars of a drawn night charge and compute as much as their conditions allow."""
    plugs, epoch = world.fleet.plugs, world.scenario.starts_at
    reserve, count, later, short, computed = plugs.reserve_at().tolist(), 0, 0, 0, 0
    for place in range(len(world.fleet)):
        driver = Driver.at_plug(place, plugs, reserve[place], epoch)
        computed += sum(_step(driver, at_s) for at_s in _looks(driver)) > 0
        charge, leave_s = driver.charge, driver.leave_s
        charge.pass_time(leave_s)
        stated = float(plugs.departs_s[place])
        due = min(leave_s, stated) if stated == stated else leave_s  # noqa: PLR0124 NaN where nothing was stated
        count, later = count + 1, later + charge.later(leave_s)
        in_time = charge.full_at is not None and charge.full_at <= due + 1.0
        short += charge.later(leave_s) and not in_time and charge.plain_full_at <= due
    return Charges(cars=count, later=later, later_than_stated=short, computed=computed)


def _looks(driver: Driver) -> Iterator[float]:
    at_s = driver.charge.at_s
    while at_s < driver.leave_s:
        yield at_s
        at_s = min(driver.next_change_s(at_s), at_s + LOOK_AT_LEAST_S)


def _step(driver: Driver, at_s: float) -> bool:
    """Look, and compute or not until the next look; return whether it computes."""
    looked = driver.look(at_s, driver.epoch + timedelta(seconds=at_s))
    driver.life = replace(driver.life, latch=looked.latch)
    if looked.latch.willing != driver.working:
        driver.work(at_s, on=looked.latch.willing)
    return looked.latch.willing
