"""verify_round refuses whatever is not allowed, said rule by rule: each case spoils a good round in one way."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars, falling, mixed_fleet, mixed_work, shard, shards

from benchmarks.planner_fleet import evening
from fleetbatch.contracts import conform
from fleetbatch.planner.nouns import Round
from fleetbatch.planner.reasons import Reason
from fleetbatch.planner.round import plan_round, plan_simply
from fleetbatch.planner.verify import verify_round

CARS = cars(
    car(1, running_shard=14, running_row_group=2, free_in_s=480.0),
    car(2, hw=1, survival=falling(12)),
    car(3, limit_s=20_000.0),
    car(4, consent=1, hw=1),
)
SHARDS = shards(
    shard(11, priority=0),
    shard(12, work_units=1200.0),
    shard(13, workload=1),
    shard(14, rg_next=2, held_by=[1001]),
    shard(15, held_by=[77]),
    shard(16, region=3),
    shard(17, mem_B=1 << 40),
    shard(18, hw_mask=1, deadline_s=2000.0),
    shard(19, rg_next=3),
    shard(20, priority=2),
    shard(21, priority=2),
    shard(22, priority=2, row_groups=1, work_units=90.0),
)
GOOD = plan_round(CARS, SHARDS, NOW, POLICY)


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = GOOD.assignments.to_pylist()
    return found


def assigned(changed: list[dict[str, Any]]) -> Round:
    return replace(GOOD, assignments=pa.Table.from_pylist(changed, schema=GOOD.assignments.schema))


def row_of(wanted: int) -> int:
    return next(number for number, row in enumerate(rows()) if row["shard_id"] == wanted)


def change(wanted: int, **values: Any) -> Round:
    changed = rows()
    changed[row_of(wanted)].update(values)
    return assigned(changed)


def shift(shard_id: int, seconds: float) -> Round:
    row = rows()[row_of(shard_id)]
    return change(shard_id, start_s=row["start_s"] + seconds, end_s=row["end_s"] + seconds)


def holder_of(shard_id: int) -> int:
    found: int = rows()[row_of(shard_id)]["car_id"]
    return found


def add(**values: Any) -> Round:
    """One more piece at the end of the last car's queue."""
    changed = rows()
    last = changed[-1]
    extra = {**last, "seq": last["seq"] + 1, "start_s": last["end_s"], "end_s": last["end_s"] + 900.0, **values}
    return assigned([*changed, extra])


def unassigned(changed: list[dict[str, Any]]) -> Round:
    return replace(GOOD, unassigned=pa.Table.from_pylist(changed, schema=GOOD.unassigned.schema))


def waiting() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = GOOD.unassigned.to_pylist()
    return found


def swapped() -> Round:
    changed = rows()
    changed[0], changed[1] = changed[1], changed[0]
    return assigned(changed)


def plans(**values: Any) -> Round:
    changed = GOOD.car_plan.to_pylist()
    changed[0].update(values)
    return replace(GOOD, car_plan=pa.Table.from_pylist(changed, schema=GOOD.car_plan.schema))


CORRUPTIONS: dict[str, tuple[Callable[[], Round], str]] = {
    "an unknown car": (lambda: change(12, car_id=99), "every car is in the snapshot"),
    "an unknown shard": (lambda: change(12, shard_id=99), "every shard is open"),
    "rows out of order": (swapped, "rows are in order of car and seq"),
    "a gap in a queue": (lambda: change(14, seq=1), "seq counts from 0 without gaps"),
    "a time that is not a number": (lambda: change(12, start_s=float("nan")), "times, chances and units"),
    "an end that is not a number": (lambda: change(12, end_s=float("nan")), "times, chances and units"),
    "negative units": (lambda: change(12, expected_units=-1.0), "times, chances and units"),
    "row groups beyond the shard": (lambda: change(12, rg_end=11), "row groups lie within"),
    "no row groups at all": (lambda: change(12, rg_end=0), "row groups lie within"),
    "row groups that are delivered": (lambda: change(19, rg_start=1), "row groups lie within"),
    "a hole before the piece": (lambda: change(19, rg_start=4), "a piece starts where the shard stands"),
    "a car without consent": (lambda: change(13, car_id=4), "the owner consents"),
    "hardware outside the mask": (lambda: add(shard_id=18), "the shard allows the hardware"),
    "more memory than there is": (lambda: add(shard_id=17), "the car has the memory"),
    "another region": (lambda: add(shard_id=16), "the shard may leave for"),
    "a start before the car is free": (lambda: _second_of(1, start_s=10.0), "nothing starts before"),
    "an end after the limit": (lambda: shift(_last_of(3), 25_000.0), "nothing ends after the car's limit"),
    "an end after the deadline": (lambda: shift(18, 1900.0), "nothing ends after the deadline"),
    "an end when the car has left": (lambda: shift(_last_of(2), 86_000.0), "nothing ends when the car"),
    "two pieces at the same time": (lambda: _second_of(2, start_s=0.0), "pieces of a car do not overlap"),
    "a start beyond the horizon": (lambda: shift(_last_of(2), 5000.0), "nothing starts beyond the commit horizon"),
    "row groups faster than measured": (lambda: change(12, end_s=rows()[row_of(12)]["start_s"] + 1.0), "as long as"),
    "an invented chance": (lambda: change(_last_of(2), p_finish=0.1), "p_finish is the curve"),
    "invented units": (lambda: change(12, expected_units=5000.0), "expected_units follows"),
    "two holders": (lambda: add(shard_id=11), "a shard has one holder"),
    "someone else's lease": (lambda: add(shard_id=15), "a shard under lease stays"),
    "a running shard moved away": (lambda: change(14, car_id=1, shard_id=15), "a car's running shard comes first"),
    "a reason of another table": (lambda: change(12, reason=int(Reason.LATER)), "the reason is one of an assignment"),
    "running, said of a fresh shard": (lambda: change(12, reason=int(Reason.RUNNING)), "`running` only for"),
    "an unplanned copy": (lambda: change(12, copy=1), "copies are not planned"),
    "a speculative flag": (lambda: change(12, speculative=True), "copies are not planned"),
    "a queue without end": (lambda: change(12, seq=50), "a queue is not longer"),
    "a waiting shard left out": (lambda: unassigned(waiting()[1:]), "every shard with row groups left is named"),
    "a placed shard called waiting": (
        lambda: unassigned([*waiting(), {"shard_id": 22, "reason": int(Reason.LATER)}]),
        "every shard with row groups left is named",
    ),
    "a waiting shard without a good reason": (
        lambda: unassigned([{**waiting()[0], "reason": int(Reason.RUNNING)}, *waiting()[1:]]),
        "an unassigned shard has a reason",
    ),
    "a car missing in the plan": (
        lambda: replace(GOOD, car_plan=GOOD.car_plan.slice(1)),
        "every car has one row in the plan",
    ),
    "a wrong count in the plan": (lambda: plans(pieces=9), "the plan counts each car's pieces"),
    "a value from nowhere": (lambda: _certified(placed=GOOD.certificate.placed + 500.0), "the certified value"),
    "a bound below the value": (lambda: _certified(upper_bound=1.0), "value <= bound"),
    "a bound that is not a number": (lambda: _certified(upper_bound=float("nan")), "made of numbers"),
    "another now": (lambda: replace(GOOD, at=NOW + timedelta(seconds=1)), "the round counts from now"),
    "a column of another type": (
        lambda: replace(GOOD, assignments=GOOD.assignments.drop_columns(["reason"])),
        "the tables obey their contracts",
    ),
}


