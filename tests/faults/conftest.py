"""A database server of their own for tests that are hard to it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fleetbatch.local.postgres import Postgres, start_postgres, stop_postgres


@pytest.fixture(scope="module")
def rough_postgres() -> Iterator[Postgres]:
    """A server that may be restarted; it survives the death of its processes, and need not survive the machine's."""
    with tempfile.TemporaryDirectory() as home:
        server = start_postgres(Path(home))
        with psycopg.connect(server.url, autocommit=True) as owner:
            owner.execute("ALTER SYSTEM SET fsync = off")
            owner.execute("ALTER SYSTEM SET full_page_writes = off")  # against pages torn by a machine that dies
            owner.execute("SELECT pg_reload_conf()")
        yield server
        stop_postgres(server)
