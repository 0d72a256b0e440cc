"""What was acknowledged about one shard."""

from dataclasses import dataclass, field

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
    judged: set[int] = field(default_factory=set)
    parts: dict[PartKey, int] = field(default_factory=dict)
    """Every acknowledged part, and the car that made it."""


def part_key(part: Delivery) -> PartKey:
    return part.lease_id, part.start, part.stop, part.sha256


def shard_of(lease: str) -> int:
    return int(lease[9:25], 16)


def fence_of(lease: str) -> int:
    return int(lease[26:])
