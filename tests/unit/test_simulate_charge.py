"""Charging in the simulation has physics of its own, and compute never makes a charge end later."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.simulate.charge import Charge, Plugs
from fleetbatch.simulate.driver import Driver

EPOCH = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
HOUR = 3600.0


def plugs(**changes: float) -> Plugs:
    """One car on an 11 kW wallbox of which it takes 9.6, half charged, there for ten hours."""
    given = {
        "arrive_s": 0.0, "leave_s": 10 * HOUR, "departs_s": float("nan"), "capacity_wh": 60_000.0, "soc": 0.5,
        "target": 0.8, "reserve": 0.2, "plug_w": 11_000.0, "accept_w": 9_600.0, "compute_w": 150.0,
    }  # fmt: skip
    return Plugs(**{name: np.array([value]) for name, value in (given | changes).items()})


def charge(*, plug_w: float = 11_000.0) -> Charge:
    return Charge(need_wh=9_600.0, accept_w=9_600.0, plug_w=plug_w, compute_w=150.0, begin_s=0.0)


def test_a_charge_takes_as_long_as_its_energy_at_the_power_that_is_left() -> None:
    alone, beside = charge(), charge(plug_w=9_600.0)
    beside.computing = True
    alone.pass_time(2 * HOUR)
    beside.pass_time(2 * HOUR)
    assert alone.full_at == pytest.approx(HOUR)
    assert beside.full_at == pytest.approx(HOUR * 9_600 / 9_450)
    assert beside.later(10 * HOUR)
    assert not alone.later(10 * HOUR)


def test_a_charge_that_is_not_over_when_the_owner_leaves_must_stand_where_it_would_have() -> None:
    beside = charge(plug_w=9_600.0)
    beside.computing = True
    beside.pass_time(HOUR / 2)
    assert beside.later(HOUR / 2)
    alone = charge()
    alone.pass_time(HOUR / 2)
    assert not alone.later(HOUR / 2)


def test_a_plug_without_room_is_left_to_the_battery() -> None:
    roomy, tight = plugs(), plugs(accept_w=10_900.0)
    assert roomy.ready_s()[0] == 0.0
    assert tight.ready_s()[0] == pytest.approx(HOUR * 0.3 * 60_000 / 0.9 / 10_900)


@settings(deadline=None, max_examples=60)
@given(
    soc=st.floats(0.05, 0.95), target=st.sampled_from([0.8, 1.0]), reserve=st.sampled_from([0.1, 0.2, 0.3]),
    plug_w=st.sampled_from([2_300.0, 3_700.0, 7_400.0, 11_000.0]), part=st.floats(0.85, 1.0),
    compute_w=st.sampled_from([100.0, 160.0, 300.0]), arrive_h=st.floats(-3.0, 3.0), stay_h=st.floats(0.5, 12.0),
)  # fmt: skip
def test_a_car_that_computes_whenever_it_may_charges_as_if_it_did_not(  # noqa: PLR0913, PLR0917
    soc: float,
    target: float,
    reserve: float,
    plug_w: float,
    part: float,
    compute_w: float,
    arrive_h: float,
    stay_h: float,
) -> None:
    one = plugs(
        soc=soc, target=target, reserve=reserve, plug_w=plug_w, accept_w=plug_w * part, compute_w=compute_w,
        arrive_s=arrive_h * HOUR, leave_s=(arrive_h + stay_h) * HOUR,
    )  # fmt: skip
    driver = Driver.at_plug(0, one, float(one.reserve_at()[0]), EPOCH)
    at_s = driver.charge.at_s
    while at_s < driver.leave_s:
        now = EPOCH + timedelta(seconds=at_s)
        looked = driver.look(at_s, now)
        driver.life = replace(driver.life, latch=looked.latch)
        driver.work(at_s, on=looked.latch.willing)
        at_s = min(driver.next_change_s(at_s), at_s + 600.0)
    driver.charge.pass_time(driver.leave_s)
    assert not driver.charge.later(driver.leave_s)
