"""The laptop's deployment to play with: Airflow's own scheduler, triggerer and UI beside the cells, until Ctrl-C."""

import contextlib
import http.client
import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.local.airflow import airflow_env, dags_folder, migrate_command, standalone_command, stop_airflow
from fleetbatch.local.deployment import Deployment, alone_in, deployment
from fleetbatch.local.processes import Child
from fleetbatch.local.progress import Progress

_HEALTHY_S: Final = 180.0
_WORLD_EVERY_S: Final = 1.0


def stay_up(home: Path, *, cars: int, port: int, progress: Progress) -> None:
    """Start everything, say where it is, and stay until Ctrl-C.

    Raises:
        RejectedError: the port is taken, or the folder is in use.
        TransientError: Airflow did not get healthy.
    """
    _check_free(port)
    with alone_in(home) as lock, deployment(home, lock=lock, cars=cars, progress=progress) as running:
        env = airflow_env(running.env, home=home, settings=running.settings_file, dags=dags_folder(), port=port)
        progress.now("preparing Airflow")
        prepared = running.family.spawn("airflow-migrate", migrate_command(), env)
        if prepared.process.wait():
            message = f"`airflow db migrate` failed:\n{prepared.tail()}"
            raise TransientError(message)
        airflow = running.family.spawn("airflow", standalone_command(), env)
        try:
            _wait_healthy(airflow, running, port, progress)
            _welcome(running, port, progress)
            _turn_until_interrupted(running, airflow)
        finally:
            progress.now("stopping; Airflow first")
            stop_airflow(airflow.process)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            summary = f"port {port} is taken; choose another with --port"
            raise RejectedError(summary) from error


def _wait_healthy(airflow: Child, running: Deployment, port: int, progress: Progress) -> None:
    give_up_at = time.monotonic() + _HEALTHY_S
    while time.monotonic() < give_up_at:
        progress.now("starting Airflow: scheduler, triggerer, DAG processor, web server (about a minute)")
        if not airflow.alive():
            message = f"Airflow stopped while starting:\n{airflow.tail()}"
            raise TransientError(message)
        if _healthy(port):
            return
        running.turn_the_world(datetime.now(UTC))
        time.sleep(_WORLD_EVERY_S)
    message = f"Airflow was not healthy after {_HEALTHY_S:.0f} s; see {airflow.log}"
    raise TransientError(message)


def _healthy(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/api/v2/monitor/health")
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return False
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    return all(answer.get(part, {}).get("status") == "healthy" for part in parts)


def _welcome(running: Deployment, port: int, progress: Progress) -> None:
    progress.event(f"Airflow's UI   http://127.0.0.1:{port}   (no login; switch the DAG `overnight` on, or trigger it)")
    for cell in running.settings.cells:
        cars = [name for name, car in running.cars.items() if car.car.cell == cell.name]
        progress.event(f"cell {cell.name}      {cell.gateway_url}   with {', '.join(cars)}")
    progress.event(f"logs           {running.home / 'logs'}")
    progress.event("Ctrl-C ends all of it")


def _turn_until_interrupted(running: Deployment, airflow: Child) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while airflow.alive():
            fallen = running.fallen()
            if fallen:
                message = f"{fallen[0].name} stopped; its log ends with:\n{fallen[0].tail()}"
                raise TransientError(message)
            running.turn_the_world(datetime.now(UTC))
            time.sleep(_WORLD_EVERY_S)
        message = f"Airflow stopped by itself:\n{airflow.tail()}"
        raise TransientError(message)
