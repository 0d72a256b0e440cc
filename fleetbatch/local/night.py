"""One night on a laptop: start everything, let Airflow run the DAG, take two cars away, and say what came of it."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fleetbatch.errors import TransientError
from fleetbatch.local.airflow import airflow_env, dag_test_command, dags_folder, migrate_command
from fleetbatch.local.cars import unplug
from fleetbatch.local.deployment import Deployment, alone_in, deployment
from fleetbatch.local.incidents import MidShard, in_mid_shard
from fleetbatch.local.outcome import published_summary, refusal
from fleetbatch.local.preflight import prepare_order
from fleetbatch.local.processes import Child
from fleetbatch.local.progress import Progress
from fleetbatch.local.request import NightRequest, check_request, order_name_of
from fleetbatch.units import CarId

_CLOSING: Final = "every shard is in; Airflow merges, checks and publishes them"
_LOOK_EVERY_S: Final = 0.1
_SAY_EVERY_S: Final = 0.5
_WORLD_EVERY_S: Final = 1.0


@dataclass(slots=True)
class _Watch:
    """What the laptop has seen and done so far in this night."""

    running: Deployment
    progress: Progress
    incidents_left: list[str]
    taken: set[CarId] = field(default_factory=set)
    opened: bool = False
    said_at: float = 0.0
    turned_at: float = 0.0


def run_night(request: NightRequest, progress: Progress) -> dict[str, Any]:
    """Run a night and return its summary; a night that is published already is left as it is.

    Raises:
        RejectedError: something about the request or the input is wrong.
        TransientError: a part of the deployment stopped.
    """
    check_request(request)
    with alone_in(request.home) as lock:
        orders = prepare_order(request, progress)
        done = published_summary(request.home, order_name_of(request), request.night)
        if done is not None and not request.force:
            return {**done, "no_op": True}
        _run(request, orders, progress, lock)
        summary = published_summary(request.home, order_name_of(request), request.night)
    if summary is None or (done is not None and summary["generation"] <= done["generation"]):
        message = f"the DAG ended well, but no new generation of night {request.night} is published"
        raise TransientError(message)
    return {**summary, "seconds": round(progress.seconds(), 1)}


def _run(request: NightRequest, orders: Path, progress: Progress, lock: int) -> None:
    with deployment(request.home, lock=lock, cars=request.cars, progress=progress) as running:
        env = airflow_env(
            running.env, home=request.home, settings=running.settings_file, dags=dags_folder(), orders=orders
        )
        progress.now("preparing Airflow")
        prepared = running.family.spawn("airflow-migrate", migrate_command(), env)
        if prepared.process.wait():
            message = f"`airflow db migrate` failed:\n{prepared.tail()}"
            raise TransientError(message)
        progress.event(f"{len(running.cars)} cars are parked and charge; Airflow opens night {request.night}")
        dag = running.family.spawn(
            "airflow-dag",
            dag_test_command(order_name_of(request), {"night": request.night, "force": request.force}),
            env,
        )
        incidents = ["unplug", "kill"] if request.incidents and request.cars > 1 else []
        watch = _Watch(running, progress, incidents)
        while dag.alive():
            _look(watch)
            time.sleep(_LOOK_EVERY_S)
        progress.event("Airflow is done; cars and services are stopped")
        _judge(dag, watch)


def _look(watch: _Watch) -> None:
    """Let the world turn, take a car away when one is in mid-shard, say how far the night is."""
    fallen = watch.running.fallen()
    if fallen:
        message = f"{fallen[0].name} stopped in mid-night; its log ends with:\n{fallen[0].tail()}"
        raise TransientError(message)
    clock = time.monotonic()
    if clock - watch.turned_at >= _WORLD_EVERY_S:
        watch.turned_at = clock
        watch.running.turn_the_world(datetime.now(UTC))
    if watch.incidents_left:
        _take_one_away(watch)
    if clock - watch.said_at >= _SAY_EVERY_S:
        watch.said_at = clock
        watch.progress.now(_how_far(watch))


def _take_one_away(watch: _Watch) -> None:
    for ledger in watch.running.ledgers.values():
        found = in_mid_shard(ledger.open_shards(), spare=frozenset(watch.taken))
        if found is not None:
            watch.taken.add(found.car_id)
            _happen(watch, watch.incidents_left.pop(0), found)
            return


def _happen(watch: _Watch, incident: str, found: MidShard) -> None:
    name = next(name for name, car in watch.running.cars.items() if car.car_id == found.car_id)
    where = f"after part {found.done_through} of {found.row_groups} of shard {found.shard_id:016x}"
    if incident == "unplug":
        watch.running.cars[name] = unplug(watch.running.cars[name], now=datetime.now(UTC))
        watch.progress.event(f"the owner of {name} unplugs {where}")
    else:
        watch.running.family.kill(watch.running.runners[name])
        watch.progress.event(f"{name} is killed (SIGKILL) {where}")


def _how_far(watch: _Watch) -> str:
    counts: Counter[str] = Counter()
    for ledger in watch.running.ledgers.values():
        for row in ledger.orders_open():
            counts.update(_as_counts(ledger.counts(row.key)))
    if not counts["total"]:
        return _CLOSING if watch.opened else "Airflow checks the order and cuts it into shards"
    if not watch.opened:
        watch.opened = True
        watch.progress.event("the order is cut into shards; cars come for them")
    done = counts["valid"] + counts["done"]
    if done + counts["missing"] == counts["total"]:
        return _CLOSING
    return (
        f"{done} of {counts['total']} shards done, {counts['out']} in cars, "
        f"{counts['returned']} being audited, {counts['ready']} waiting for a car"
    )


def _as_counts(counts: object) -> Mapping[str, int]:
    names = ("ready", "out", "returned", "valid", "done", "missing", "total")
    return {name: getattr(counts, name) for name in names}


def _judge(dag: Child, watch: _Watch) -> None:
    """Raise what the DAG's end means for the person who waits."""
    for incident in watch.incidents_left:
        watch.progress.event(f"no car was in mid-shard long enough to {incident} it")
    if dag.process.returncode == 0:
        return
    found = refusal(dag.log.read_text(errors="replace"))
    if found is not None:
        raise found
    message = f"the DAG failed; its log {dag.log} ends with:\n{dag.tail()}"
    raise TransientError(message)
