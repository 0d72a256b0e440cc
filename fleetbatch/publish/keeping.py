"""A table is kept light: a checkpoint for quick opening, and no file that no reader can still be reading."""

from datetime import timedelta
from typing import Final

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from fleetbatch import layout
from fleetbatch.store import Store
from fleetbatch.units import OrderName

UNREAD: Final = timedelta(days=30)
"""Files that a newer generation replaced stay so long: longer than any publish or reader takes."""


def keep_table(store: Store, name: OrderName, *, unread: timedelta = UNREAD) -> int:
    """Checkpoint an order's table, clean its log, and remove the files that no version has needed for `unread`.

    Returns how many files went; none when the order has no table. Doing it again removes nothing more.
    """
    try:
        table = DeltaTable(store.uri(layout.table(name)), storage_options=store.storage_options())
    except TableNotFoundError:
        return 0
    table.create_checkpoint()
    table.cleanup_metadata()
    hours = int(unread.total_seconds() // 3600)
    return len(table.vacuum(retention_hours=hours, dry_run=False, full=True))
