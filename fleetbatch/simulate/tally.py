"""A night in figures. Pure."""

from typing import Any, Final

import numpy as np

from fleetbatch.planner import Policy
from fleetbatch.simulate.meter import LOST, REFUSED
from fleetbatch.simulate.night import Night
from fleetbatch.simulate.scenario import CREDIT_PER_UNIT, Scenario
from fleetbatch.simulate.world import JOULES_PER_KWH, Floats, World

PRIORITIES: Final = 3
VALUES: Final = Policy(rates=(), power_w=()).value_per_unit


def summary(night: Night) -> dict[str, Any]:
    """Return the night as one JSON object; it holds no clock, so that one seed gives one answer."""
    world, meter = night.world, night.meter
    busy, lost = float(meter.busy_s.sum()), float(meter.lost_s.sum())
    units = night.deliveries.units(world)
    demand, done = _by_priority(world, None), _by_priority(world, night)
    value = realised_value(night)
    cars = night.deliveries.car >= 0
    return {
        "scenario": _scenario(world.scenario),
        "cars_at_a_plug": len(world.fleet),
        **_rounds(night),
        "value": value,
        "upper_bound": night.upper_bound,
        "realised_share": value / night.upper_bound if night.upper_bound > 0.0 else 1.0,
        "work_done_share": float(units.sum() / max(demand.sum(), 1e-9)),
        "done_share_by_priority": np.minimum(done / np.maximum(demand, 1e-9), 1.0).tolist(),
        "shards_whole": int(night.whole.sum()),
        "complete": bool(night.whole.all()),
        "able_s": able_s(world),
        "busy_s": busy,
        "idle_s": max(round(able_s(world) - float(meter.busy_s[~world.fleet.bad].sum()), 3), 0.0),
        "fetch_s": meter.fetch_s,
        "loading_s": meter.load_s,
        "lost_s": dict(zip(LOST, meter.lost_s.tolist(), strict=True)),
        "waste_share": lost / max(busy, 1e-9),
        "waste_share_of_honest_cars": (lost - float(meter.lost_s[REFUSED])) / max(busy, 1e-9),
        "energy_kwh": float(np.sum(meter.busy_s * world.fleet.plugs.compute_w)) / JOULES_PER_KWH,
        "energy_eur": meter.cost_eur,
        "carbon_g": meter.carbon_g,
        "carbon_g_per_unit": meter.carbon_g / max(float(units[cars].sum()), 1e-9),
        "demand_units": float(demand.sum()),
        "cloud_units": night.cloud_units,
        "car_units": float(units[cars].sum()),
        "credits_eur": float(credits_eur(night).sum()),
        "cars_that_earned": int((credits_eur(night) > 0.0).sum()),
        "bad_cars_caught": int(night.caught.sum()),
        "charges_later": night.charges_later,
    }


def _rounds(night: Night) -> dict[str, Any]:
    planners = [moment.planned.planner for moment in night.moments]
    return {
        "rounds": len(night.moments),
        "rounds_by_planner": {name: planners.count(name) for name in sorted(set(planners))},
        "pieces_verified": sum(moment.planned.pieces for moment in night.moments),
        "gap_mean": float(np.mean([moment.planned.gap for moment in night.moments])),
    }


def _scenario(scenario: Scenario) -> dict[str, Any]:
    """Return what was simulated, without what was left at nothing."""
    names = (
        "cars",
        "shards",
        "seed",
        "load",
        "hours",
        "replan",
        "starts_at",
        "stays",
        "believed",
        "cloud",
        "carbon_eur_per_tonne",
    )
    found = {name: getattr(scenario, name) for name in names}
    told = {name: str(value) if name in {"starts_at", "stays", "replan"} else value for name, value in found.items()}
    return {name: told[name] for name in names if found[name] is not None} | {
        "lived_by": "agents and machines" if scenario.is_exact else "arrays"
    }


def values_of(night: Night) -> Floats:
    """Return what each delivery of a car is worth, in the planner's units of value; what trusted machines did is 0."""
    rows = night.deliveries
    values = np.array(VALUES)[night.world.work.priority[rows.shard]]
    return np.asarray(values * rows.units(night.world) * (rows.car >= 0))


def realised_value(night: Night) -> float:
    """Return what cars' deliveries are worth, less the energy and its carbon."""
    return float(values_of(night).sum()) - night.cost_value


def credits_eur(night: Night) -> Floats:
    """Return what each car's owner earns for work that counts; the energy is paid beside it."""
    rows = night.deliveries
    mine = rows.car >= 0
    units = np.bincount(rows.car[mine], weights=rows.units(night.world)[mine], minlength=len(night.world.fleet))
    return np.asarray(units * CREDIT_PER_UNIT)


def able_s(world: World) -> float:
    """Return the seconds in which honest cars are at a plug, willing and able tonight."""
    fleet, night_s = world.fleet, world.scenario.night_s
    begins = np.clip(fleet.plugs.ready_s(), 0.0, night_s)
    return float(np.sum(np.maximum(np.minimum(fleet.gone_s, night_s) - begins, 0.0) * fleet.consent * ~fleet.bad))


def _by_priority(world: World, night: Night | None) -> Floats:
    work = world.work
    if night is None:
        return np.asarray(np.bincount(work.priority, weights=work.units * work.row_groups, minlength=PRIORITIES), float)
    rows = night.deliveries
    return np.asarray(np.bincount(work.priority[rows.shard], weights=rows.units(world), minlength=PRIORITIES), float)
