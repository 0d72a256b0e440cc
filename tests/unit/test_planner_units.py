"""Orders of unlike workloads meet at the value of a car's time, not at that of a row."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars

from fleetbatch.planner import Beliefs, Policy, as_registered, measured_policy, open_work, plan_round, verify_round
from fleetbatch.workloads import row_seconds, row_units, workload

KINDS = [("image", "m", "open"), ("scenario", "n", "open")]
BELIEFS = Beliefs(row_units=row_seconds())
NIGHT = replace(POLICY, prices_from_cars=1, commit_s=28_800.0, pieces_max=200)
SHARD_S = 1200.0
FIRST_SCENARIO = 5000


def registered(first: int, count: int, kind: str, model: str, priority: int) -> list[dict[str, object]]:
    """Shards of twenty minutes of the reference car, as the ledger counts their rows."""
    return [
        {
            "shard_id": first + number, "workload": kind, "model_sha256": model, "data_class": "open",
            "row_groups": 20, "done_through": 0, "work_units": SHARD_S * workload(kind).rows_per_s * row_units(kind),
            "size_bytes": 2000, "priority": priority, "deadline_at": NOW + timedelta(hours=8),
        }
        for number in range(count)
    ]  # fmt: skip


def served(*, scenarios_at: int, pictures_at: int, measured: bool) -> tuple[int, int]:
    """Return how many shards of pictures and of scenarios begin in a night that has time for half of all."""
    rows = registered(100, 120, "image", "m", pictures_at) + registered(
        FIRST_SCENARIO, 120, "scenario", "n", scenarios_at
    )
    table = pa.Table.from_pylist(rows).append_column("held_by_car", pa.nulls(len(rows), pa.uint64()))
    nobody = pa.table({"car_id": pa.array([], pa.uint64()), "owner_id": pa.array([], pa.uint64())})
    work = open_work(table, nobody, KINDS, BELIEFS, now=NOW)
    seconds = 1e6 if measured else 0.0
    rates = pa.table(
        {
            "workload": ["image", "scenario"],
            "hardware_class": ["cpu"] * 2,
            "cars": [64] * 2,
            "rows": [workload(kind).rows_per_s * seconds for kind in ("image", "scenario")],
            "busy_s": [seconds] * 2,
        }
    )
    policy = measured_policy(replace(NIGHT, rates=(), power_w=()), rates, KINDS, ("cpu",), BELIEFS)
    fleet = cars(*(car(number) for number in range(1, 6)))
    found = plan_round(fleet, work, NOW, policy)
    assert verify_round(fleet, work, NOW, policy, found) == []
    begun = found.assignments["shard_id"].to_numpy()
    lengths = (found.assignments["end_s"].to_numpy() - found.assignments["start_s"].to_numpy())[
        found.assignments["rg_end"].to_numpy() == 20
    ]
    assert np.allclose(lengths, SHARD_S, rtol=0.05), "twenty minutes are planned as twenty minutes, whatever the rows"
    return int((begun < FIRST_SCENARIO).sum()), int((begun >= FIRST_SCENARIO).sum())


@pytest.mark.parametrize("measured", [False, True])
def test_urgent_scenarios_come_before_pictures_of_which_a_car_does_thirty_in_the_same_time(measured: bool) -> None:  # noqa: FBT001 # pytest's way
    pictures, scenarios = served(scenarios_at=0, pictures_at=2, measured=measured)
    assert scenarios == 120
    assert pictures <= 5
    pictures, scenarios = served(scenarios_at=2, pictures_at=0, measured=measured)
    assert (pictures >= 115, scenarios <= 10) == (True, True)


def test_orders_of_equal_priority_share_the_cars_whatever_a_row_takes() -> None:
    pictures, scenarios = served(scenarios_at=1, pictures_at=1, measured=True)
    assert pictures + scenarios >= 115
    assert min(pictures, scenarios) >= 40


def test_a_workload_that_nobody_here_knows_is_taken_for_the_usual() -> None:
    known = {"workload": ["words"], "hardware_class": ["cpu"], "cars": [64], "rows": [50e6], "busy_s": [1e6]}
    policy = Policy(rates=(), power_w=())
    rate = measured_policy(policy, pa.table(known), [("words", "", "open")], ("cpu",), BELIEFS).rates[0][0]
    assert rate == pytest.approx(50.0 * BELIEFS.row_units_usual, rel=1e-3)


def test_a_workload_that_is_not_installed_here_is_measured_as_its_shards_were_registered() -> None:
    live = int(SHARD_S * workload("scenario").rows_per_s)
    whole, half_dead = registered(100, 2, "scenario", "n", 0)
    shards = pa.Table.from_pylist([{**whole, "rows": live}, {**half_dead, "rows": 2 * live}])
    pictures_only = Beliefs(row_units={"image": row_seconds()["image"]})
    known = {"workload": ["scenario"], "hardware_class": ["cpu"], "cars": [64], "rows": [5e5], "busy_s": [1e6]}
    beliefs = as_registered(pictures_only, shards, KINDS)
    [[_, rate]] = measured_policy(Policy(rates=(), power_w=()), pa.table(known), KINDS, ("cpu",), beliefs).rates
    assert rate == pytest.approx(1.0, rel=1e-3), "the reference car's pace, at which a shard takes its twenty minutes"
    assert beliefs.units_of_row("image") == pictures_only.units_of_row("image")


ROWS = Beliefs(row_units_usual=1.0)
"""A unit is a row."""


def test_what_a_class_that_nobody_drives_tonight_has_done_makes_no_other_class_faster() -> None:
    kinds = [("image", "m", "open")]
    groups = {"workload": ["image"] * 2, "hardware_class": ["npu", "cpu"], "cars": [64, 64]}
    rates = pa.table({**groups, "rows": [8_000_000, 0], "busy_s": [1e6, 1e6]})
    tonight = measured_policy(POLICY, rates, kinds, ("cpu",), ROWS)
    assert tonight.rates[0][0] < 1e-3
    assert measured_policy(POLICY, rates, kinds, ("cpu", "other"), ROWS).rates[1][0] == pytest.approx(8.0, rel=1e-3)


def cpu_rate(*groups: tuple[int, int, float]) -> float:
    cars, rows, busy_s = zip(*groups, strict=True)
    table = {"workload": ["image"] * len(groups), "hardware_class": ["cpu"] * len(groups)}
    rates = pa.table({**table, "cars": cars, "rows": rows, "busy_s": busy_s})
    return measured_policy(POLICY, rates, [("image", "m", "open")], ("cpu",), ROWS).rates[0][0]


@pytest.mark.parametrize(("busy_s", "times"), [(1e12, 0.5), (0.0, 2.0)])
def test_one_car_halves_or_doubles_what_is_believed_of_a_class_and_does_not_stop_it(
    busy_s: float, times: float
) -> None:
    assert cpu_rate((1, 20_000, busy_s)) == times * ROWS.rate_units_per_s


@pytest.mark.parametrize("busy_s", [1e12, 0.0])
def test_a_car_that_computes_otherwise_than_all_others_moves_no_class(busy_s: float) -> None:
    assert cpu_rate((9, 8_000_000, 1e6), (1, 20_000, busy_s)) == pytest.approx(8.0, rel=1e-3)
