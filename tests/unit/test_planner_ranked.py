"""Shards in order of rank are the same whether they are sorted at once or block by block."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fleetbatch.planner.ranked import BLOCK, Ranked

RANKS = 40
CHANCE = np.random.default_rng(3)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
@pytest.mark.parametrize("count", [0, 1, 1000, 2 * BLOCK, 2 * BLOCK + 17])
def test_any_part_of_the_order_is_that_of_a_stable_sort_without_what_is_not_ranked(kind: type, count: int) -> None:
    rank: npt.NDArray[Any] = CHANCE.choice([0, 3, 4, 17, RANKS - 1, RANKS, RANKS + 2], count).astype(kind)
    whole = np.argsort(rank, kind="stable")[: int(np.sum(rank < RANKS))]
    counts = np.bincount(rank[rank < RANKS], minlength=RANKS)
    found = Ranked.of(rank, RANKS)
    assert found.counts.tolist() == counts.tolist()
    for first, last in ((0, len(whole)), (5, 5), (0, 1), (count // 7, count // 3), (len(whole) - 900, len(whole))):
        part = slice(max(first, 0), min(last, len(whole)))
        assert np.array_equal(found.places(part.start, part.stop), whole[part])
