"""What was acknowledged about one shard."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from fleetbatch.ledger.messages import Delivery
from fleetbatch.nouns import OrderKey

PartKey = tuple[str, int, int, str]
"""Lease, start, stop, sha256."""


@dataclass(slots=True, kw_only=True)
class ShardFacts:
    """What was acknowledged about one shard."""

    order: OrderKey
    row_group_rows: tuple[int, ...]
    valid: bool = False
    durable: int = 0
    """Row groups below this were acknowledged and not refused since."""
    fence: int = 0
    refusals: int = 0
    """Attempts that say something about the work."""
    failed: set[int] = field(default_factory=set)
    """Cars that refused it, or whose rows were found wrong."""
    judged: set[int] = field(default_factory=set)
    voided: set[int] = field(default_factory=set)
    """Fences whose work was, or may have been, refused: what is acknowledged once more of it is durable no more."""
    parts: dict[PartKey, int] = field(default_factory=dict)
    """Every acknowledged part, and the car that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFacts:
    """Who was given the planner's lock last, and until when."""

    holder: object
    until: datetime

    def free_for(self, planner: object, now: datetime) -> bool:
        return self.holder in {None, planner} or self.until <= now


def tiled(spans: Sequence[tuple[int, int]], row_groups: int) -> bool:
    """Say whether spans follow each other from 0 to the last row group."""
    follow = all(a[1] == b[0] for a, b in pairwise(spans))
    return bool(spans) and follow and (spans[0][0], spans[-1][1]) == (0, row_groups)


def part_key(part: Delivery) -> PartKey:
    return part.lease_id, part.start, part.stop, part.sha256


def shard_of(lease: str) -> int:
    return int(lease[9:25], 16)


def fence_of(lease: str) -> int:
    return int(lease[26:])
