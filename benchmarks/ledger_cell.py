"""A cell to measure: an embedded PostgreSQL as it comes (every commit is on disk), a store, gateways as processes.

Cars share a hundred keys, so that a gateway has opened each before, as it has in mid-night that of a car that speaks
again (opening one costs 8 us, once in a car's night at a gateway). They are put into the database as a block;
everything that is measured goes through the product's own doors.
"""

import hashlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from benchmarks.ledger_load import Scale, family_of
from fleetbatch import layout
from fleetbatch.car.identity import Identity, make_key, open_identity, public_pem
from fleetbatch.contracts import contract
from fleetbatch.gateway.identity import TokenKey, token_key
from fleetbatch.ledger.dials import BY_KEY, LedgerDials
from fleetbatch.ledger.postgres import PostgresLedger, migrate
from fleetbatch.local.laptop import free_ports
from fleetbatch.local.postgres import Postgres, make_database, restart_postgres, start_postgres, stop_postgres
from fleetbatch.nouns import Auditing, Cutting, FrozenOrder, Order, OrderKey
from fleetbatch.sealing import wrap_secret
from fleetbatch.store import open_store
from fleetbatch.units import CarId, CellName, Night, OrderName, Sha256

KEYS: Final = 100
CELL: Final = CellName("bench")
ROLE: Final = "fleetbatch_gateway"
SHARD_ROWS: Final = 1000
_KEY: Final = bytes(range(32))
_NIGHT: Final = "2026-11-22"
_READY: Final = b'"ready"'


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCell:
    """A running cell; car and shard n have the number n, from 1."""

    home: Path
    store: Path
    server: Postgres
    ledger: PostgresLedger
    ledger_url: str
    order_key: OrderKey
    tokens: TokenKey
    keys: Sequence[Identity]
    gateways: "list[subprocess.Popen[bytes]]"
    url: str

    def token(self, car: int) -> str:
        """Return a token as the car would have bought it."""
        return self.tokens.token(CarId(car), expires_at=datetime.now(UTC) + timedelta(hours=2), telemetry=True)

    def key(self, car: int) -> Identity:
        """Return the car's key."""
        return self.keys[car % KEYS]

    def scale(self) -> Scale:
        """Return a scale for gateways and PostgreSQL."""
        postmaster = int((self.server.data / "postmaster.pid").read_text().split("\n", 1)[0])
        return Scale(
            {
                "gateway": lambda: [one.pid for one in self.gateways],
                "postgres": lambda: family_of(postmaster),
            }
        )

    def offer(self, cars: np.ndarray, shards: np.ndarray) -> int:
        """Write a round of one offer a car; return its number."""
        lock = self.ledger.lock_planner(CELL)
        assert lock is not None
        return self.ledger.write_round(lock, offers_table(cars, shards), {})


def offers_table(cars: np.ndarray, shards: np.ndarray) -> pa.Table:
    """Return a round's assignments (contract `assignments`), one shard a car."""
    count, schema = len(cars), contract("assignments").schema
    known = {"car_id": cars, "shard_id": shards, "seq": np.zeros(count)}
    columns = []
    for one in schema:
        blank = np.full(count, "") if pa.types.is_string(one.type) else np.zeros(count)
        columns.append(pa.array(known.get(one.name, blank)).cast(one.type))
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a cell is served."""

    gateways: int = 1
    """Processes that share one port."""
    dials: Sequence[str] = ()
    """Words of their command line."""
    database: Mapping[str, str] = field(default_factory=dict)
    """Settings of PostgreSQL, which is as it comes without them."""
    store: Path | None = None
    """A folder; one of the cell's own unless named."""


@contextmanager
def bench_cell(
    home: Path, *, cars: int, shards: int, row_groups: int = 1, serving: Serving | None = None
) -> Iterator[BenchCell]:
    """Give a cell with so many cars, all willing, and one open order of so many shards."""
    serving = serving or Serving()
    store = serving.store or home / "store"
    with ExitStack() as stack:
        server = start_postgres(home)
        stack.callback(stop_postgres, server)
        _set(server, serving.database)
        url = make_database(server, "bench")
        migrate(url)
        ledger = stack.enter_context(PostgresLedger.open(url, dials=LedgerDials(session=BY_KEY)))
        pems = [make_key() for _ in range(KEYS)]
        [port] = free_ports(1)
        settings = _write_settings(home, store, server, port)
        frozen = _open_order(store, ledger)
        _fill(url, [public_pem(pem) for pem in pems], cars=cars, shards=shards, row_groups=row_groups)
        yield BenchCell(
            home=home,
            store=store,
            server=server,
            ledger=ledger,
            ledger_url=url,
            order_key=frozen.key,
            tokens=token_key(_KEY, CELL, "car"),
            keys=[open_identity(pem) for pem in pems],
            gateways=stack.enter_context(_gateways(settings, port, serving.gateways, serving.dials)),
            url=f"http://127.0.0.1:{port}",
        )


