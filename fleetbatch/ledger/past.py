"""What becomes of a ledger's past: nights are archived as files and dropped, keys and rounds are forgotten."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Column

from fleetbatch.ledger.messages import OrderRow
from fleetbatch.ledger.orders import order_row
from fleetbatch.ledger.pool import Connection, Pool, fetch, statement
from fleetbatch.nouns import OrderKey
from fleetbatch.units import RoundId

NightTable = Literal["shards", "leases", "parts"]
NIGHT_TABLES: Final[tuple[NightTable, ...]] = ("shards", "leases", "parts")
_BATCH_ROWS: Final = 20_000
_FORMAT: Final[Mapping[str, Any]] = {
    "compression": "zstd",
    "write_page_checksum": True,
    "write_statistics": ["car_id", "shard_id"],
}
"""Statistics of what is looked for only: they are most of a footer, which every search reads."""
_ARROW: Final[dict[int, pa.DataType]] = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1007: pa.list_(pa.int32()),
    1009: pa.list_(pa.string()),
    1082: pa.date32(),
    1184: pa.timestamp("us", tz="UTC"),
    1186: pa.duration("us"),
}
"""PostgreSQL's type numbers; whatever is not here is text (enums are). The migrations declare an archive's columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRows:
    """How many rows of a night were archived."""

    shards: int
    leases: int
    parts: int


class Past:
    """The statements of maintenance. `before` is an instant: what ended earlier is old."""

    _pool: Pool

    def closed_nights(self, before: dt.datetime) -> list[dt.date]:
        """Return the nights whose orders are all over since before then, and which are still here; oldest first."""
        return [row["night"] for row in self._pool.rows("closed_nights", {"before": before})]

    def archive_night(self, night: dt.date, name: NightTable, path: Path) -> int:
        """Write a night's rows of one table to a Parquet file; return how many.

        Shards and parts come in the order of their key, leases by car with `bytes_read` and `bytes_sent` beside: the
        statistics of a row group say whether it may hold what is looked for. From here on no verdict counts any more:
        it would change rows that are in the file already.
        """

        def work(connection: Connection) -> int:
            fetch(connection, "close_audits", {"night": night})
            with connection.transaction(), connection.cursor(name="archive") as cursor:
                cursor.execute(statement(f"archive_{name}"), {"night": night})
                schema, rows = _schema(cursor.description or ()), 0
                with pq.ParquetWriter(path, schema, **_FORMAT) as writer:
                    while batch := cursor.fetchmany(_BATCH_ROWS):
                        writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                        rows += len(batch)
            return rows

        return self._pool.run(work)

    def drop_night(self, night: dt.date, archived: NightRows) -> bool:
        """Drop a night that is over; False, changing nothing, when it holds other rows than those archived."""
        counts: dict[str, Any] = {name: getattr(archived, name) for name in NIGHT_TABLES}

        def work(connection: Connection) -> bool:
            with connection.transaction() as whole:
                fetch(connection, "settle_unaudited", {"night": night})
                [row] = fetch(connection, "drop_night", {"night": night, **counts})
                if not row["dropped"]:
                    raise psycopg.Rollback(whole)
                return True
            return False

        return self._pool.run(work)

    def keys_to_forget(self, before: dt.datetime) -> list[OrderRow]:
        """Return the orders that are over since before then and whose secret is still known."""
        return [order_row(row) for row in self._pool.rows("keys_to_forget", {"before": before})]

    def forget_key(self, key: OrderKey) -> None:
        """Forget an order's secret: its shards cannot be opened any more. Nothing happens to an order that is open."""
        self._pool.rows("forget_key", {"night": key.night, "name": key.order, "generation": key.generation})

    def rounds_before(self, before: dt.datetime) -> RoundId | None:
        """Return the newest round that is older than that; the newest of all is never old."""
        [row] = self._pool.rows("rounds_before", {"before": before})
        return None if row["round_id"] is None else RoundId(row["round_id"])

    def forget_rounds(self, through: RoundId, before: dt.datetime) -> None:
        """Forget rounds up to that one, in batches, and the offers of the days before that instant's, day by day."""
        batch = self._pool.dials.batch_rows
        while len(self._pool.rows("forget_rounds", {"through": through, "batch": batch})) == batch:
            pass
        while self._pool.rows("drop_offers", {"before": before})[0]["dropped"]:
            pass


def _schema(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.name, _ARROW.get(column.type_code, pa.string())) for column in columns])
