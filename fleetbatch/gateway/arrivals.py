"""What lies under the key of a part: a store's own word about sizes and hashes is not enough, so we read it.

Store and ledger are asked one after the other in one call: each call for a batch of cars has costs of its own.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple

from fleetbatch import layout
from fleetbatch.ledger.messages import Delivered, Delivery, LeaseRow, Refused, Terminal
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import OrderKey
from fleetbatch.protocol import PartRequest
from fleetbatch.store import MissingObject, Store, stored_sha256
from fleetbatch.store.local import LocalStore
from fleetbatch.units import CarId, LeaseId, Sha256, ShardId

Lacking = Literal["absent", "damaged"]
Found = Literal["whole"] | Lacking
Counted = Delivered | Terminal | Refused

_READERS: Final = 16
"""How many objects of a store in the network are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a car says that it put under a key."""

    key: str
    size: int
    sha256: Sha256


class Announced(NamedTuple):
    """A part that a car is about to send."""

    car_id: CarId
    part: PartRequest


class Arrived(NamedTuple):
    """A part that a car says it has sent, signed by its key."""

    upload: Upload
    delivery: Delivery


def part_key(order_key: OrderKey, shard: ShardId, part: PartRequest) -> str:
    """Return the key under which a part lies."""
    return layout.part(order_key, shard, LeaseId(part.lease_id), part.start, part.stop, Sha256(part.sha256))


def upload_of(key: str, part: PartRequest) -> Upload:
    """Return what the car says of its upload."""
    return Upload(key=key, size=part.bytes, sha256=Sha256(part.sha256))


def looked_up(
    ledger: PostgresLedger, store: Store, size_max: int, parts: Sequence[Announced]
) -> list[tuple[LeaseRow | None, Found]]:
    """Return each part's lease, and what lies under the part's key; "absent" unless the lease is its car's."""
    rows = ledger.leases([LeaseId(one.part.lease_id) for one in parts])
    uploads = {
        n: upload_of(part_key(row.order_key, row.shard_id, one.part), one.part)
        for n, (row, one) in enumerate(zip(rows, parts, strict=True))
        if row is not None and row.car_id == one.car_id
    }
    found = dict(zip(uploads, look_at_all(store, size_max, list(uploads.values())), strict=True))
    return [(row, found.get(n, "absent")) for n, row in enumerate(rows)]


def counted(ledger: PostgresLedger, store: Store, size_max: int, parts: Sequence[Arrived]) -> list[Lacking | Counted]:
    """Deliver the parts that lie there whole; return the ledger's answer to each, or why it was not asked."""
    found = look_at_all(store, size_max, [one.upload for one in parts])
    whole = [one.delivery for one, state in zip(parts, found, strict=True) if state == "whole"]
    answers = iter(ledger.deliver(whole))
    return [next(answers) if state == "whole" else state for state in found]


def look_at_all(store: Store, size_max: int, uploads: Sequence[Upload]) -> list[Found]:
    """Compare objects with what is said of them; a folder answers in no time, anything else is asked side by side."""
    one = partial(look_at, store, size_max)
    if isinstance(store, LocalStore) or len(uploads) <= 1:
        return [one(upload) for upload in uploads]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(one, uploads))


def look_at(store: Store, size_max: int, upload: Upload) -> Found:
    """Compare an object with what is said of it, with a few MiB of it in memory.

    Its length, too, is the store's and not the car's: whatever counts a part's bytes from here on counts what is there.
    """
    size = store.size(upload.key)
    if size is None:
        return "absent"
    if size != upload.size or size > size_max:
        return "damaged"
    try:
        return "whole" if stored_sha256(store, upload.key, size) == upload.sha256 else "damaged"
    except MissingObject:
        return "absent"
