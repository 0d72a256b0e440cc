"""The real ledger on a connection pool that fails on command: before a commit, after it, in between, or twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TypeVar

import psycopg

from fleetbatch.errors import TransientError
from fleetbatch.ledger.messages import LedgerDials
from fleetbatch.ledger.pool import Connection, Pool
from fleetbatch.ledger.postgres import PostgresLedger

T = TypeVar("T")


class CrashedError(Exception):
    """The process that asked is dead; nobody hears the answer."""


class Fault(Enum):
    """What happens to one piece of work on the database."""

    NEVER_SENT = "the process dies before it sends the statement"
    ROLLED_BACK = "the process dies before the commit"
    COMMITTED = "the process dies after the commit"
    SENT_AGAIN = "the connection breaks after the commit, and the statement is sent again"


DEADLY = (Fault.NEVER_SENT, Fault.ROLLED_BACK, Fault.COMMITTED)


class FaultyPool(Pool):
    """A pool whose next piece of work, or the one after it, fails as it was told."""

    def __init__(self, url: str, dials: LedgerDials) -> None:
        super().__init__(url, dials)
        self._armed: tuple[Fault, int] | None = None
        self._open: Connection | None = None

    def connect(self) -> Connection:
        """Prepare every statement when it is first sent, or most of a short run is spent on planning."""
        connection = super().connect()
        connection.prepare_threshold = 0
        return connection

    def arm(self, fault: Fault, *, after: int) -> None:
        self._armed = (fault, after)

    def disarm(self) -> None:
        self._armed = None

    def run(self, work: Callable[[Connection], T]) -> T:
        if self._open is not None:
            return self._in_open_transaction(self._open, work)
        match self._due():
            case None:
                return super().run(work)
            case Fault.NEVER_SENT:
                raise CrashedError
            case Fault.ROLLED_BACK:
                super().run(lambda connection: _rolled_back(connection, work))
                raise CrashedError
            case Fault.COMMITTED:
                super().run(work)
                raise CrashedError
            case Fault.SENT_AGAIN:
                super().run(work)
                return super().run(work)

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """Do all work of the body in one transaction that is committed with `commit_open`, or at the latest here."""
        self._open = self.connect()
        try:
            self._open.execute("SELECT set_config('fleetbatch.now', %s, false)", [self._clock])
            self._open.execute("BEGIN")
            yield
            self.commit_open()
        finally:
            if self._open is not None:
                self._open.close()
            self._open = None

    def commit_open(self) -> None:
        """Commit what is held open; what comes then is a transaction of its own."""
        if self._open is not None:
            self._open.execute("COMMIT")
            self._open.close()
            self._open = None

    def _in_open_transaction(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        try:
            return work(connection)
        except psycopg.OperationalError as error:
            raise TransientError(str(error)) from error

    def _due(self) -> Fault | None:
        if self._armed is None:
            return None
        fault, after = self._armed
        self._armed = (fault, after - 1) if after else None
        return None if after else fault


def _rolled_back(connection: Connection, work: Callable[[Connection], T]) -> None:
    with connection.transaction(force_rollback=True):
        work(connection)


class FaultyLedger(PostgresLedger):
    """A ledger of one simulated process."""

    def __init__(self, url: str, dials: LedgerDials) -> None:
        super().__init__(url, dials)
        self.faults = FaultyPool(url, dials)
        self._pool = self.faults
