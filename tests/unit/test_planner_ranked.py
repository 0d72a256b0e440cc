"""Shards of the ranks that are asked for come in the order that a sort of all of them would have."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fleetbatch.planner.ranked import BLOCK, Ranked, looked_up

RANKS = 40
CHANCE = np.random.default_rng(3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("count", [0, 1, 1000, 2 * BLOCK, 2 * BLOCK + 17])
def test_the_places_of_any_ranks_are_those_of_a_stable_sort(kind: type, count: int) -> None:
    rank: npt.NDArray[Any] = CHANCE.choice([0, 3, 4, 17, RANKS - 1, RANKS, RANKS + 2], count).astype(kind)
    order = np.argsort(rank, kind="stable")
    found = Ranked(rank=rank, counts=np.bincount(rank[rank < RANKS], minlength=RANKS))
    for some in ([], [3], [4, 17], [0, 1, 2, 3], range(RANKS)):
        wanted = np.isin(np.arange(RANKS), list(some))
        expected = order[np.isin(rank[order], list(some))]
        assert np.array_equal(found.places(wanted), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_rank_is_looked_up_in_its_own_place_and_one_beyond_the_table_has_nothing(kind: type) -> None:
    table = CHANCE.integers(1, 256, 200).astype(np.uint8)
    rank: npt.NDArray[Any] = CHANCE.integers(0, 256, 1000).astype(kind)
    assert np.array_equal(looked_up(table, rank), np.append(table, np.zeros(56, np.uint8))[rank])
