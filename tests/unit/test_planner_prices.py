"""Planned by prices a round keeps the same rules, and says how much it may have missed."""

import sys
from dataclasses import replace
from types import FrameType

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, mixed_fleet, mixed_work, shard, shards

from benchmarks.planner_fleet import NIGHT_S, Evening, evening, policy
from fleetbatch.planner import Policy, Reason, Round, plan_round, verify_round
from fleetbatch.planner.fill import Filling

PRICES = replace(POLICY, prices_from_cars=1)
SEEDS = st.integers(0, 2**32 - 1)
EVENING = evening(2000, load=1.3, seed=3)


def planned(given: Evening, **dials: object) -> Round:
    return plan_round(given.cars, given.shards, NOW, replace(given.policy, **dials))  # type: ignore[arg-type] # any dial


ROUND = planned(EVENING)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, fleet_size=st.integers(0, 60), work_size=st.integers(0, 120))
def test_no_round_breaks_a_rule(seed: int, fleet_size: int, work_size: int) -> None:
    fleet, work = mixed_fleet(fleet_size, seed), mixed_work(work_size, seed)
    assert verify_round(fleet, work, NOW, PRICES, plan_round(fleet, work, NOW, PRICES)) == []


@pytest.mark.parametrize("load", [0.1, 0.5, 0.7, 1.0, 1.3, 2.0])
def test_the_certified_gap_is_small_and_the_round_is_allowed(load: float) -> None:
    e = evening(1500, load=load, seed=int(load * 10))
    found = plan_round(e.cars, e.shards, NOW, e.policy)
    assert found.planner == "prices"
    assert 0.0 <= found.certificate.gap < 0.002
    assert verify_round(e.cars, e.shards, NOW, e.policy, found) == []


def test_the_gap_is_small_where_few_shards_meet_many_idle_cars() -> None:
    e = evening(2000, seed=4)
    found = plan_round(e.cars, e.shards.slice(0, 400), NOW, e.policy)
    assert 0.0 <= found.certificate.gap < 0.003


def test_where_half_the_cars_stand_idle_the_fast_ones_work_since_a_unit_costs_them_less() -> None:
    fleet = cars(*(car(number, speed=1.3 if number % 2 else 0.7) for number in range(1, 41)))
    waiting = shards(*(shard(number) for number in range(100, 108)))
    found = plan_round(fleet, waiting, NOW, replace(PRICES, price_per_j=((3e-8,),)))
    assert np.all(found.assignments["car_id"].to_numpy() % 2 == 1)
    assert found.assignments.num_rows == 8


def test_what_the_pieces_say_adds_up_to_what_the_certificate_says() -> None:
    value = np.array(EVENING.policy.value_per_unit)
    priority = EVENING.shards["priority"].to_numpy()
    place = np.searchsorted(EVENING.shards["shard_id"].to_numpy(), ROUND.assignments["shard_id"].to_numpy())
    placed = float(np.sum(value[priority[place]] * ROUND.assignments["expected_units"].to_numpy()))
    assert ROUND.certificate.placed == pytest.approx(placed, rel=1e-5)
    assert ROUND.certificate.placed < ROUND.certificate.value < ROUND.certificate.upper_bound


def test_at_overload_no_car_that_can_work_stands_idle() -> None:
    cheap = replace(EVENING.policy, price_per_j=((0.0,) * 6,))
    found = plan_round(EVENING.cars, EVENING.shards, NOW, cheap)
    idle = [row for row in found.car_plan.to_pylist() if row["reason"] == Reason.SHORT_WINDOW]
    assert len(idle) < 0.01 * EVENING.cars.num_rows


def test_dear_hours_are_left_out_where_the_night_is_long_enough() -> None:
    e = evening(1000, load=0.4, seed=4)
    dear_now = replace(e.policy, price_per_j=((1e-4, *[0.0] * 5),))
    free_now = replace(e.policy, price_per_j=((0.0, *[1e-4] * 5),))
    assert plan_round(e.cars, e.shards, NOW, dear_now).assignments.num_rows == 0
    assert plan_round(e.cars, e.shards, NOW, free_now).assignments.num_rows > 300


def test_shards_without_work_are_planned_like_any_other() -> None:
    work = shards(*(shard(one, work_units=0.0, size_B=6_000_000_000) for one in (11, 12)), shard(13))
    fleet, one_each = cars(car(1), car(2, consent=2)), replace(PRICES, pieces_max=1)
    found = plan_round(fleet, work, NOW, one_each)
    assert verify_round(fleet, work, NOW, one_each, found) == []
    assert found.assignments["car_id"].to_pylist() == [1]
    assert found.unassigned.num_rows == 2


