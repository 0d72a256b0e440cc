"""States as values that carry their meaning; the pictures are in machine.py."""

from enum import Enum


class ShardState(Enum):
    """Where a shard is in its life (picture in machine.py)."""

    READY = "ready"
    OUT = "out"
    RETURNED = "returned"
    VALID = "valid"
    DONE = "done"
    MISSING = "missing"


class LeaseState(Enum):
    """How a lease stands; all but GRANTED are terminal and never change."""

    GRANTED = "granted"
    DONE = "done"
    RELEASED = "released"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Credit(Enum):
    """What the audit said of a lease's delivered work, apart from how the lease ended."""

    NONE = "none"
    CREDITED = "credited"
    """Its own rows stood; its parts may be void all the same, because another lease spoiled the shard."""
    REFUSED = "refused"
    VOIDED = "voided"
    """Nobody looked at its rows, and another lease spoiled the shard."""


class OrderState(Enum):
    """Only an open order's shards are granted; a paused order's leases run on, a cancelled order's are revoked."""

    OPEN = "open"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    CLOSED = "closed"
