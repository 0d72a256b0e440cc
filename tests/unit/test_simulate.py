"""A simulated night: one seed, one night; arrays live as agents and machines do; nothing beats the bound."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from fleetbatch.errors import RejectedError
from fleetbatch.simulate import Night, Scenario, night_page, simulate, summary
from fleetbatch.simulate.cell import Cell
from fleetbatch.simulate.cells import split
from fleetbatch.simulate.lives import Lives
from fleetbatch.simulate.meter import STOPPED
from fleetbatch.simulate.night import Played, live
from fleetbatch.simulate.rounds import Dispatcher, Offers, Planned
from fleetbatch.simulate.telemetry import Standing
from fleetbatch.simulate.world import Ints, World, draw

SMALL = Scenario(cars=100, shards=240, hours=3.0, replan=timedelta(minutes=30), exact=False)
HOUR_S = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
CALM = replace(SMALL, bad_share=0.0, outage_share=0.0, crash_share=0.0, stated_share=0.0, deadline_share=0.0)


@pytest.fixture(scope="module")
def by_arrays() -> Night:
    return simulate(SMALL)


def test_one_seed_gives_one_answer_and_another_seed_another(by_arrays: Night) -> None:
    assert summary(simulate(SMALL)) == summary(by_arrays)
    assert summary(simulate(replace(SMALL, seed=2)))["value"] != summary(by_arrays)["value"]


def rounds_of(world: World, *played: Played) -> Iterator[tuple[Standing, ...]]:
    """Give how each of several lives of one night stands at every round; all follow the first one's plans."""
    dispatcher, step, before = Dispatcher(world), world.scenario.replan.total_seconds(), -np.inf
    for at_s in np.arange(0.0, world.scenario.night_s, step).tolist():
        for one in played:
            one.settle(at_s)
        standings = tuple(one.standing(at_s, before) for one in played)
        yield standings
        offers: Offers = dispatcher.run_round(standings[0], at_s).offers
        for one in played:
            one.advance(offers, at_s, at_s + step)
        before = at_s


def test_arrays_live_the_night_that_agents_and_machines_live() -> None:
    world = draw(replace(CALM, part_every=timedelta(0), cached_share=0.3))
    arrays, exact = Lives(world), Cell(world)
    for a, b in rounds_of(world, arrays, exact):
        assert set(a.heard[a.willing].tolist()) == set(b.heard[b.willing].tolist())
        np.testing.assert_array_equal(a.running, b.running)
        np.testing.assert_array_equal(a.done, b.done)
        np.testing.assert_array_equal(a.open, b.open)
        np.testing.assert_array_equal(a.cached, b.cached)
    assert int(arrays.done.sum()) > 1000
    for one in (arrays, exact):
        one.hand_in(world.scenario.night_s)
    mine, theirs = _leases(arrays), _leases(exact)
    assert [row[:4] for row in mine] == [row[:4] for row in theirs]
    whole = world.work.row_groups[[row[1] for row in mine]] == [row[3] for row in mine]
    ends = np.array([[row[4] for row in rows] for rows in (mine, theirs)])
    np.testing.assert_allclose(ends[0, whole], ends[1, whole], atol=0.01)
    assert (ends[0] >= ends[1] - 0.01).all(), "arrays note what is left unfinished when it is let go"
    # Who gives a shard away hears it with the next beat, and at once in arrays; what is computed meanwhile is lost.
    later_s, lost_s = exact.meter.busy_s - arrays.meter.busy_s, exact.meter.lost_s - arrays.meter.lost_s
    assert -1.0 < later_s.min() <= later_s.max() <= world.scenario.beat_every.total_seconds()
    assert (later_s > 1.0).sum() <= 1
    assert lost_s[STOPPED] == pytest.approx(later_s.sum(), abs=10.0)
    np.testing.assert_allclose(np.delete(lost_s, STOPPED), 0.0, atol=10.0)
    for name in ("load_s", "fetch_s"):
        assert getattr(arrays.meter, name) == pytest.approx(getattr(exact.meter, name), rel=1e-4)
    spent = 1e-4 + later_s.sum() / exact.meter.busy_s.sum()
    for name in ("cost_eur", "carbon_g"):
        assert getattr(arrays.meter, name) == pytest.approx(getattr(exact.meter, name), rel=2 * spent)


