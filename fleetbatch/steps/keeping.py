"""Once a week: tables are kept light, and what a published night no longer needs is forgotten."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fleetbatch import layout
from fleetbatch.contracts import conform, parquet_table
from fleetbatch.logs import say
from fleetbatch.nouns import OrderKey
from fleetbatch.orders import order_to_json, stored_order
from fleetbatch.publish import keep_table
from fleetbatch.settings import Settings
from fleetbatch.store import Store, open_store
from fleetbatch.units import Night, OrderName


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Dials of what is kept how long."""

    files: timedelta = timedelta(days=30)
    """Replaced files of a table, for readers of an old version."""
    inputs: timedelta = timedelta(days=30)
    """Sealed shards, parts and staged files of a published night, for questions about it."""


def keep_tables_step(settings: Settings, *, keeping: Keeping | None = None) -> int:
    """Keep every order's table light; return how many files went."""
    store, dials = _store(settings), keeping or Keeping()
    gone = 0
    for name in _orders(store):
        removed = keep_table(store, name, unread=dials.files)
        say("table kept", order=name, removed_files=removed)
        gone += removed
    return gone


def forget_step(settings: Settings, *, now: datetime, keeping: Keeping | None = None) -> int:
    """Remove inputs and parts of nights published long ago, and the key that opens stray copies of their shards.

    The order, its manifest, checks, report and summary stay. Returns how many generations of nights were
    forgotten now.
    """
    store, dials = _store(settings), keeping or Keeping()
    forgotten = 0
    for name in _orders(store):
        for last in _published_before(store, name, now - dials.inputs):
            each = [replace(last, generation=number) for number in range(1, last.generation + 1)]
            forgotten += sum(_forget(store, key) for key in each)
    return forgotten


def _forget(store: Store, key: OrderKey) -> bool:
    """Forget one generation; return False when it was forgotten before, or never begun."""
    if store.size(layout.order(key)) is None:
        return False
    frozen = stored_order(store, key)
    if not frozen.secret_wrapped:
        return False
    removed = 0
    for prefix in layout.forgettable(key):
        for name in list(store.keys(prefix)):
            store.delete(name)
            removed += 1
    # Last of all: as long as the key is there, an interrupted run is taken up again.
    store.write(layout.order(key), order_to_json(replace(frozen, secret_wrapped=b"")))
    say("night forgotten", order=str(key), removed_files=removed)
    return True


def _orders(store: Store) -> Iterator[OrderName]:
    """Return the orders that have published something."""
    for key in store.keys("tables/"):
        match key.split("/"):
            case ["tables", name, _] if key == layout.nights(OrderName(name)):
                yield OrderName(name)
            case _:
                continue


def _published_before(store: Store, name: OrderName, limit: datetime) -> list[OrderKey]:
    nights = conform(parquet_table(store.read(layout.nights(name))), "nights")
    return [
        OrderKey(night=Night(row["night"]), order=name, generation=row["generation"])
        for row in nights.to_pylist()
        if row["published_at"] < limit
    ]


def _store(settings: Settings) -> Store:
    return open_store(settings.store, deployment_key=settings.deployment_key)
