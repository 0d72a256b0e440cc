"""What a round states beside its pieces is refused where the tables show otherwise: reasons, plan, units, prices."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from planner_tables import NOW, POLICY, car, cars, shard, shards

from fleetbatch.planner import Reason, Round, plan_round, plan_simply, verify_round

PRICES = replace(POLICY, prices_from_cars=1)
CARS = cars(car(1), car(2, hw=1), car(3, limit_s=20_000.0))
WORK = shards(
    shard(11),
    shard(12, workload=1),
    shard(14, rg_next=2, held_by=[7]),
    shard(16, region=3),
    shard(17, mem_B=1 << 40),
    shard(18, deadline_s=-5.0),
    shard(19, deadline_s=20.0),
)
TRUE = {
    14: Reason.HELD,
    16: Reason.NO_REGION,
    17: Reason.NO_MEMORY,
    18: Reason.DEADLINE_PASSED,
    19: Reason.TOO_LONG,
}


def with_reasons(said: Mapping[int, Reason]) -> set[str]:
    """Return what is refused of a round without pieces, whose shards wait for these reasons, or for the true ones."""
    nobody = plan_simply(CARS.slice(0, 0), WORK, NOW, POLICY)
    waits = [
        {**row, "reason": int(said.get(row["shard_id"], TRUE.get(row["shard_id"], Reason.LATER)))}
        for row in nobody.unassigned.to_pylist()
    ]
    planned = plan_simply(CARS, WORK, NOW, POLICY)
    idle = [
        {**row, "pieces": 0, "busy_until_s": 0.0, "reason": int(Reason.SHORT_WINDOW)}
        for row in planned.car_plan.to_pylist()
    ]
    priorities = planned.certificate.priorities
    nothing = priorities.set_column(2, "expected", pa.array([0.0] * priorities.num_rows))
    round_ = replace(
        planned,
        assignments=nobody.assignments,
        car_plan=rows(idle, planned.car_plan),
        unassigned=rows(waits, planned.unassigned),
        certificate=replace(planned.certificate, placed=0.0, value=0.0, value_in_full=0.0, priorities=nothing),
    )
    return {one.rule for one in verify_round(CARS, WORK, NOW, POLICY, round_)}


def rows(told: list[dict[str, Any]], like: pa.Table) -> pa.Table:
    return pa.Table.from_pylist(told, schema=like.schema)


OWN_ROW = "a shard waits for the reason that its own row shows"
NOBODY = "where no car can, the stated reason is the first that stands in the way of all"


def test_the_true_reasons_pass() -> None:
    assert with_reasons({}) == set()


@pytest.mark.parametrize(
    ("shard_id", "said", "rule"),
    [
        (11, Reason.NO_CONSENT, NOBODY),
        (12, Reason.NO_HARDWARE, NOBODY),
        (11, Reason.NO_MEMORY, NOBODY),
        (11, Reason.NO_CARS, NOBODY),
        (11, Reason.TOO_LONG, NOBODY),
        (16, Reason.NO_MEMORY, NOBODY),
        (17, Reason.NO_REGION, NOBODY),
        (17, Reason.TOO_LONG, NOBODY),
        (11, Reason.HELD, OWN_ROW),
        (11, Reason.DEADLINE_PASSED, OWN_ROW),
        (11, Reason.REMAINDER, OWN_ROW),
        (14, Reason.OUTBID, OWN_ROW),
        (18, Reason.LATER, OWN_ROW),
    ],
)
def test_a_shard_that_waits_for_a_reason_which_is_not_so_is_refused(shard_id: int, said: Reason, rule: str) -> None:
    assert with_reasons({shard_id: said}) == {rule}


@pytest.mark.parametrize("claim", [Reason.NO_WORK, Reason.NOTHING_FITS, Reason.BUSY, Reason.NOT_READY, Reason.HAS_WORK])
def test_a_car_that_idles_for_a_reason_which_is_not_so_is_refused(claim: Reason) -> None:
    fleet, work = cars(car(1), car(2)), shards(shard(11))
    found = plan_round(fleet, work, NOW, POLICY)
    told = [{**row, "reason": row["reason"] if row["pieces"] else int(claim)} for row in found.car_plan.to_pylist()]
    [broken] = verify_round(fleet, work, NOW, POLICY, replace(found, car_plan=rows(told, found.car_plan)))
    assert broken.rule == "a car has work or idles for the reason that its own row and the open work show"
    assert broken.rows == 1


def changed(table: pa.Table, name: str, change: Callable[[float], float]) -> pa.Table:
    """The table with another first value in a column."""
    told: list[Any] = table[name].to_pylist()
    other = pa.array([change(told[0]), *told[1:]], table.schema.field(name).type)
    return table.set_column(table.column_names.index(name), name, other)


def certified(found: Round, **values: Any) -> Round:
    return replace(found, certificate=replace(found.certificate, **values))


SPOILED: dict[str, tuple[Callable[[Round], Round], str]] = {
    "busy until an instant from nowhere": (
        lambda r: replace(r, car_plan=changed(r.car_plan, "busy_until_s", lambda at: at + 5.0)),
        "the plan says until when a car is busy",
    ),
    "busy until no number": (
        lambda r: replace(r, car_plan=changed(r.car_plan, "busy_until_s", lambda _: float("nan"))),
        "the plan says until when a car is busy",
    ),
    "a rule that nobody knows": (
        lambda r: replace(r, planner="magic"),
        "the round says by which rule it was planned",
    ),
    "prices of a plan that has none": (
        lambda r: replace(r, planner="fallback"),
        "a plan by prices states both, and no other does",
    ),
    "no prices": (
        lambda r: certified(r, prices=r.certificate.prices.slice(0, 0)),
        "a plan by prices states both, and no other does",
    ),
    "prices without the plan": (
        lambda r: certified(r, plan=None),
        "a plan by prices states both, and no other does",
    ),
    "a block without a price": (
        lambda r: certified(r, prices=r.certificate.prices.slice(1)),
        "prices are numbers of at least 0, block after block",
    ),
    "a price below nothing": (
        lambda r: certified(r, prices=changed(r.certificate.prices, "price", lambda _: -1.0)),
        "prices are numbers of at least 0, block after block",
    ),
    "a price that is no number": (
        lambda r: certified(r, prices=changed(r.certificate.prices, "price", lambda _: float("nan"))),
        "prices are numbers of at least 0, block after block",
    ),
    "less in full than with a discount": (
        lambda r: certified(r, value_in_full=r.certificate.value * 0.9),
        "value <= value in full <= all open work",
    ),
    "more in full than there is": (
        lambda r: certified(r, value_in_full=r.certificate.value * 9.0),
        "value <= value in full <= all open work",
    ),
    "demand from nowhere": (
        lambda r: certified(r, priorities=changed(r.certificate.priorities, "demand", lambda units: units + 9.0)),
        "open and expected units are stated by priority",
    ),
    "expected units from nowhere": (
        lambda r: certified(r, priorities=changed(r.certificate.priorities, "expected", lambda units: units + 9.0)),
        "open and expected units are stated by priority",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_certificate_or_plan_that_the_tables_contradict_is_refused(name: str) -> None:
    spoil, rule = SPOILED[name]
    found = plan_round(CARS, WORK, NOW, PRICES)
    assert verify_round(CARS, WORK, NOW, PRICES, found) == []
    assert rule in {one.rule for one in verify_round(CARS, WORK, NOW, PRICES, spoil(found))}


@pytest.mark.parametrize("claim", [Reason.BUSY, Reason.GIVES_AWAY, Reason.RUNS_LATE])
def test_a_car_that_could_go_on_with_what_it_holds_has_no_reason_not_to(claim: Reason) -> None:
    fleet, work = cars(car(1, running_shard=11, running_row_group=2)), shards(shard(11, held_by=[1001]))
    found, nothing = plan_simply(fleet, work, NOW, POLICY), plan_simply(fleet.slice(0, 0), work, NOW, POLICY)
    told = [{**row, "pieces": 0, "busy_until_s": 0.0, "reason": int(claim)} for row in found.car_plan.to_pylist()]
    priorities = found.certificate.priorities
    none = priorities.set_column(2, "expected", pa.array([0.0] * priorities.num_rows))
    dropped = certified(
        replace(
            found,
            assignments=nothing.assignments,
            unassigned=nothing.unassigned,
            car_plan=rows(told, found.car_plan),
        ),
        placed=0.0,
        priorities=none,
    )
    [broken] = verify_round(fleet, work, NOW, POLICY, dropped)
    assert broken.rule == "a car has work or idles for the reason that its own row and the open work show"
