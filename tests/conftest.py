"""What every suite shares: one embedded PostgreSQL for the session, one fresh database a test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import proofs
import psycopg
import pytest

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # test files run side by side, and matrices here are small

from fleetbatch.local.postgres import Postgres, fresh_database, start_postgres, stop_postgres


@contextmanager
def server_in(home: Path) -> Iterator[Postgres]:
    """Give a server that survives the death of its processes, and need not survive the machine's."""
    server = start_postgres(home)
    with psycopg.connect(server.url, autocommit=True) as owner:
        owner.execute("ALTER SYSTEM SET fsync = off")
        owner.execute("ALTER SYSTEM SET full_page_writes = off")  # against pages torn by a machine that dies
        owner.execute("SELECT pg_reload_conf()")
    yield server
    stop_postgres(server)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with server_in(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def rough_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of one suite's own, which is hard to it."""
    with server_in(tmp_path_factory.mktemp("rough")) as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the photographs and models beside the project are not here")
    return folder


@pytest.fixture
def count(request: pytest.FixtureRequest) -> proofs.Count:
    """Give a test what it says its counts to; the end of the session tells them."""
    return proofs.counter_of(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what tests counted, and the sums of what proofs count as one line of JSON."""
    stats = terminalreporter.stats
    reports = [
        one for kind in ("passed", "failed") for one in stats.get(kind, []) if isinstance(one, pytest.TestReport)
    ]
    if found := proofs.told(reports):
        terminalreporter.section("counts")
        for name in sorted(found):
            terminalreporter.write_line(found[name].line(name))
    if line := proofs.sums(found.values()):
        terminalreporter.write_line(line)
