"""Compute never makes a charge end later, on any plug, with and without stated departures."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fleetbatch.car import conditions
from fleetbatch.simulate.charging import LATE_S, Latches, Outcome, Seen, Stays, by_the_rule, draw_stays, live

EPOCH = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
NIGHTS = 4_000


def violations(outcome: Outcome) -> dict[str, int]:
    """Return how many cars broke each promise."""
    broken = {"later": outcome.behind_s > LATE_S} | {
        name: getattr(outcome, name) for name in ("missed", "drained", "restless")
    }
    return {name: int(cars.sum()) for name, cars in broken.items() if cars.any()}


@pytest.mark.parametrize("stated", [False, True])
def test_no_charge_ends_later_when_every_car_computes_whenever_it_may(stated: bool) -> None:  # noqa: FBT001
    outcome = live(draw_stays(NIGHTS, 1, stated=stated), seed=1)
    assert violations(outcome) == {}
    assert (outcome.computed_s > 0.0).mean() > 0.9


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stated", [False, True])
def test_no_charge_of_half_a_million_car_nights_ends_later(stated: bool) -> None:  # noqa: FBT001
    for seed in range(25):
        outcome = live(draw_stays(20_000, seed, stated=stated), seed=seed)
        assert violations(outcome) == {}


def departs_late(stays: Stays, seen: Seen, latches: Latches) -> Latches:
    """Compute as long as the charge could still be over at the stated departure: slack is lent."""
    left_s = stays.due_s - seen.at_s
    slack = 3600.0 * seen.missing_wh / stays.accept_w < left_s
    return replace(latches, on=seen.plugged & slack)


def sleepy(stays: Stays, seen: Seen, latches: Latches) -> Latches:
    """Look every five minutes only."""
    return by_the_rule(stays, seen, latches) if int(seen.at_s) % 300 == 1 else latches


@pytest.mark.parametrize(("rule", "name"), [(departs_late, "later"), (sleepy, "drained")])
def test_a_rule_that_lends_slack_or_looks_too_seldom_is_caught(rule: object, name: str) -> None:
    assert callable(rule)
    assert violations(live(draw_stays(NIGHTS, 1, stated=True), rule, seed=1))[name] > 0


def as_cars_decide(stays: Stays, seen: Seen, latches: Latches) -> Latches:
    """Ask the real conditions, car by car."""
    now = EPOCH + timedelta(seconds=seen.at_s)
    decided = [_asked(stays, seen, latches, place, now) for place in range(len(stays))]
    changed = [-np.inf if one.changed_at is None else (one.changed_at - EPOCH).total_seconds() for one in decided]
    return Latches(on=np.array([one.willing for one in decided]), changed_s=np.array(changed))


def _asked(stays: Stays, seen: Seen, latches: Latches, place: int, now: datetime) -> conditions.Latch:
    changed = float(latches.changed_s[place])
    standing = conditions.Latch(
        willing=bool(latches.on[place]),
        changed_at=None if changed == -np.inf else EPOCH + timedelta(seconds=changed),
    )
    above = float((stays.reserve_wh[place] - seen.missing_wh[place]) * SOC_MARGIN / stays.margin_wh[place])
    said = conditions.Reading(
        signals={
            conditions.CABLE: bool(seen.plugged[place]),
            conditions.SPEED: 0.0,
            conditions.TEMPERATURE: 20.0,
            conditions.SOC: 100.0 * (RESERVE + above),
            conditions.VOLTAGE: 230.0,
            conditions.CURRENT: float(seen.drawn_w[place]) / 230.0,
            conditions.CURRENT_MAX: float(seen.limit_w[place]) / 230.0,
        },
        reserve_soc=RESERVE,
        departure_at=EPOCH + timedelta(seconds=float(stays.due_s[place])),
    )
    limits = conditions.Limits(power_w=float(stays.compute_w[place]))
    return conditions.decide(standing, said, limits, now=now)


RESERVE = 0.2
SOC_MARGIN = conditions.Limits().soc_margin


def test_arrays_decide_as_the_conditions_of_cars_do() -> None:
    stays = draw_stays(60, 3, stated=True)
    arrays, cars = live(stays, seed=3), live(stays, as_cars_decide, seed=3)
    np.testing.assert_array_equal(arrays.computed_s, cars.computed_s)
    np.testing.assert_array_equal(arrays.behind_s, cars.behind_s)
