"""What a round's certificate states is worked out once more: whatever is a thousandth off is refused."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import NOW, POLICY, car, cars, mixed_fleet, mixed_work, shard, shards

from benchmarks.planner_fleet import evening
from fleetbatch.planner import Certificate, Policy, Round, plan_round, plan_simply, verify_round
from fleetbatch.planner.nouns import Plan

PRICED = replace(
    POLICY,
    prices_from_cars=1,
    price_until_s=(600.0, 5000.0, 20_000.0),
    price_per_j=((1e-7, 2e-7, 3e-7),),
    carbon_g_per_j=((1e-4, 2e-5, 5e-5),),
    carbon_currency_per_g=1e-4,
)
OFF: Final = 1e-3
AMOUNTS: Final = ("placed", "value", "value_in_full", "upper_bound", "carbon_g")
EVENING = evening(600, load=0.9, seed=11)
NIGHT = replace(EVENING.policy, carbon_g_per_j=((1e-4, 5e-5, 2e-5, 2e-5, 3e-5, 1e-4),))
ROUND = plan_round(EVENING.cars, EVENING.shards, NOW, NIGHT)
SIMPLE = plan_simply(EVENING.cars, EVENING.shards, NOW, NIGHT)


def broken(found: Round, **changes: Any) -> set[str]:
    """Return what is refused of the evening's round with another certificate."""
    spoiled = replace(found, certificate=replace(found.certificate, **changes))
    return {one.rule for one in verify_round(EVENING.cars, EVENING.shards, NOW, NIGHT, spoiled)}


def planned(**changes: npt.NDArray[Any]) -> set[str]:
    """Return what is refused of the evening's round with another plan behind its certificate."""
    return broken(ROUND, plan=replace(plan_of(ROUND.certificate), **changes))


def plan_of(c: Certificate) -> Plan:
    assert c.plan is not None
    return c.plan


def scaled(table: pa.Table, name: str, times: float) -> pa.Table:
    column = table[name].to_numpy() * times
    return table.set_column(table.column_names.index(name), name, pa.array(column, table.schema.field(name).type))


def test_honest_certificates_pass() -> None:
    assert (ROUND.planner, SIMPLE.planner) == ("prices", "greedy")
    assert broken(ROUND) == broken(SIMPLE) == set()


@pytest.mark.parametrize("times", [1.0 - OFF, 1.0 + OFF])
@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize("found", [ROUND, SIMPLE], ids=["prices", "simple"])
def test_an_amount_a_thousandth_off_is_refused(found: Round, name: str, times: float) -> None:
    assert broken(found, **{name: getattr(found.certificate, name) * times})


@pytest.mark.parametrize("name", ["demand", "expected"])
def test_units_of_a_priority_a_thousandth_off_are_refused(name: str) -> None:
    assert broken(ROUND, priorities=scaled(ROUND.certificate.priorities, name, 1.0 + OFF)) == {
        "open and expected units are stated by priority"
    }


HOLDS: Final = "the plan keeps to the cars' time and to the open work"
TELLS: Final = "prices and plan tell of the same cars, kinds, blocks and deadlines"
STATES_OTHERWISE: Mapping[str, str] = {
    "bytes_per_unit_min": "every open shard is of a priced kind and deadline",
    "bytes_per_unit": HOLDS,
    "mem_B_min": "every open shard is of a priced kind and deadline",
    "from_s": "prices are numbers of at least 0, block after block",
    "until_s": "prices are numbers of at least 0, block after block",
}


@pytest.mark.parametrize("name", STATES_OTHERWISE)
def test_what_prices_are_said_of_cannot_be_a_thousandth_off(name: str) -> None:
    assert STATES_OTHERWISE[name] in broken(ROUND, prices=scaled(ROUND.certificate.prices, name, 1.0 + OFF))


@pytest.mark.parametrize("name", ["bytes_per_unit", "mem_B"])
def test_shards_beyond_the_most_that_a_kind_asks_are_named(name: str) -> None:
    prices = scaled(ROUND.certificate.prices, name, 1.0 - OFF)
    assert broken(ROUND, prices=prices) == {"every open shard is of a priced kind and deadline"}


@pytest.mark.parametrize("times", [0.0, 0.9, 1.1, 5.0])
def test_prices_that_give_another_bound_than_the_stated_are_refused(times: float) -> None:
    prices = scaled(ROUND.certificate.prices, "price", times)
    assert broken(ROUND, prices=prices) == {"the stated bound is the one that the prices give"}


