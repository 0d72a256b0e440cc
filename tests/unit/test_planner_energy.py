"""What energy costs and emits reaches the plan: by zone and hour, weighed by one dial, and verified."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, mixed_fleet, mixed_work, shard, shards

from benchmarks.planner_fleet import evening
from fleetbatch import layout
from fleetbatch.cli.energy import load_energy, read_file
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.planner import (
    Policy,
    plan_round,
    read_energy,
    verify_round,
    with_energy,
    with_powers,
    write_energy,
)
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName

EU = CellName("eu-1")
CLEAN, DIRTY = (0.0,) * 6, (1e-4, *[0.0] * 5)
"""Grams a joule, step by step of the evening's tariff: nothing, and much in the first half hour."""
QUIET = evening(800, load=0.4, seed=4)
TONNE = 1.0
"""Currency a gram: one that decides."""


def prices(*rows: tuple[float, float, float | None], zone: str = "DE-LU") -> pa.Table:
    """Contract energy: hours from NOW, price a kWh, grams a kWh."""
    table = {
        "zone": pa.array([zone] * len(rows), pa.string()),
        "from_at": pa.array([NOW + timedelta(hours=hours) for hours, _, _ in rows], pa.timestamp("us", tz="UTC")),
        "price_per_kwh": pa.array([price for _, price, _ in rows], pa.float64()),
        "carbon_g_per_kwh": pa.array([grams for _, _, grams in rows], pa.float64()),
    }
    return conform(pa.table(table), "energy")


def priced(*rows: tuple[float, float, float | None], until_h: float = 8.0, **dials: Any) -> Policy:
    return with_energy(replace(POLICY, **dials), prices(*rows), "DE-LU", now=NOW, until_s=until_h * 3600.0)


def carbon(grams: Sequence[float], worth: float = TONNE) -> Policy:
    """The evening's policy without prices, but with intensities."""
    free = ((0.0,) * 6,)
    return replace(QUIET.policy, price_per_j=free, carbon_g_per_j=(tuple(grams),), carbon_currency_per_g=worth)


def test_intensities_that_are_worth_nothing_change_nothing_but_what_is_told() -> None:
    known = replace(QUIET.policy, carbon_g_per_j=(DIRTY,))
    plain, told = (plan_round(QUIET.cars, QUIET.shards, NOW, policy) for policy in (QUIET.policy, known))
    assert told.assignments.equals(plain.assignments)
    assert told.unassigned.equals(plain.unassigned)
    assert (told.certificate.value, told.certificate.upper_bound) == (
        plain.certificate.value,
        plain.certificate.upper_bound,
    )
    assert (plain.certificate.carbon_g, told.certificate.carbon_g > 0.0) == (0.0, True)


def test_a_dirty_hour_is_left_out_where_the_night_is_long_enough_and_a_clean_one_is_not() -> None:
    dirty_now, dirty_later = carbon(DIRTY), carbon(tuple(DIRTY[0] - one for one in DIRTY))
    assert plan_round(QUIET.cars, QUIET.shards, NOW, dirty_now).assignments.num_rows == 0
    found = plan_round(QUIET.cars, QUIET.shards, NOW, dirty_later)
    assert found.assignments.num_rows > 200
    assert verify_round(QUIET.cars, QUIET.shards, NOW, dirty_later, found) == []


def test_a_gram_counts_as_the_money_it_is_worth() -> None:
    grams = (3e-6, 1e-6, 4e-6, 1e-6, 5e-6, 9e-6)
    by_carbon = carbon(grams, worth=2.0)
    by_price = replace(by_carbon, carbon_g_per_j=(), price_per_j=(tuple(2.0 * one for one in grams),))
    one, other = (plan_round(QUIET.cars, QUIET.shards, NOW, policy) for policy in (by_carbon, by_price))
    assert one.assignments.equals(other.assignments)
    assert one.certificate.upper_bound == other.certificate.upper_bound


def test_cars_of_a_clean_zone_work_while_those_of_a_dirty_one_wait() -> None:
    zone = (np.arange(QUIET.cars.num_rows) % 2).astype(np.uint16)
    fleet = QUIET.cars.set_column(QUIET.cars.column_names.index("price_zone"), "price_zone", pa.array(zone))
    policy = replace(carbon(CLEAN), price_per_j=((0.0,) * 6,) * 2, carbon_g_per_j=(CLEAN, DIRTY))
    found = plan_round(fleet, QUIET.shards, NOW, policy)
    assert verify_round(fleet, QUIET.shards, NOW, policy, found) == []
    at_work = np.isin(fleet["car_id"].to_numpy(), found.assignments["car_id"].to_numpy())
    assert at_work[zone == 0].sum() > 100
    assert at_work[zone == 1].sum() <= 4, "only what somebody else would end too late"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), worth=st.sampled_from([0.0, 1e-3, 1.0]), prices_from=st.sampled_from([1, 1000]))