def _certified(**values: Any) -> Round:
    return replace(GOOD, certificate=replace(GOOD.certificate, **values))


def _last_of(car_id: int) -> int:
    found: int = [row for row in rows() if row["car_id"] == car_id][-1]["shard_id"]
    return found


def _second_of(car_id: int, **values: Any) -> Round:
    return change([row for row in rows() if row["car_id"] == car_id][1]["shard_id"], **values)


def test_the_good_round_passes() -> None:
    assert verify_round(CARS, SHARDS, NOW, POLICY, GOOD) == []
    assert conform(GOOD.assignments, "assignments").num_rows >= 6


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_verify_refuses(name: str) -> None:
    spoil, rule = CORRUPTIONS[name]
    broken = [violation.rule for violation in verify_round(CARS, SHARDS, NOW, POLICY, spoil())]
    assert any(rule in one for one in broken), broken


def test_hardware_that_computes_nothing_is_refused() -> None:
    fleet, work = cars(car(1)), shards(shard(11))
    planned = plan_round(fleet, work, NOW, POLICY)
    broken = verify_round(fleet, work, NOW, replace(POLICY, rates=((0.0, 0.0), (0.0, 0.0))), planned)
    assert "the hardware computes the workload" in {violation.rule for violation in broken}


def test_a_scrap_of_a_shard_is_refused_where_the_policy_wants_more() -> None:
    fleet, work = cars(car(1, limit_s=200.0)), shards(shard(11))
    planned = plan_round(fleet, work, NOW, POLICY)
    broken = verify_round(fleet, work, NOW, replace(POLICY, piece_row_groups_min=5), planned)
    assert "a piece is not shorter than the policy allows" in {violation.rule for violation in broken}


def test_every_violation_of_a_round_is_named_with_an_example() -> None:
    spoiled = replace(change(12, rg_end=11, copy=1), at=NOW + timedelta(seconds=9))
    broken = verify_round(CARS, SHARDS, NOW, POLICY, spoiled)
    assert len(broken) >= 3
    assert all(violation.example and violation.rows for violation in broken)


def test_a_piece_that_leaves_no_time_for_loading_its_model_is_refused() -> None:
    heavy = replace(POLICY, model_bytes=(6e8, 6e8))
    fleet, work = cars(car(1, cached=2), car(2)), shards(*(shard(number) for number in range(11, 15)))
    found = plan_round(fleet, work, NOW, heavy)
    assert verify_round(fleet, work, NOW, heavy, found) == []
    lengths = [row["end_s"] - row["start_s"] for row in found.assignments.to_pylist() if row["car_id"] == 1]
    assert lengths == pytest.approx([660.06, 600.06], abs=0.1), "the first piece loads, the next one does not"
    light = plan_round(fleet, work, NOW, POLICY)
    [broken] = verify_round(fleet, work, NOW, heavy, light)
    assert (broken.rule, broken.rows) == ("a model that the car lacks is loaded first", 1)


@pytest.mark.parametrize("seed", range(6))
def test_every_plan_leaves_time_for_loading(seed: int) -> None:
    heavy = replace(POLICY, model_bytes=(3e8, 1e9), prices_from_cars=1)
    fleet, work = mixed_fleet(80, seed), mixed_work(160, seed)
    for plan in (plan_round, plan_simply):
        assert verify_round(fleet, work, NOW, heavy, plan(fleet, work, NOW, heavy)) == []


def test_a_shard_that_takes_anothers_place_loads_the_model_that_the_other_would_have() -> None:
    for seed in range(4):
        e = evening(1000, load=1.3, seed=seed)
        bare = e.cars.set_column(e.cars.column_names.index("cached"), "cached", pa.array([0] * 1000, pa.uint32()))
        policy = replace(e.policy, model_bytes=(1.5e8,) * len(e.policy.rates[0]))
        assert verify_round(bare, e.shards, NOW, policy, plan_round(bare, e.shards, NOW, policy)) == []
