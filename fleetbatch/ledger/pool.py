"""Connections to one cell's database: a few, shared by threads, replaced when they break; statements by name."""

import functools
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import dict_row

from fleetbatch.errors import FleetbatchError, RejectedError, TransientError
from fleetbatch.ledger.literals import with_literals
from fleetbatch.ledger.messages import LedgerDials
from fleetbatch.logs import say

Connection = psycopg.Connection[dict[str, Any]]
Row = dict[str, Any]
T = TypeVar("T")

_QUERIES: Final = Path(__file__).with_name("queries.sql")
_CONNECT_S: Final = 5
_UNPREPARED: Final = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InsufficientPrivilege,
)
"""What a statement meets in a database of no or of another version, or by the name of the wrong role."""


@functools.cache
def statement(name: str) -> bytes:
    """Return the statement of that name in queries.sql."""
    return _statements()[name]


@functools.cache
def _statements() -> Mapping[str, bytes]:
    """Cut queries.sql at its `-- name:` lines; comments in front of a statement travel with it."""
    found = {}
    for piece in _QUERIES.read_text().split("\n-- name: ")[1:]:
        name, _, text = piece.partition("\n")
        found[name.strip()] = text.partition("\n-- ==")[0].strip().removesuffix(";").encode()
    return found


@dataclass(slots=True)
class _Slot:
    """Room for one connection, and the instant to which its session's clock is turned."""

    connection: Connection | None = None
    clock: str = ""


class Pool:
    """At most `dials.connections` connections in autocommit; more callers wait. Broken ones are thrown away."""

    def __init__(self, url: str, dials: LedgerDials) -> None:
        """Remember where the database is; connections are made when they are first needed."""
        self.url = url
        self.dials = dials
        self._clock = ""
        self._slots: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for _ in range(dials.connections):
            self._slots.put(_Slot())

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do work on a connection, again after a deadlock or a lost connection; raise TransientError in the end.

        Raises RejectedError when the database is not prepared for it.
        The work must have the same effect done twice as done once: its first commit may have been lost on the way back.
        """
        pause_s = self.dials.retry_after.total_seconds()
        for remaining in reversed(range(self.dials.retries)):
            try:
                with self._taken() as connection:
                    return work(connection)
            except _UNPREPARED as error:
                summary = (
                    f"the ledger's database is not prepared for this version or role: {error.diag.message_primary}"
                )
                advice = "migrate it as its owner (`fleetbatch migrate`); give each process the URL of its own role"
                raise RejectedError(summary, [advice]) from error
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if not remaining:
                    message = f"the ledger's database does not answer: {str(error).strip() or type(error).__name__}"
                    raise TransientError(message) from error
                say("ledger statement is sent again", level=logging.WARNING, detail=str(error).strip())
                time.sleep(pause_s)
                pause_s *= 2
        message = "a ledger needs at least one try"
        raise AssertionError(message)

    def rows(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one statement as one transaction and return its rows."""
        return self.run(lambda connection: fetch(connection, name, parameters))

    def turn_clock(self, at: datetime | None) -> None:
        """Make `fleetbatch.now()` say this instant on every connection of this pool; None gives the real time back."""
        self._clock = at.astimezone(UTC).isoformat() if at else ""

    def close(self) -> None:
        """Close what is open and idle."""
        for slot in [self._slots.get() for _ in range(self.dials.connections)]:  # all first: the last put is next
            if slot.connection is not None:
                slot.connection.close()
            self._slots.put(_Slot())

    def connect(self) -> Connection:
        """Open a connection that knows the schema, and UTC; raise RejectedError for a URL that cannot be read."""
        try:
            connection = psycopg.connect(self.url, autocommit=True, row_factory=dict_row, connect_timeout=_CONNECT_S)
        except psycopg.ProgrammingError as error:
            summary = f"the ledger's URL in the settings is none: {str(error).strip()}"
            raise RejectedError(summary) from error
        settings = {"search_path": "fleetbatch, pg_catalog", "timezone": "UTC", **self.dials.session}
        try:
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        except psycopg.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _taken(self) -> Iterator[Connection]:
        slot = self._slots.get()
        try:
            if slot.connection is None:
                slot.connection, slot.clock = self.connect(), ""
            if slot.clock != self._clock:
                slot.connection.execute("SELECT set_config('fleetbatch.now', %s, false)", [self._clock])
                slot.clock = self._clock
            yield slot.connection
        finally:
            if slot.connection is not None and (slot.connection.closed or slot.connection.broken):
                slot.connection.close()
                slot.connection = None
            self._slots.put(slot)


def is_of_some_rows(error: Exception) -> bool:
    """Tell whether a batch failed by what some of its rows say: the others could be taken without them.

    Values that the database cannot hold, or that could not even be sent. Not: a server that is away, or a statement or
    set-up that is wrong whatever the rows are.
    """
    if isinstance(error, psycopg.Error):
        return isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    return not isinstance(error, FleetbatchError)


def fetch(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
    """Run one statement inside whatever transaction is open and return its rows; none if it returns none."""
    cursor = connection.execute(statement(name), with_literals(parameters) if parameters else None)
    return cursor.fetchall() if cursor.description else []


def fetch_planned(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Run one statement planned for these very values, whatever the session says of plans.

    What the values rule out is not locked: a plan for any value locks the partitions of all nights, and prunes then.
    """
    return psycopg.ClientCursor(connection).execute(statement(name), parameters).fetchall()
