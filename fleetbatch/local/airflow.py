"""Airflow on the laptop: its environment and its commands are values; whoever runs the laptop owns the processes.

Nothing here imports Airflow: it runs as a program of the same environment.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from fleetbatch.errors import TransientError

_STOP_TIMEOUT_S: Final = 20.0
_KILLED_S: Final = 2.0
"""How long the killed may take to vanish; a container without an init never buries its orphans."""
_LOOK_EVERY_S: Final = 0.05
_FOREIGN: Final = "AIRFLOW_"
"""What another Airflow's variables begin with; they are left behind, so that nobody's own installation is touched."""


def airflow_env(
    base: Mapping[str, str], *, home: Path, settings: Path, dags: Path, orders: Path | None = None, port: int = 8080
) -> dict[str, str]:
    """Return what every Airflow process of the laptop runs with; pure.

    `home` is the laptop's folder (Airflow lives in `home/airflow`), `settings` the deployment's settings file, `dags`
    the folder of DAGs, `orders` the folder of order files unless it is `dags/orders`, `port` the web server's.
    """
    kept = {name: value for name, value in base.items() if not name.startswith(_FOREIGN)}
    airflow = home / "airflow"
    return kept | {
        # `airflow standalone` starts the bare word `airflow`.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), base.get("PATH", os.defpath))),
        "AIRFLOW_HOME": str(airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(dags / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",  # the default forks 32 idle workers
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # no login: loopback only
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow / 'airflow.db'}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "15",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCARF_ANALYTICS": "false",
        "GX_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "FLEETBATCH_SETTINGS": str(settings),
        "FLEETBATCH_ORDERS": str(orders or dags / "orders"),
    }


def dags_folder() -> Path:
    """Return where the DAGs are: beside the package in a checkout, or where the wheel put them."""
    checkout = Path(__file__).parents[2] / "dags"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "fleetbatch" / "dags"


def migrate_airflow(env: Mapping[str, str], *, log: IO[bytes] | None = None) -> None:
    """Create Airflow's metadata database, or bring it to the installed version; raise TransientError if that fails.

    Costs four seconds, so callers run it beside the start of everything else.
    """
    done = subprocess.run(  # noqa: S603 # our own interpreter and words
        migrate_command(), env=dict(env), stdout=log or subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        message = f"`airflow db migrate` ended with {done.returncode}; its home is {env['AIRFLOW_HOME']}"
        raise TransientError(message)


def migrate_command() -> list[str]:
    """Return the command that makes Airflow's metadata database ready."""
    return _airflow("db", "migrate")


def dag_test_command(dag_id: str, params: Mapping[str, object]) -> list[str]:
    """Return the command that runs a DAG once without a scheduler; it ends with 0 when the run succeeded.

    The waiting task is triggered inline, so that whatever it waits for happens in other processes.
    """
    return _airflow("dags", "test", dag_id, "--conf", json.dumps(dict(params)))


def standalone_command() -> list[str]:
    """Return the command that runs scheduler, DAG processor, triggerer and web server; end it with `stop_airflow`."""
    return _airflow("standalone")


def stop_airflow(process: subprocess.Popen[bytes], *, timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """Stop an Airflow that was started in a session of its own, its children included; return when all are gone.

    SIGINT first, because SIGTERM makes `airflow standalone` leave its children behind; whoever is still there after
    `timeout_s` is killed with the process group.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    left = _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    give_up_at = time.monotonic() + _KILLED_S
    while left and time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY_S)
        left = _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> bool:
    """Signal a process group; return whether anybody was in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _airflow(*words: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *words]