def test_the_certified_grams_are_those_of_the_pieces(seed: int, worth: float, prices_from: int) -> None:
    policy = replace(
        POLICY,
        prices_from_cars=prices_from,
        price_until_s=(600.0, 5000.0, 20_000.0),
        price_per_j=((1e-7, 2e-7, 3e-7),) * 2,
        carbon_g_per_j=((1e-4, 2e-5, 5e-5), (0.0, 1e-4, 3e-5)),
        carbon_currency_per_g=worth,
    )
    fleet, work = mixed_fleet(40, seed), mixed_work(60, seed)
    zone = pa.array((np.arange(40) % 2).astype(np.uint16))
    fleet = fleet.set_column(fleet.column_names.index("price_zone"), "price_zone", zone)
    found = plan_round(fleet, work, NOW, policy)
    assert verify_round(fleet, work, NOW, policy, found) == []
    for wrong in (found.certificate.carbon_g * 1.1 + 1.0, math.nan):
        spoiled = replace(found, certificate=replace(found.certificate, carbon_g=wrong))
        broken = [one.rule for one in verify_round(fleet, work, NOW, policy, spoiled)]
        assert broken == ["the certified carbon is that of the pieces"]


def test_grams_are_power_times_time_times_intensity() -> None:
    policy = replace(POLICY, price_until_s=(300.0, 8e4), price_per_j=((0.0, 0.0),), carbon_g_per_j=((1e-4, 2e-4),))
    found = plan_round(cars(car(1)), shards(shard(11, size_B=0)), NOW, policy)
    assert found.certificate.carbon_g == pytest.approx(150.0 * (300.0 * 1e-4 + 300.0 * 2e-4))


def test_a_table_of_hours_becomes_steps_from_now() -> None:
    found = priced((-3.5, 0.9, 900.0), (-0.5, 0.36, 360.0), (0.5, 0.18, None), (9.0, 9.0, 9.0))
    assert found.price_until_s == (1800.0, 86_400.0)
    assert found.price_per_j[0] == pytest.approx((1e-7, 0.5e-7))
    assert found.carbon_g_per_j[0] == pytest.approx((1e-4, 1e-4)), "what is not known is as it was before"


def test_prices_below_nothing_count_as_nothing_and_unknown_intensities_as_none() -> None:
    found = priced((-1.0, -0.05, None), (1.0, 0.36, None))
    assert found.price_per_j[0] == pytest.approx((0.0, 1e-7))
    assert found.carbon_g_per_j == ()


def test_many_hours_are_drawn_together_where_they_are_most_alike() -> None:
    quarters = [(k / 4, 0.36 if k < 8 else 0.36 * (1 + k % 2 / 1000), 400.0) for k in range(32)]
    found = priced(*quarters, (3.0 - 1 / 8, 1.0, 400.0), carbon_currency_per_g=1e-4)
    assert len(found.price_until_s) <= 6
    assert found.price_until_s[-1] == 86_400.0
    assert max(found.price_per_j[0]) == pytest.approx(1.0 / 3.6e6), "the one dear hour is kept apart"
    assert found.price_per_j[0][0] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "energy", [empty("energy"), prices((-30.0, 0.3, 300.0)), prices((-1.0, 0.3, 300.0), zone="FR")]
)
def test_without_prices_that_hold_the_policy_stays_as_it_is(energy: pa.Table) -> None:
    assert with_energy(POLICY, energy, "DE-LU", now=NOW, until_s=3600.0) == POLICY


def test_prices_that_only_begin_later_hold_until_then_too() -> None:
    assert priced((2.0, 0.36, 100.0)).price_per_j[0] == pytest.approx((1e-7,))


def test_what_cars_state_of_their_power_is_believed_by_its_median() -> None:
    said = pl.DataFrame({"hardware_class": ["npu", "npu", "npu", "old"], "power_w": [250.0, 270.0, 1e12, None]})
    assert with_powers(POLICY, said, ("cpu", "npu")).power_w == (150.0, 270.0)
    wild = pl.DataFrame({"hardware_class": ["cpu", "cpu", "npu"], "power_w": [math.nan, -4.0, math.inf]})
    assert with_powers(POLICY, wild, ("cpu", "npu")).power_w == POLICY.power_w
    assert with_powers(POLICY, said.clear(), ("cpu", "npu")).power_w == POLICY.power_w
    assert with_powers(POLICY, said.tail(2), ("cpu", "other")).power_w == (150.0, 10_000.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), deployment_key=bytes(32))


