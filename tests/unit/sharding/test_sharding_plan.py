"""Which item goes into which shard, and which shard to which cell: pure."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Cell, Cutting, OrderKey
from fleetbatch.sharding import split_region
from fleetbatch.sharding.cut import ROW_GROUPS_MAX, Entry, next_cell, plan_shards, shard_id
from fleetbatch.units import CellName, Night, OrderName

KEY = OrderKey(night=Night("2026-11-22"), order=OrderName("overnight"), generation=1)
SMALL = Cutting(shard_rows=5, shard_bytes=4000, row_group_rows=2, row_group_bytes=2000)


def entries(sizes: Sequence[int]) -> list[Entry]:
    return [Entry(uri=f"x://{number}", size_bytes=size) for number, size in enumerate(sizes)]


dials = st.builds(
    Cutting,
    shard_rows=st.integers(1, 12),
    shard_bytes=st.integers(1, 60),
    row_group_rows=st.integers(1, 6),
    row_group_bytes=st.integers(1, 30),
)
sizes = st.lists(st.integers(0, 80), max_size=60)


@given(sizes, dials)
def test_every_item_is_in_exactly_one_row_group_in_the_order_of_the_source(sizes: list[int], dials: Cutting) -> None:
    plans = list(plan_shards(entries(sizes), dials))
    cut_uris = [entry.uri for plan in plans for group in plan.row_groups for entry in group]
    assert cut_uris == [entry.uri for entry in entries(sizes)]
    assert [plan.ordinal for plan in plans] == list(range(len(plans)))
    assert all(group for plan in plans for group in plan.row_groups)


@given(sizes, dials)
def test_no_shard_and_no_row_group_of_several_items_is_above_its_dials(sizes: list[int], dials: Cutting) -> None:
    for plan in plan_shards(entries(sizes), dials):
        rows = [entry for group in plan.row_groups for entry in group]
        assert len(rows) <= dials.shard_rows
        assert sum(entry.size_bytes for entry in rows) <= dials.shard_bytes
        for group in plan.row_groups:
            assert len(group) <= dials.row_group_rows
            assert len(group) == 1 or sum(entry.size_bytes for entry in group) <= dials.row_group_bytes


@given(sizes, dials)
def test_an_item_is_dead_exactly_when_no_shard_can_hold_it(sizes: list[int], dials: Cutting) -> None:
    rows = [e for plan in plan_shards(entries(sizes), dials) for group in plan.row_groups for e in group]
    assert [row.error is not None for row in rows] == [size > dials.shard_bytes for size in sizes]


def test_a_shard_has_no_more_row_groups_than_the_planner_can_count() -> None:
    wide = Cutting(shard_rows=1_000_000, shard_bytes=1 << 30, row_group_rows=1, row_group_bytes=1 << 20)
    first, second = plan_shards(entries([1] * (ROW_GROUPS_MAX + 1)), wide)
    assert (len(first.row_groups), len(second.row_groups)) == (ROW_GROUPS_MAX, 1)


def test_night_generation_dials_place_and_attempt_are_in_the_id_and_nothing_else_is() -> None:
    others = [
        (replace(KEY, night=Night("2026-11-23")), SMALL, 0, 0),
        (replace(KEY, generation=2), SMALL, 0, 0),
        (KEY, replace(SMALL, shard_rows=6), 0, 0),
        (KEY, SMALL, 1, 0),
        (KEY, SMALL, 0, 1),
    ]
    ids = [shard_id(*one) for one in [(KEY, SMALL, 0, 0), *others]]
    assert len(set(ids)) == 6
    assert ids[0] == shard_id(KEY, SMALL, 0, 0)
    assert all(0 <= one < 1 << 63 for one in ids)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(1, 200))
def test_cells_get_shards_by_their_shares(weights: list[float], shards: int) -> None:
    shares = {CellName(f"c{number}"): weight for number, weight in enumerate(weights)}
    given_out: dict[CellName, float] = {}
    for _ in range(shards):
        cell = next_cell(shares, given_out, 1.0)
        given_out[cell] = given_out.get(cell, 0.0) + 1.0
    for cell, share in shares.items():
        assert given_out.get(cell, 0.0) == pytest.approx(shards * share / sum(shares.values()), abs=len(shares))


def test_work_for_a_region_stays_in_its_cells() -> None:
    def cell(name: str, region: str) -> Cell:
        return Cell(name=CellName(name), region=region, ledger_url="", gateway_ledger_url="", gateway_url="")

    cells = [cell("eu-1", "eu"), cell("eu-2", "eu"), cell("us-1", "us")]
    assert split_region("eu", cells, {CellName("eu-1"): 30.0, CellName("eu-2"): 10.0, CellName("us-1"): 99.0}) == {
        "eu-1": 0.75,
        "eu-2": 0.25,
    }
    assert split_region("any", cells, {}) == {name: pytest.approx(1 / 3) for name in ("eu-1", "eu-2", "us-1")}
    with pytest.raises(RejectedError, match="cells serve eu, us"):
        split_region("mars", cells, {})