@pytest.mark.parametrize("kind", [Lives, Cell])
def test_a_car_loads_a_model_before_its_first_row_group_and_never_again(kind: type[Lives | Cell]) -> None:
    world = draw(replace(CALM, cached_share=0.0, storm_share=0.0, hours=1.0))
    night = live(world, kind(world))
    by_car = world.load_s(np.arange(len(world.fleet)).repeat(3), np.tile(_a_shard_of_each(world), len(world.fleet)))
    assert 0.0 < night.meter.load_s <= by_car.sum()
    worked = {(row[0], int(world.work.workload[row[1]])) for row in _leases(night)}
    least = sum(float(world.load_s(np.array([car]), _a_shard_of_each(world)[[kind]])[0]) for car, kind in worked)
    assert night.meter.load_s >= 0.999 * least
    held = replace(world, fleet=replace(world.fleet, cached=np.ones_like(world.fleet.cached)))
    assert live(held, kind(held)).meter.load_s == 0.0


def _a_shard_of_each(world: World) -> Ints:
    return np.array([np.flatnonzero(world.work.workload == workload)[0] for workload in range(3)])


@pytest.mark.parametrize("kind", [Lives, Cell])
def test_a_model_whose_loading_was_broken_off_is_not_there(kind: type[Lives | Cell]) -> None:
    world = draw(replace(CALM, cached_share=0.0, storm_share=0.0))
    fleet, video = world.fleet, np.flatnonzero(world.work.workload == 1)[:1]
    car = int(np.flatnonzero((fleet.gone_s > HOUR_S) & fleet.consent & (fleet.plugs.ready_s() < 0.0))[0])
    slow = np.where(np.arange(len(fleet)) == car, 1e4, fleet.link)  # hours for a model
    played = kind(replace(world, fleet=replace(fleet, link=slow)))
    offered = np.where(np.arange(len(fleet) + 1) > car, 1, 0)
    played.advance(Offers(first=offered, shard=video), 0.0, 600.0)
    assert (played.standing(600.0, 0.0).running[car], played.standing(600.0, 0.0).cached[car, 1]) == (video[0], False)
    played.advance(Offers(first=0 * offered, shard=video[:0], given_away=video), 600.0, 1200.0)
    assert (played.standing(1200.0, 0.0).running[car], played.standing(1200.0, 0.0).cached[car, 1]) == (-1, False)


def test_a_dear_tonne_makes_a_cleaner_night_at_the_price_of_next_to_no_work() -> None:
    long = replace(CALM, load=0.4, hours=8.0, cars=600, shards=1500, plugged_share=0.5)
    free, dear = summary(simulate(long)), summary(simulate(replace(long, carbon_eur_per_tonne=400.0)))
    assert set(dear["rounds_by_planner"]) == {"prices", "greedy"}  # the solver never failed; at the end nothing is open
    assert dear["rounds_by_planner"]["prices"] > dear["rounds"] / 2
    assert dear["carbon_g_per_unit"] < 0.98 * free["carbon_g_per_unit"]
    assert dear["work_done_share"] > 0.99 * free["work_done_share"]


def _leases(lived: Played | Night) -> list[tuple[int, int, int, int, float]]:
    """Return what each car delivered of each shard without a break: car, shard, row groups from and to, and when."""
    rows = lived.deliveries if isinstance(lived, Night) else lived.log.close()
    leases = list[tuple[int, int, int, int, float]]()
    for row in zip(*(getattr(rows, name).tolist() for name in ("car", "shard", "start", "stop", "at_s")), strict=True):
        if leases and (leases[-1][:2], leases[-1][3]) == (row[:2], row[2]):
            leases[-1] = (*leases[-1][:3], *row[3:])
        else:
            leases.append(row)
    return leases


def test_agents_and_machines_survive_crashes_outages_and_bad_cars() -> None:
    rough = replace(SMALL, exact=True, bad_share=0.05, crash_share=0.1, outage_share=0.2, storm_share=0.5)
    night = simulate(rough)
    figures = summary(night)
    assert 0.3 < figures["realised_share"] < 1.0
    assert figures["lost_s"]["crashed"] > 0.0
    assert figures["bad_cars_caught"] > 0


