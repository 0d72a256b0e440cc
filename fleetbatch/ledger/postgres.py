"""The ledger of a cell in PostgreSQL: one object with every verb, safe to share between threads."""

import datetime as dt
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.audits import Audits
from fleetbatch.ledger.book import Books
from fleetbatch.ledger.cars import Cars
from fleetbatch.ledger.glance import Glances
from fleetbatch.ledger.leases import Leases
from fleetbatch.ledger.messages import LedgerDials
from fleetbatch.ledger.operating import Operating
from fleetbatch.ledger.past import Past
from fleetbatch.ledger.pool import Connection, Pool
from fleetbatch.ledger.rates import Rates
from fleetbatch.ledger.rounds import Rounds

_MIGRATIONS: Final = Path(__file__).with_name("migrations")


class PostgresLedger(Leases, Cars, Operating, Rates, Rounds, Audits, Glances, Past, Books):
    """A cell's ledger. Every verb raises TransientError when the database does not answer."""

    def __init__(self, url: str, dials: LedgerDials) -> None:
        """Remember where the database is; `open` also closes it."""
        self._pool = Pool(url, dials)
        self._holder = secrets.token_hex(8)
        self._listener: Connection | None = None

    @classmethod
    @contextmanager
    def open(cls, url: str, *, dials: LedgerDials | None = None) -> Iterator[Self]:
        """Give a ledger and close its connections afterwards. The first statement makes the first connection."""
        ledger = cls(url, dials or LedgerDials())
        try:
            yield ledger
        finally:
            ledger.close()

    def close(self) -> None:
        """Close every connection."""
        self._stop_listening()
        self._pool.close()

    def turn_clock(self, at: dt.datetime | None) -> None:
        """Set the clock by which this ledger's statements live, in a test's database; None gives it back.

        Any other database has a clock that nobody can turn (migration 0005), and this changes nothing.
        """
        self._pool.turn_clock(at)


def migrate(url: str) -> list[str]:
    """Bring a database's schema up to date, as its owner; return the migrations that were applied, none if none.

    Each runs in a transaction of its own, one process at a time. Raises RejectedError when a migration that was applied
    has been edited since, TransientError when the database does not answer.
    """
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(hashtext('fleetbatch.migrate'))")
            with connection.transaction():
                connection.execute("CREATE SCHEMA IF NOT EXISTS fleetbatch")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS fleetbatch.migrations"
                    " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                )
            applied: dict[str, str] = dict(
                connection.execute("SELECT name, sha256 FROM fleetbatch.migrations").fetchall()
            )
            return [path.stem for path in sorted(_MIGRATIONS.glob("*.sql")) if _apply(connection, path, applied)]
    except psycopg.OperationalError as error:
        message = f"the ledger's database does not answer: {str(error).strip()}"
        raise TransientError(message) from error


def _apply(connection: psycopg.Connection[Any], path: Path, applied: dict[str, str]) -> bool:
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if path.stem in applied:
        if applied[path.stem] != digest:
            summary = f"migration {path.stem} was edited after it was applied; write a new one"
            raise RejectedError(summary)
        return False
    with connection.transaction():
        connection.execute(text)
        connection.execute("INSERT INTO fleetbatch.migrations (name, sha256) VALUES (%s, %s)", [path.stem, digest])
    return True