def test_what_was_written_for_a_cell_is_read_again(store: Store) -> None:
    assert read_energy(store, EU).num_rows == 0
    write_energy(store, EU, prices((1.0, 0.2, 1.0), (0.0, 0.1, None)))
    assert read_energy(store, EU)["price_per_kwh"].to_pylist() == [0.1, 0.2]
    store.write(layout.energy(EU), b"not a table")
    with pytest.raises(RejectedError, match="not a Parquet file"):
        read_energy(store, EU)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(0.0, 0.1, None), (0.0, 0.2, None)], "2 rows: DE-LU 2026-11-22T21:00Z is twice"),
        ([(0.0, math.nan, None)], "not a number of any electricity"),
        ([(0.0, 0.1, math.inf)], "not a number of any electricity"),
        ([(0.0, -1e7, 3.0)], "not a number of any electricity"),
        ([(0.0, 0.1, -3.0)], "less than 0 grams"),
    ],
)
def test_rows_that_make_no_sense_are_refused_by_name(
    store: Store, rows: list[tuple[float, float, float | None]], why: str
) -> None:
    with pytest.raises(RejectedError, match=why):
        write_energy(store, EU, prices(*rows))
    assert list(store.keys("cells/")) == []


def deployment(folder: Path, *energy: str) -> Path:
    (folder / "deployment.key").write_text("ab" * 32)
    cell = {name: name for name in ("region", "ledger_url", "gateway_ledger_url")}
    cell |= {"name": "eu-1", "gateway_url": "https://gateway.example"}
    lines = [f'store = "{(folder / "store").as_uri()}"', 'deployment_key_file = "deployment.key"', "[[cells]]"]
    settings_file = folder / "settings.toml"
    settings_file.write_text("\n".join([*lines, *(f'{name} = "{value}"' for name, value in cell.items()), *energy]))
    return settings_file


def test_a_file_of_prices_is_given_to_the_cells_that_name_their_zone(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "day.csv"
    file.write_text(
        "zone,from_at,price_per_kwh,carbon_g_per_kwh,source\n"
        "DE-LU,2026-11-22T23:00:00+01:00,0,380,x\nDE-LU,2026-11-22T23:00:00Z,0.21,,x\nFR,2026-11-22T22:00:00Z,0.1,40,x\n"
    )
    [line] = load_energy(deployment(tmp_path, 'energy_zone = "DE-LU"', "carbon_per_tonne = 80"), file)
    assert line == "cell eu-1: 2 prices of DE-LU, 2026-11-22 22:00 to 2026-11-22 23:00 UTC"
    kept = read_energy(store, EU)
    assert kept["from_at"][0].as_py() == datetime(2026, 11, 22, 22, tzinfo=UTC)
    assert kept["carbon_g_per_kwh"].to_pylist() == [380.0, None, 40.0]


@pytest.mark.parametrize(
    ("energy", "text", "why"),
    [
        (
            'energy_zone = "NO2"',
            "zone,from_at,price_per_kwh\nFR,2026-11-22T22:00:00Z,0.1\n",
            "nothing of its zone 'NO2'",
        ),
        ("", "zone,from_at,price_per_kwh\nFR,2026-11-22T22:00:00Z,0.1\n", "no cell names its `energy_zone`"),
        ('energy_zone = "FR"', "zone,from_at,price_per_kwh\nFR,yesterday,0.1\n", "cannot read energy prices"),
        ('energy_zone = "FR"', "zone,from_at,price_per_kwh\nFR,2026-11-22T22:00:00Z,cheap\n", "cannot read energy"),
        ('energy_zone = "FR"', "zone,price_per_kwh\nFR,0.1\n", "'from_at' is missing"),
        ('energy_zone = "FR"', "", "cannot read energy prices"),
        ("energy_zone = 4", "zone\n", "`energy_zone` is 4"),
        ("carbon_per_tonne = -1", "zone\n", "`carbon_per_tonne` is -1"),
        ('carbon_per_tonne = "much"', "zone\n", "`carbon_per_tonne` is 'much'"),
    ],
)
def test_a_file_or_setting_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, store: Store, energy: str, text: str, why: str
) -> None:
    file = tmp_path / "day.csv"
    file.write_text(text)
    with pytest.raises(RejectedError, match=why):
        load_energy(deployment(tmp_path, energy), file)
    assert list(store.keys("cells/")) == []


def test_instants_without_a_time_zone_are_refused(tmp_path: Path) -> None:
    rows = {"zone": ["FR"], "from_at": [datetime(2026, 11, 22, 22, tzinfo=UTC).replace(tzinfo=None)]}
    pl.DataFrame(rows).write_parquet(tmp_path / "day.parquet")
    with pytest.raises(RejectedError, match="no time zone"):
        read_file(tmp_path / "day.parquet")


def test_no_file_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("absent.csv", "absent.parquet"):
        with pytest.raises(RejectedError, match="cannot read energy prices"):
            read_file(tmp_path / name)
