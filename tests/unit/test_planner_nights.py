"""Rounds at awkward hours and of awkward solvers; and ten million pieces that break no rule."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars
from proofs import Count

from benchmarks.planner_fleet import evening
from fleetbatch.planner import Beliefs, Policy, open_work, plan_round, verify_round

BERLIN = ZoneInfo("Europe/Berlin")
KINDS = [("image", "m1", "open")]
PIECES, PARTS = 10_000_000, 4


def registered(deadline_at: datetime, shards: int = 3) -> pa.Table:
    """What a ledger holds of an order: shards of ten minutes each on a middling car."""
    moment = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "shard_id": pa.array(range(11, 11 + shards), pa.uint64()),
            "workload": ["image"] * shards,
            "model_sha256": ["m1"] * shards,
            "data_class": ["open"] * shards,
            "row_groups": [10] * shards,
            "done_through": [0] * shards,
            "work_units": [600.0] * shards,
            "size_bytes": [1000] * shards,
            "priority": [1] * shards,
            "deadline_at": pa.array([deadline_at.astimezone(UTC)] * shards, moment),
            "held_by_car": pa.nulls(shards, pa.uint64()),
        }
    )


@pytest.mark.parametrize(
    ("evening_at", "hours"),
    [
        (datetime(2026, 11, 22, 22, tzinfo=BERLIN), 8),
        (datetime(2026, 3, 28, 22, tzinfo=BERLIN), 7),
        (datetime(2026, 10, 24, 22, tzinfo=BERLIN), 9),
    ],
    ids=["an ordinary night", "the clocks go forward", "the clocks go back"],
)
def test_a_local_deadline_is_so_many_true_hours_away(evening_at: datetime, hours: int) -> None:
    morning = (evening_at + timedelta(hours=8)).replace(hour=6)
    fleet = cars(*(car(number, limit_s=80_000.0, speed=0.03) for number in range(1, 4)))
    for planned_at in (evening_at, evening_at.astimezone(UTC)):
        work = open_work(registered(morning), fleet, KINDS, Beliefs(), now=planned_at)
        assert work["deadline_s"].to_pylist() == [hours * 3600.0] * 3
        found = plan_round(fleet, work, planned_at, POLICY)
        assert found.assignments.num_rows == 3
        assert verify_round(fleet, work, planned_at, POLICY, found) == []


@pytest.mark.parametrize("minutes", [1, 59, 61, 240])
def test_rounds_before_and_after_midnight_plan_alike(minutes: int) -> None:
    midnight = datetime(2026, 11, 23, 0, tzinfo=UTC)
    fleet = cars(car(1), car(2))
    rounds = []
    for now in (midnight - timedelta(minutes=minutes), midnight, midnight + timedelta(minutes=minutes)):
        work = open_work(registered(now + timedelta(hours=5)), fleet, KINDS, Beliefs(), now=now)
        rounds.append(plan_round(fleet, work, now, POLICY).assignments)
    assert all(one.equals(rounds[0]) for one in rounds)


@pytest.mark.parametrize("bound", [{"solver_s_max": 0.0}, {"solver_iterations_max": 1}])
def test_a_solver_that_runs_out_of_time_or_turns_gives_way_to_the_simple_rule(bound: dict[str, Any]) -> None:
    e = evening(500, load=1.0, seed=6)
    policy = replace(e.policy, **bound)
    found = plan_round(e.cars, e.shards, NOW, policy)
    assert found.planner == "fallback"
    assert found.assignments.num_rows > 300
    assert verify_round(e.cars, e.shards, NOW, policy, found) == []


def test_below_full_load_work_is_not_kept_for_the_last_hours() -> None:
    e = evening(800, load=0.6, seed=7)
    bold = plan_round(e.cars, e.shards, NOW, replace(e.policy, upsets_per_hour=0.0, buffer_worth=1.0))
    found = plan_round(e.cars, e.shards, NOW, e.policy)
    assert found.certificate.placed > 1.3 * bold.certificate.placed


def part_of(rows: pa.Table, cell: int, cells: int) -> pa.Table:
    return rows.take(np.flatnonzero(rows[rows.column_names[0]].to_numpy() % cells == cell))


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_cells_by_hash_lose_at_most_a_thousandth() -> None:
    e = evening(100_000, load=1.1, seed=9)
    whole = plan_round(e.cars, e.shards, NOW, e.policy).certificate.value
    parts = [plan_round(part_of(e.cars, n, 10), part_of(e.shards, n, 10), NOW, e.policy) for n in range(10)]
    share = sum(one.certificate.value for one in parts) / whole
    print(f"\nten cells of 10,000 cars: {share:.5f} of the value of one cell of 100,000")
    assert share > 0.999


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_million_pieces_break_no_rule(part: int, count: Count) -> None:
    chance, pieces, violations = np.random.default_rng([12, part]), 0, 0
    planned_s = verified_s = 0.0
    while pieces < PIECES // PARTS:
        e = evening(200_000, load=float(chance.choice([0.6, 1.0, 1.3, 2.0])), seed=int(chance.integers(1 << 30)))
        policy: Policy = replace(e.policy, commit_s=float(chance.choice([900.0, 3600.0, 14_400.0])))
        begun = time.process_time()
        found = plan_round(e.cars, e.shards, NOW, policy)
        made = time.process_time()
        violations += sum(one.rows for one in verify_round(e.cars, e.shards, NOW, policy, found))
        planned_s, verified_s = planned_s + made - begun, verified_s + time.process_time() - made
        pieces += found.assignments.num_rows
    print(f"a CPU second plans {pieces / planned_s:,.0f} pieces and verifies {pieces / verified_s:,.0f}")
    count(pieces=pieces, violations=violations)
    assert violations == 0
