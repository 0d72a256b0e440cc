"""What owners are due: by the time that their cars stood ready, less what was credited to them."""

from datetime import timedelta
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_tables import car, cars
from windows_story import NOW, past

from fleetbatch.planner import owed_units, with_turns
from fleetbatch.windows import plugged_since, read_stays

Known = tuple[int, str, float, float]
"""Owner, hardware, units credited, seconds plugged in."""
FLEETS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["orin", "thor"]), st.integers(0, 1000), st.floats(0.0, 90_000.0)),
    min_size=1,
    max_size=30,
)


def owed(known: list[Known], order: list[int] | None = None) -> dict[int, float]:
    """Deficits of cars 1, 2, ...; told in another order where one is given."""
    rows = [(number, *one) for number, one in enumerate(known, start=1)]
    rows = [rows[place] for place in order or range(len(rows))]
    ids = pa.array([row[0] for row in rows], pa.uint64())
    fleet = pa.table({"car_id": ids, "owner_id": [row[1] for row in rows], "hardware_class": [row[2] for row in rows]})
    units = pa.table({"car_id": ids, "units": pa.array([row[3] for row in rows], pa.float64())})
    plugged = pa.table({"car_id": ids, "plugged_s": pa.array([row[4] for row in rows], pa.float64())})
    found = owed_units(fleet, units, plugged)
    return {row["car_id"]: row["deficit_units"] for row in found.to_pylist()}


@settings(max_examples=60, deadline=None)
@given(known=FLEETS, random=st.randoms(use_true_random=False))
def test_nobody_is_owed_what_nobody_got_and_the_order_of_rows_is_no_matter(known: list[Known], random: Random) -> None:
    order = list(range(len(known)))
    random.shuffle(order)
    found = owed(known)
    assert owed(known, order) == found
    assert sorted(found) == list(range(1, len(known) + 1))
    assert all(one >= 0.0 for one in found.values())
    assert sum(found.values()) <= sum(units for _, _, units, _ in known) * (1 + 1e-5) + 1e-3
    of: dict[int, set[float]] = {}
    for place, (owner, *_) in enumerate(known, start=1):
        of.setdefault(owner, set()).add(found[place])
    assert all(len(one) == 1 for one in of.values())


def test_an_owner_is_owed_his_cars_share_of_the_time_less_what_they_got() -> None:
    two: list[Known] = [(1, "orin", 90, 1000), (2, "orin", 10, 1000)]
    assert owed(two) == pytest.approx({1: 0.0, 2: 40.0})
    assert owed([*two, (2, "orin", 110, 1000)]) == pytest.approx({1: 0.0, 2: 10.0, 3: 10.0})


def test_slow_hardware_is_due_what_slow_hardware_does() -> None:
    known: list[Known] = [(1, "orin", 10, 1000), (2, "orin", 10, 1000), (3, "thor", 80, 1000), (4, "thor", 80, 1000)]
    assert set(owed(known).values()) == {0.0}


def test_cars_that_nobody_counted_are_owed_nothing() -> None:
    owed_to_two = pa.table({"car_id": pa.array([2], pa.uint64()), "deficit_units": pa.array([7.0], pa.float32())})
    fleet = with_turns(cars(car(1), car(2), car(3)), owed_to_two)
    assert fleet["deficit_units"].to_pylist() == [0.0, 7.0, 0.0]
    assert with_turns(fleet, owed_to_two.slice(0, 0)) is fleet


def test_time_plugged_in_counts_from_the_instant_on_and_only_once_it_is_over() -> None:
    stays = past(5)
    since = NOW - timedelta(days=7)
    found = plugged_since(read_stays(stays, NOW), since)
    expected: dict[int, float] = {}
    for row in stays.to_pylist():
        if row["unplugged_at"] is not None and since < row["unplugged_at"] <= NOW:
            spent = row["unplugged_at"] - max(row["plugged_in_at"], since)
            expected[row["car_id"]] = expected.get(row["car_id"], 0.0) + spent.total_seconds()
    assert dict(zip(found["car_id"].to_pylist(), found["plugged_s"].to_pylist(), strict=True)) == pytest.approx(
        expected
    )
    assert len(expected) == 5