def _set(server: Postgres, database: Mapping[str, str]) -> None:
    if not database:
        return
    with psycopg.connect(server.url, autocommit=True) as connection:
        for name, value in database.items():
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    restart_postgres(server)


def _write_settings(home: Path, store: Path, server: Postgres, port: int) -> Path:
    (home / "deployment.key").write_text(_KEY.hex())
    lines = [f"store = {json.dumps(store.as_uri())}", 'deployment_key_file = "deployment.key"', "[[cells]]"]
    lines += [f'name = "{CELL}"', 'region = "eu"', f'ledger_url = "{server.database_url("bench")}"']
    lines += [f'gateway_ledger_url = "{server.database_url("bench", role=ROLE)}"']
    lines += [f'gateway_url = "http://127.0.0.1:{port}"']
    path = home / "settings.toml"
    path.write_text("\n".join(lines))
    return path


def _open_order(store: Path, ledger: PostgresLedger) -> FrozenOrder:
    now = datetime.now(UTC)
    key = OrderKey(night=Night(_NIGHT), order=OrderName("bench"), generation=1)
    order = Order(
        name=key.order,
        workload="image",
        source="generator:signs",
        model="signs.zip",
        region="any",
        priority=1,
        deadline_hours=10.0,
        data_class="open",
        schedule="",
        timezone="UTC",
        cutting=Cutting(),
        auditing=Auditing(),
    )
    frozen = FrozenOrder(
        key=key,
        order=order,
        model_sha256=Sha256(hashlib.sha256(b"model").hexdigest()),
        frozen_at=now,
        deadline_at=now + timedelta(hours=10),
        secret_wrapped=wrap_secret(secrets.token_bytes(32), _KEY),
    )
    ledger.open_order(frozen)
    open_store(store.as_uri(), deployment_key=_KEY).write(layout.bundle(frozen.model_sha256), b"bundle")
    return frozen


def _fill(url: str, pems: Sequence[str], *, cars: int, shards: int, row_groups: int) -> None:
    """Put cars and shards into the database as blocks."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO fleetbatch.cars (car_id, owner_id, public_key_pem, region, enrolled_at, consents)"
            " SELECT n, n, (%s::text[])[n %% %s + 1], 'eu', now(), '{compute,telemetry}' FROM generate_series(1, %s) n",
            [list(pems), KEYS, cars],
        )
        connection.execute(
            "INSERT INTO fleetbatch.shards (night, shard_id, order_no, row_groups, rows, work_units, size_bytes,"
            " sha256, row_group_rows) SELECT %(night)s, n, 1, %(groups)s, %(rows)s, 1000, 33554432,"
            " sha256(n::text::bytea), array_fill(%(each)s, ARRAY[%(groups)s]) FROM generate_series(1, %(shards)s) n",
            {
                "night": _NIGHT,
                "groups": row_groups,
                "rows": SHARD_ROWS * row_groups,
                "each": SHARD_ROWS,
                "shards": shards,
            },
        )
        connection.execute("VACUUM (ANALYZE) fleetbatch.cars, fleetbatch.shards")


@contextmanager
def _gateways(settings: Path, port: int, count: int, dials: Sequence[str]) -> "Iterator[list[subprocess.Popen[bytes]]]":
    command = [sys.executable, "-m", "fleetbatch.gateway", "--settings", str(settings), "--cell", CELL]
    command += ["--port", str(port), "--share-port", *dials]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            log = settings.with_name(f"gateway-{number}.log")
            with log.open("ab") as lines:
                running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=lines))
            ready = running[-1].stdout
            assert ready is not None
            assert _READY in ready.readline(), log.read_text()
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)


@contextmanager
def restarted_gateways(cell: BenchCell, dials: Sequence[str]) -> Iterator[None]:
    """Run the cell's gateways again, after they were stopped."""
    port = int(cell.url.rpartition(":")[2])
    with _gateways(cell.home / "settings.toml", port, len(cell.gateways), dials) as running:
        cell.gateways[:] = running
        yield
