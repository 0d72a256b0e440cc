"""What a cell's ledger does not need any more: nights move to files, keys, rounds and signals are forgotten."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

from fleetbatch import layout
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.messages import OrderRow, OrderState
from fleetbatch.ledger.past import NIGHT_TABLES, NightRows
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import say
from fleetbatch.nouns import OrderKey
from fleetbatch.orders import order_to_json, stored_order
from fleetbatch.owners import archive_key
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import Doors, open_doors
from fleetbatch.store import Store
from fleetbatch.units import CellName, RoundId, Sha256

Archived = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Dials of how long the ledger's past is kept at hand."""

    nights: timedelta = timedelta(days=35)
    """Of shards, leases and parts in the database, since the night's last order was published; longer than `keys`."""
    keys: timedelta = timedelta(days=30)
    """Of an order's secret, since it was published; without it a stray copy of a shard is noise."""
    rounds: timedelta = timedelta(days=14)
    """Of offers and of what rounds wrote down, for the question why."""
    telemetry: timedelta = timedelta(days=90)
    """Of the cars' signals; stays, which forecasts learn from, are kept apart."""


def archive_step(settings: Settings, *, now: datetime, retention: Retention | None = None) -> dict[str, Archived]:
    """Move nights that are long over from the ledgers to the store; return the rows moved by cell and night.

    A night is dropped only after its files lie in the store and while it holds just the rows that they hold.
    """
    before = now - (retention or Retention()).nights
    moved: dict[str, Archived] = {}
    with open_doors(settings) as doors:
        for cell, ledger in doors.ledgers.items():
            for night in ledger.closed_nights(before):
                rows = archive_night(doors.store, cell, ledger, night)
                moved[f"{cell}/{night}"] = asdict(rows)
                say("night archived", cell=cell, night=str(night), rows=asdict(rows))
    return moved


def archive_night(store: Store, cell: CellName, ledger: PostgresLedger, night: date) -> NightRows:
    """Move one night that is over from a cell's ledger to the store; return how many rows.

    Raises TransientError, and drops nothing, when the night changed meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="fleetbatch-archive-") as folder:
        counts = {}
        for name in NIGHT_TABLES:
            path = Path(folder) / f"{name}.parquet"
            counts[name] = ledger.archive_night(night, name, path)
            if counts[name]:
                _keep(store, archive_key(cell, name, night, path), path)
    rows = NightRows(**counts)
    if not ledger.drop_night(night, rows):
        message = f"night {night} of cell {cell} changed while it was archived; it stays, and is archived next time"
        raise TransientError(message)
    return rows


def forget_keys_step(settings: Settings, *, now: datetime, retention: Retention | None = None) -> list[str]:
    """Forget the secrets of orders that are long over in every cell, and the shards they open; return the orders.

    The ledgers forget last, so that an interrupted run finds the order again.
    """
    before = now - (retention or Retention()).keys
    with open_doors(settings) as doors:
        keys = sorted({row.key for ledger in doors.ledgers.values() for row in ledger.keys_to_forget(before)})
        over = [key for key in keys if _over_everywhere(doors, key, before)]
        for key in over:
            _forget_stored(doors.store, key)
            for ledger in doors.ledgers.values():
                ledger.forget_key(key)
            say("key forgotten", order=str(key))
    return [str(key) for key in over]


def forget_rounds_step(settings: Settings, *, now: datetime, retention: Retention | None = None) -> dict[str, int]:
    """Remove rounds, their offers and old telemetry; return how many objects went by cell."""
    dials, gone = retention or Retention(), {}
    with open_doors(settings) as doors:
        for cell, ledger in doors.ledgers.items():
            old = list(_old_telemetry(doors.store, cell, (now - dials.telemetry).date()))
            old += _old_rounds(doors.store, cell, now - dials.rounds)
            newest = ledger.rounds_before(now - dials.rounds)
            for key in old:
                doors.store.delete(key)
            if newest is not None:
                ledger.forget_rounds(newest, now - dials.rounds)
            gone[cell] = len(old)
            say("rounds and telemetry forgotten", cell=cell, removed_files=len(old), through_round=newest)
    return {str(cell): count for cell, count in gone.items()}


def _keep(store: Store, key: str, path: Path) -> None:
    """Put a file under its hash and look that it lies there whole; what it replaces is about to be dropped."""
    store.create_file(key, path)
    with tempfile.TemporaryDirectory(prefix="fleetbatch-archive-") as folder:
        back = Path(folder) / "back.parquet"
        store.fetch(key, back)
        if _sha256(back) != _sha256(path):
            summary = f"{key} is not what was written to it; remove it, and look after the store"
            raise RejectedError(summary)


def _sha256(path: Path) -> Sha256:
    with path.open("rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def _over_everywhere(doors: Doors, key: OrderKey, before: datetime) -> bool:
    known = [row for ledger in doors.ledgers.values() if (row := ledger.order(key)) is not None]
    return all(_over(row, before) for row in known)


def _over(row: OrderRow, before: datetime) -> bool:
    """Say whether an order is over since before then; one that is closed and not published is being published."""
    if row.state is OrderState.CLOSED:
        return row.published_at is not None and row.published_at < before
    return row.state is OrderState.CANCELLED and row.frozen.deadline_at < before


def _forget_stored(store: Store, key: OrderKey) -> None:
    """Remove what the secret opened, also of orders that never were published, and the secret last."""
    for folder in layout.forgettable(key):
        for name in list(store.keys(folder)):
            store.delete(name)
    if store.size(layout.order(key)) is None:
        return
    frozen = stored_order(store, key)
    if frozen.secret_wrapped:
        store.write(layout.order(key), order_to_json(replace(frozen, secret_wrapped=b"")))


def _old_telemetry(store: Store, cell: CellName, before: date) -> Iterator[str]:
    root = layout.telemetry_days(cell)
    return (key for key in store.keys(root) if key.removeprefix(root).split("/")[0] < str(before))


def _old_rounds(store: Store, cell: CellName, before: datetime) -> Iterator[str]:
    """Give the keys of the rounds from before then; the newest stays, `why` and forecasts read it."""
    end = layout.round_name(before, RoundId(0))
    stored = list(layout.by_round(cell, store.keys(layout.rounds(cell))).items())
    return (key for name, keys in stored[:-1] if name < end for key in keys)
