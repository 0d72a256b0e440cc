"""What stands beside our lifecycle on the same PostgreSQL: `ledger_queues.py procrastinate|pgbench`.

procrastinate: a job is put, fetched by a worker, run (it does nothing) and finished; no HTTP, no signature.
pgbench: its own short transaction, prepared (three updates, a look-up, an insert), eight connections, a commit each.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.ledger_load import Scale, family_of
from benchmarks.run import tell
from fleetbatch.local.postgres import Postgres, make_database, start_postgres, stop_postgres

JOBS = 1000
TRANSACTIONS = 4000
CLIENTS = 8


def scale_of(server: Postgres) -> Scale:
    """Return a scale for the server."""
    postmaster = int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])
    return Scale({"postgres": lambda: family_of(postmaster)})


async def procrastinate(url: str, scale: Scale) -> None:
    """Tell the jobs per second of all CPU, the worker's included."""
    from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found] # the peer's own environment

    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="nothing")  # type: ignore[untyped-decorator] # the peer has no types here
    async def nothing(number: int) -> None:
        pass

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        scale.start()
        await nothing.batch_defer_async(*({"number": number} for number in range(JOBS)))
        await app.run_worker_async(wait=False, concurrency=CLIENTS, install_signal_handlers=False)
        found = scale.read()
        left = await app.job_manager.list_jobs_async(status="todo")
        assert not list(left)
    tell("lifecycles_per_core_s", JOBS / (found["postgres"] + found["driver"]), "1/s")
    tell("lifecycle, CPU of postgres", found["postgres"] / JOBS * 1e6, "us")
    tell("lifecycle, CPU of worker", found["driver"] / JOBS * 1e6, "us")


def pgbench(server: Postgres, url: str, scale: Scale) -> None:
    """Tell the transactions per second of the server's CPU; pgbench's own is not counted."""
    program = [str(server.binaries / "pgbench")]
    subprocess.run([*program, "-i", "-s", "10", "-q", url], check=True, capture_output=True)
    scale.start()
    each = ["-c", str(CLIENTS), "-t", str(TRANSACTIONS), "-M", "prepared", "-n"]
    subprocess.run([*program, *each, url], check=True, capture_output=True)
    found = scale.read()
    count = CLIENTS * TRANSACTIONS
    tell("lifecycles_per_core_s", count / found["postgres"], "1/s")
    tell("lifecycle, CPU of postgres", found["postgres"] / count * 1e6, "us")


def main(peer: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as home:
        server = start_postgres(Path(home))
        try:
            url, scale = make_database(server, "peer"), scale_of(server)
            if peer == "pgbench":
                pgbench(server, url, scale)
            else:
                asyncio.run(procrastinate(url, scale))
        finally:
            stop_postgres(server)


if __name__ == "__main__":
    main(sys.argv[1])