def test_no_row_group_is_delivered_twice_and_none_of_a_bad_car_counts(by_arrays: Night) -> None:
    for night in (by_arrays, simulate(replace(SMALL, exact=True, bad_share=0.05))):
        rows, fleet = night.deliveries, night.world.fleet
        count = np.bincount(rows.shard, weights=rows.stop - rows.start, minlength=len(night.world.work))
        assert (count <= night.world.work.row_groups).all()
        assert not fleet.bad[rows.car].any()
        for shard in np.unique(rows.shard).tolist():
            mine = rows.shard == shard
            pieces = sorted(zip(rows.start[mine].tolist(), rows.stop[mine].tolist(), strict=True))
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(pieces))


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_beats_the_bound_of_somebody_who_knows_every_departure(seed: int) -> None:
    figures = summary(simulate(replace(SMALL, seed=seed, load=0.9)))
    assert 0.5 < figures["realised_share"] <= 1.0


def test_the_cloud_lane_finishes_what_cars_do_not() -> None:
    night = simulate(replace(SMALL, load=1.0, cloud=True))
    figures = summary(night)
    assert figures["cloud_units"] > 0.0
    assert figures["work_done_share"] > summary(simulate(replace(SMALL, load=1.0)))["work_done_share"]


def test_where_the_forecast_is_wrong_the_night_still_works() -> None:
    for believed in ("hopeful", "gloomy", "shuffled", "flat"):
        figures = summary(simulate(replace(CALM, believed=believed, hours=1.0)))
        assert figures["realised_share"] > 0.6


def test_a_fleet_split_by_hash_loses_nothing_and_nobody() -> None:
    world = draw(replace(SMALL, cars=8_000, shards=65_000, hours=8.0))
    cells = split(world, 3)
    every = [np.concatenate([one.fleet.car_id, one.fleet.absent_id, one.work.shard_id]) for one in (world, *cells)]
    np.testing.assert_array_equal(np.sort(np.concatenate(every[1:])), np.sort(every[0]))
    whole, parts = first_plan(world), [first_plan(cell) for cell in cells]
    assert whole.planner == "prices"
    assert sum(part.value for part in parts) >= 0.999 * whole.value


def first_plan(world: World) -> Planned:
    return Dispatcher(world).run_round(Lives(world).standing(0.0, -np.inf), 0.0)


@pytest.mark.parametrize("day", [datetime(2026, 3, 28, 23, tzinfo=BERLIN), datetime(2026, 10, 24, 23, tzinfo=BERLIN)])
def test_a_night_in_which_the_clocks_change_is_a_night_like_others(day: datetime) -> None:
    figures = summary(simulate(replace(SMALL, cars=60, starts_at=day, hours=4.0)))
    assert figures["rounds_by_planner"] == {"prices": 8}
    assert 0.7 < figures["realised_share"] < 1.0


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("cars", [1, 2])
def test_a_fleet_of_which_nobody_is_at_a_plug_has_a_night_without_work(cars: int, *, exact: bool) -> None:
    night = simulate(replace(SMALL, cars=cars, shards=2, plugged_share=0.0, exact=exact))
    figures = summary(night)
    assert (figures["cars_at_a_plug"], figures["work_done_share"], figures["complete"]) == (0, 0.0, False)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert "A simulated night" in night_page(night, figures)


def test_a_scenario_that_makes_no_night_is_refused_with_every_reason() -> None:
    with pytest.raises(RejectedError) as refused:
        simulate(Scenario(cars=0, load=-1.0, storm_share=2.0, shards=10**14, seed=-1))
    assert len(refused.value.problems) == 5


def test_a_file_of_stays_plays_the_fleet(shared_data: Path) -> None:
    night = simulate(replace(SMALL, stays=shared_data / "charging" / "sessions.parquet"))
    assert night.world.fleet.timezone == "Europe/Oslo"
    assert summary(night)["realised_share"] > 0.3


def test_the_page_shows_the_bound_the_waste_and_the_earnings_off_line(by_arrays: Night) -> None:
    page = night_page(by_arrays, summary(by_arrays))
    assert "bound for the night" in page
    assert "the owner left in mid row group" in page
    assert "EUR earned" in page
    assert "kg of CO2" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_night_without_a_car_of_the_fastest_class_has_figures() -> None:
    world = draw(replace(SMALL, cars=60, hours=1.0))
    world = replace(world, fleet=replace(world.fleet, hw=np.zeros(len(world.fleet), np.int64)))
    night = live(world, Lives(world))
    assert np.isfinite(night.meter.busy_s).all()
    assert summary(night)["realised_share"] > 0.5
