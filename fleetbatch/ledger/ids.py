"""A lease's id says where its row is: night, shard and fence. Pure."""

import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final

from fleetbatch.units import Fence, LeaseId, ShardId, shard_hex

_REMEMBERED: Final = 1 << 14
"""A batch asks several times for each of its leases."""
_NIGHTS: Final = 64
_LEASE_ID: Final = re.compile("([0-9]{8})-([0-7][0-9a-f]{15})-([1-9][0-9]{0,8})")
"""As `lease_id` writes it and no other way: the keys of its parts in the store begin with this very text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseKey:
    """The primary key of a lease."""

    night: date
    shard_id: ShardId
    fence: Fence


NOWHERE: Final = LeaseKey(night=date(1, 1, 1), shard_id=ShardId(-1), fence=Fence(-1))
"""The key of no lease: what a malformed id leads to, so that it is answered like an unknown one."""


def lease_id(night: date, shard_id: int, fence: int) -> LeaseId:
    """Return the id, such as "20261122-00c0ffee00c0ffee-3"."""
    return LeaseId(f"{_compact(night)}-{shard_hex(ShardId(shard_id))}-{fence}")


@lru_cache(maxsize=_NIGHTS)
def _compact(night: date) -> str:
    return f"{night:%Y%m%d}"


@lru_cache(maxsize=_REMEMBERED)
def lease_key(lease: LeaseId) -> LeaseKey:
    """Return the key that an id names; NOWHERE for anything that is not an id."""
    match = _LEASE_ID.fullmatch(lease)
    if match is None:
        return NOWHERE
    night, shard, fence = match.groups()
    try:
        day = date.fromisoformat(night)
    except ValueError:
        return NOWHERE
    return LeaseKey(night=day, shard_id=ShardId(int(shard, 16)), fence=Fence(int(fence)))