def test_equal_input_in_any_row_order_gives_the_equal_round() -> None:
    chance = np.random.default_rng(1)
    fleet = EVENING.cars.take(chance.permutation(EVENING.cars.num_rows))
    work = EVENING.shards.take(chance.permutation(EVENING.shards.num_rows))
    again = plan_round(fleet, work, NOW, EVENING.policy)
    assert again.assignments.equals(ROUND.assignments)
    assert again.unassigned.equals(ROUND.unassigned)
    assert again.car_plan.equals(ROUND.car_plan)
    assert again.certificate.upper_bound == ROUND.certificate.upper_bound


def test_values_and_prices_in_another_currency_change_nothing_but_the_certificate() -> None:
    p = EVENING.policy
    other = replace(p, value_per_unit=tuple(8 * v for v in p.value_per_unit), unit_currency=p.unit_currency / 8)
    again = plan_round(EVENING.cars, EVENING.shards, NOW, other)
    assert again.assignments.equals(ROUND.assignments)
    assert again.certificate.upper_bound == pytest.approx(8 * ROUND.certificate.upper_bound)


def test_the_region_has_another_number_and_nothing_else_changes() -> None:
    def moved(rows: pa.Table) -> pa.Table:
        return rows.set_column(
            rows.column_names.index("region"), "region", pa.array(np.full(rows.num_rows, 9, np.uint16))
        )

    again = plan_round(moved(EVENING.cars), moved(EVENING.shards), NOW, EVENING.policy)
    assert again.assignments.equals(ROUND.assignments)


def test_withdrawn_consent_lowers_the_bound_and_more_cars_raise_it() -> None:
    bound = ROUND.certificate.upper_bound
    fewer = plan_round(EVENING.cars.slice(0, 1000), EVENING.shards, NOW, EVENING.policy).certificate.upper_bound
    column = EVENING.cars.column_names.index("consent")
    withdrawn = np.where(np.arange(2000) < 700, 0, EVENING.cars["consent"].to_numpy()).astype(np.uint32)
    unwilling = EVENING.cars.set_column(column, EVENING.cars.schema.field(column), pa.array(withdrawn))
    assert fewer < bound
    assert plan_round(unwilling, EVENING.shards, NOW, EVENING.policy).certificate.upper_bound < bound


def test_no_less_urgent_shard_is_placed_where_a_more_urgent_one_of_its_list_would_fit() -> None:
    assert inversions(EVENING, ROUND) == 0


def inversions(e: Evening, found: Round) -> int:
    """Pieces in whose place a more urgent waiting shard of the same kind and deadline would have fitted."""
    s = {name: e.shards[name].to_numpy() for name in e.shards.column_names if name != "held_by"}
    c = {name: e.cars[name].to_numpy() for name in ("car_id", "hw", "speed", "link_down_Bps")}
    kind = np.round(np.log2(s["size_B"] / s["work_units"])) * 100 + s["workload"] + s["deadline_s"] * 1e6
    waiting = np.isin(s["shard_id"], found.unassigned["shard_id"].to_numpy())
    waiting &= ~np.isin(s["shard_id"], found.assignments["shard_id"].to_numpy())
    count = 0
    for row in found.assignments.to_pylist():
        shard_row, car_row = (
            np.searchsorted(s["shard_id"], row["shard_id"]),
            np.searchsorted(c["car_id"], row["car_id"]),
        )
        better = np.flatnonzero(waiting & (kind == kind[shard_row]) & (s["priority"] < s["priority"][shard_row]))
        rate = np.array(e.policy.rates)[c["hw"][car_row], s["workload"][better]] * c["speed"][car_row]
        fetch = s["size_B"][better] / s["row_groups"][better] / c["link_down_Bps"][car_row]
        tau = np.maximum(s["work_units"][better] / s["row_groups"][better] / rate, fetch)
        ends = row["start_s"] + fetch + tau
        count += bool(np.any(ends <= np.minimum(row["end_s"], s["deadline_s"][better])))
    return count


def test_a_solver_that_comes_to_no_end_gives_way_to_the_simple_rule_and_the_round_says_so() -> None:
    found = planned(EVENING, solver_iterations_max=1)
    assert found.planner == "fallback"
    assert found.assignments.num_rows > 1000
    assert verify_round(EVENING.cars, EVENING.shards, NOW, EVENING.policy, found) == []


def test_pieces_start_within_the_commit_horizon_however_far_it_reaches() -> None:
    for commit_s in (300.0, 7200.0, 40_000.0):
        policy = replace(EVENING.policy, commit_s=commit_s)
        found = plan_round(EVENING.cars, EVENING.shards, NOW, policy)
        assert verify_round(EVENING.cars, EVENING.shards, NOW, policy, found) == []
        assert float(np.max(found.assignments["start_s"].to_numpy())) < commit_s