def test_prices_that_hold_for_ever_are_refused() -> None:
    prices = ROUND.certificate.prices
    until = prices["until_s"].to_numpy().copy()
    until[until == until.max()] = np.inf
    endless = prices.set_column(prices.column_names.index("until_s"), "until_s", pa.array(until))
    assert broken(ROUND, prices=endless)


def test_prices_of_another_order_of_kinds_are_refused() -> None:
    prices = ROUND.certificate.prices
    blocks = int(np.argmax(prices["from_s"].to_numpy()[1:] == 0.0)) + 1
    assert broken(ROUND, prices=pa.concat_tables([prices.slice(blocks), prices.slice(0, blocks)]))


def test_prices_without_the_last_blocks_of_a_kind_are_refused() -> None:
    prices = ROUND.certificate.prices
    assert broken(ROUND, prices=prices.slice(0, prices.num_rows - 1)) == {
        "prices and plan tell of the same cars, kinds, blocks and deadlines"
    }


def holes(share: npt.NDArray[np.float64], to: float) -> npt.NDArray[np.float64]:
    """The shares with another first one."""
    other = share.copy()
    other.flat[int(np.argmax(share))] = to
    return other


PLANS: dict[str, tuple[Callable[[Plan], dict[str, npt.NDArray[Any]]], str]] = {
    "shares of more time than there is": (lambda p: {"share": p.share * 1.5}, HOLDS),
    "shares of less time than the work needs": (lambda p: {"share": p.share * 0.9}, HOLDS),
    "a share below nothing": (lambda p: {"share": holes(p.share, -0.5)}, HOLDS),
    "more work than there is": (lambda p: {"flow": p.flow * 1.01}, HOLDS),
    "work below nothing": (lambda p: {"flow": holes(p.flow, -1.0)}, HOLDS),
    "a thousandth less work": (
        lambda p: {"flow": p.flow * (1.0 - OFF)},
        "the stated value is what the plan is worth",
    ),
    "work after its deadline": (lambda p: {"flow": p.flow[:, ::-1]}, HOLDS),
    "a car twice": (lambda p: {"order": np.append(p.order[1:2], p.order[1:])}, TELLS),
    "a car that is not there": (lambda p: {"order": np.append(-1, p.order[1:])}, TELLS),
    "a car without a class": (lambda p: {"starts": np.append(p.starts[:-1], p.starts[-1] - 1)}, TELLS),
    "classes of other cars": (lambda p: {"order": p.order[::-1]}, HOLDS),
    "a class too few": (lambda p: {"starts": p.starts[1:]}, TELLS),
    "deadlines that fall": (lambda p: {"deadlines": p.deadlines[::-1]}, TELLS),
    "work due after the last block": (lambda p: {"latest": p.latest + 60.0}, TELLS),
    "deadlines before those of the shards": (
        lambda p: {"deadlines": p.deadlines - 10.0, "latest": p.latest - 10.0},
        "every open shard is of a priced kind and deadline",
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_cars_or_work_do_not_allow_is_refused(name: str) -> None:
    spoil, rule = PLANS[name]
    assert rule in planned(**spoil(plan_of(ROUND.certificate)))


def spoiled(c: Certificate) -> Iterator[tuple[str, Certificate]]:
    """Yield the certificate with each of its amounts a thousandth off."""
    for name in AMOUNTS:
        amount = getattr(c, name)
        if amount > 0.0:
            yield from ((name, replace(c, **{name: amount * times})) for times in (1.0 - OFF, 1.0 + OFF))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    fleet_size=st.integers(1, 40),
    work_size=st.integers(1, 80),
    dials=st.fixed_dictionaries(
        {
            "upsets_per_hour": st.sampled_from([0.0, 0.05, 2.0]),
            "buffer_worth": st.sampled_from([0.0, 0.5, 1.0]),
            "buffer_s": st.sampled_from([0.0, 3600.0, 40_000.0]),
            "workload_floor": st.sampled_from([0.0, 0.5]),
            "prices_from_cars": st.sampled_from([1, 1, 1, 1000]),
        }
    ),
)
def test_of_any_round_the_stated_amounts_pass_and_no_others(
    seed: int, fleet_size: int, work_size: int, dials: dict[str, Any]
) -> None:
    policy: Policy = replace(PRICED, **dials)
    fleet, work = mixed_fleet(fleet_size, seed), mixed_work(work_size, seed)
    found = plan_round(fleet, work, NOW, policy)
    assert verify_round(fleet, work, NOW, policy, found) == []
    for name, certificate in spoiled(found.certificate):
        assert verify_round(fleet, work, NOW, policy, replace(found, certificate=certificate)), name


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_with_running_cars_many_deadlines_and_sizes_the_amounts_are_found_again(seed: int) -> None:
    chance = np.random.default_rng(seed)
    runs = chance.permutation(np.arange(100, 140))
    fleet = cars(
        *(
            car(
                number,
                mem_B=int(chance.integers(1, 6)) << 28,
                ready_s=float(chance.choice([0.0, 5000.0])),
                limit_s=float(chance.uniform(600.0, 90_000.0)),
                speed=float(chance.uniform(0.2, 3.0)),
                running_shard=int(runs[number]) if number <= chance.integers(40) else None,
                running_row_group=int(chance.integers(0, 9)),
            )
            for number in range(1, 40)
        )
    )
    held = {one for one in fleet["running_shard"].to_pylist() if one}
    work = shards(
        *(
            shard(
                number,
                work_units=float(10 ** chance.uniform(1, 5)),
                size_B=int(10 ** chance.uniform(3, 9)),
                mem_B=int(chance.integers(1, 6)) << 28,
                hw_mask=int(chance.integers(1, 4)),
                deadline_s=float(chance.uniform(-600.0, 100_000.0)),
                held_by=[5] if number in held else [],
            )
            for number in range(100, 180)
        )
    )
    found = plan_round(fleet, work, NOW, PRICED)
    rules = {one.rule for one in verify_round(fleet, work, NOW, PRICED, found)}
    assert not [rule for rule in rules if "stated" in rule or "certified" in rule or "bound" in rule or "plan" in rule]


@pytest.mark.parametrize("energy", [0.7526828432972258, 0.7905431378799093, 0.8977679486313689])
def test_many_equal_cars_that_come_out_even_beside_little_work_earn_nothing_by_rounding(energy: float) -> None:
    policy = replace(POLICY, rates=((1.1, 0.7), (2.3, 1.9)), power_w=(150.0, 313.0), prices_from_cars=1)
    policy = replace(policy, price_per_j=((1.1 * policy.unit_currency / 150.0 * energy,),), value_per_unit=(10.0, 1.0))
    fleet, work = (
        cars(*map(car, range(1, 300))),
        shards(*(shard(one, work_units=2000.0, size_B=1000) for one in range(3))),
    )
    found = plan_round(fleet, work, NOW, policy)
    assert (found.planner, verify_round(fleet, work, NOW, policy, found)) == ("prices", [])
    assert 0.0 <= found.certificate.gap < 1e-4
    for name, certificate in spoiled(found.certificate):
        assert verify_round(fleet, work, NOW, policy, replace(found, certificate=certificate)), name


def test_a_running_row_group_that_ends_a_billionth_after_its_deadline_is_counted_as_it_was_planned() -> None:
    policy = replace(POLICY, prices_from_cars=1)
    late = shard(11, work_units=1000.0 * (1 + 5e-10), row_groups=1, deadline_s=1000.0, held_by=[1001])
    fleet, work = cars(car(1, running_shard=11, running_row_group=0)), shards(late, *map(shard, range(20, 80)))
    assert verify_round(fleet, work, NOW, policy, plan_round(fleet, work, NOW, policy)) == []


def test_work_due_within_a_block_counts_for_the_bound_with_that_block() -> None:
    due = (600.0, 3000.0, 7000.0, 9000.0, 12_000.0, 17_000.0, 22_000.0, 28_800.0)
    long = {17_000.0: 16_000.0}  # planned by 12,000, and a car that plans no block does it in time
    work = shards(*(shard(100 + number, deadline_s=at, work_units=long.get(at, 10.0)) for number, at in enumerate(due)))
    policy = replace(POLICY, prices_from_cars=1, upsets_per_hour=0.0, buffer_worth=1.0)
    found = plan_round(cars(car(1)), work, NOW, policy)
    assert verify_round(cars(car(1)), work, NOW, policy, found) == []
    assert found.certificate.upper_bound >= POLICY.value_per_unit[1] * 16_070.0


@pytest.mark.parametrize("deadline_s", [19_999.0, 20_000.0, 20_000.03])
def test_a_long_row_group_that_ends_just_after_its_deadline_is_not_begun(deadline_s: float) -> None:
    fleet, work = cars(car(1)), shards(shard(11, work_units=200_000.0, deadline_s=deadline_s))
    found = plan_round(fleet, work, NOW, replace(POLICY, prices_from_cars=1))
    assert found.assignments.num_rows == 0
    assert verify_round(fleet, work, NOW, POLICY, found) == []
