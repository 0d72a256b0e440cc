"""Ids and quantities that must not be mixed up; every other unit stands in its name."""

import re
from typing import Final, NewType

CarId = NewType("CarId", int)
"""63 bits of the thumbprint of the car's public key; never zero for a car."""
OwnerId = NewType("OwnerId", int)
ShardId = NewType("ShardId", int)
"""63 bits that follow from night, order, generation, its secret, and content; shown as 16 hex digits."""
RoundId = NewType("RoundId", int)
RoundName = NewType("RoundName", str)
LeaseId = NewType("LeaseId", str)
Fence = NewType("Fence", int)
"""Grows by one with every grant of a shard; a message with an old fence is answered, never obeyed."""
Night = NewType("Night", str)
"""The local date on which a night starts, "2026-11-22"."""
OrderName = NewType("OrderName", str)
CellName = NewType("CellName", str)
Sha256 = NewType("Sha256", str)
"""64 lower-case hex digits."""

CLOUD_CAR: Final = CarId(0)
"""The holder of shards in the cloud lane: a trusted machine, not a car."""
CLOUD_CLASS: Final = "cloud"
"""Its hardware class; a car that calls itself so is not heard."""

UNIT_S: Final = 0.06
"""A unit of work, as the ledger keeps it and the book pays it, in seconds of the reference car: a picture's time."""
UNITS_MAX: Final = 1_440_000.0
"""Of a shard: a day of the reference car. An amount of more would not fit its column at the highest terms."""

KIB: Final = 1 << 10
MIB: Final = 1 << 20
FULL_PERCENT: Final = 79.0
"""Charging that stops at or above this state of charge ended by itself: owners cap at 80 %."""
ID_BITS: Final = 63
"""Ids fit a signed 64-bit column of PostgreSQL."""
_TYPED: Final = re.compile("[0-9a-fA-F]{1,16}")


def shard_hex(shard: ShardId) -> str:
    """Return the sixteen hex digits under which a person meets a shard."""
    return f"{shard:016x}"


def id_of(text: str) -> int | None:
    """Return the id that a person typed in hex digits, leading zeros left out or not; None when it cannot be one."""
    found = int(text, 16) if _TYPED.fullmatch(text) else None
    return found if found is not None and found < 1 << ID_BITS else None