def test_a_whole_night_is_filled_in_hundreds_of_waves_not_in_one_a_car() -> None:
    night, waves = evening(2_000), 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal waves
        waves += event == "call" and frame.f_code is Filling._wave.__code__

    sys.setprofile(count)
    try:
        found = plan_round(night.cars, night.shards, NOW, policy(commit_s=NIGHT_S))
    finally:
        sys.setprofile(None)
    assert found.assignments.num_rows > 9_000
    assert 0 < waves < 1_000  # 596; 14,959 where a kind's cars take turns until the last of them has nothing to take


def test_running_cars_keep_their_shards_and_nobody_else_gets_them() -> None:
    heads = ROUND.assignments.filter(pa.array(ROUND.assignments["seq"].to_numpy() == 0))
    held = dict(zip(heads["car_id"].to_pylist(), heads["shard_id"].to_pylist(), strict=True))
    fleet = cars(
        *(
            {**row, "running_shard": held.get(row["car_id"]), "running_row_group": 0 if row["car_id"] in held else None}
            for row in EVENING.cars.to_pylist()
        )
    )
    taken = set(held.values())
    work = shards(*({**row, "held_by": [5] if row["shard_id"] in taken else []} for row in EVENING.shards.to_pylist()))
    found = plan_round(fleet, work, NOW, EVENING.policy)
    assert verify_round(fleet, work, NOW, EVENING.policy, found) == []
    kept = found.assignments.filter(pa.array(found.assignments["reason"].to_numpy() == Reason.RUNNING))
    assert set(kept["shard_id"].to_pylist()) <= taken
    assert kept.num_rows > 0.95 * len(held)


@pytest.mark.parametrize(
    ("fleet", "work"),
    [
        (cars(car(1)), shards()),
        (cars(car(1, survival=[255] + [0] * 96)), shards(shard(11, work_units=1e6))),
        (cars(car(1, speed=0.0)), shards(shard(11))),
        (cars(car(1, link_down_Bps=0.0)), shards(shard(11))),
        (cars(car(1, consent=0)), shards(shard(11))),
        (cars(car(1)), shards(shard(11, rg_next=10))),
        (cars(car(1)), shards(shard(11, deadline_s=-5.0))),
        (cars(car(1)), shards(shard(11, held_by=[4]))),
    ],
)
def test_nothing_to_plan_is_a_valid_empty_round(fleet: pa.Table, work: pa.Table) -> None:
    found = plan_round(fleet, work, NOW, PRICES)
    assert found.assignments.num_rows == 0
    assert verify_round(fleet, work, NOW, PRICES, found) == []


def test_hardware_without_any_rate_is_a_valid_empty_round() -> None:
    none = Policy(rates=((0.0, 0.0), (0.0, 0.0)), power_w=(1.0, 1.0), prices_from_cars=1)
    fleet, work = mixed_fleet(20, 1), mixed_work(20, 1)
    found = plan_round(fleet, work, NOW, none)
    assert found.assignments.num_rows == 0
    assert verify_round(fleet, work, NOW, none, found) == []


def test_many_deadlines_sizes_and_memories_are_drawn_together_and_stay_within_the_rules() -> None:
    chance = np.random.default_rng(8)
    work = shards(
        *(
            shard(
                number,
                deadline_s=float(chance.uniform(600, 80_000)),
                size_B=int(10 ** chance.uniform(3, 9)),
                mem_B=int(10 ** chance.uniform(3, 10)),
                hw_mask=int(chance.integers(1, 4)),
                work_units=float(10 ** chance.uniform(0, 4)),
            )
            for number in range(1, 400)
        )
    )
    fleet = mixed_fleet(150, 8)
    found = plan_round(fleet, work, NOW, PRICES)
    assert found.assignments.num_rows > 0
    assert verify_round(fleet, work, NOW, PRICES, found) == []


def test_cells_lose_nothing_that_could_be_seen() -> None:
    e = evening(4000, load=1.1, seed=9)
    whole = plan_round(e.cars, e.shards, NOW, e.policy).certificate.value
    parts = [
        plan_round(_part(e.cars, cell), _part(e.shards, cell), NOW, e.policy).certificate.value for cell in range(4)
    ]
    assert sum(parts) > 0.985 * whole


def _part(rows: pa.Table, cell: int) -> pa.Table:
    return rows.take(np.flatnonzero(rows[rows.column_names[0]].to_numpy() % 4 == cell))
