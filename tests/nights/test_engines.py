"""A night whose trusted work is done elsewhere: by processes of this machine, or by a Dask cluster's workers."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from night import Night, night_in

from fleetbatch import layout
from fleetbatch.local.postgres import Postgres
from fleetbatch.orders import order_to_json, stored_order
from fleetbatch.sealing import unwrap_secret, wrap_secret
from fleetbatch.steps.closing import check_step, publish_step

pytestmark = pytest.mark.filterwarnings("ignore")  # the cluster's own, while it starts, loses a worker and stops
ROWS = 48


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two worker processes that someone else keeps."""
    from distributed import LocalCluster  # slow to import: here alone

    dials = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with LocalCluster(**dials) as cluster:  # type: ignore[no-untyped-call] # distributed has no types
        yield cluster


def url(cluster: Any) -> str:
    return f"dask://{cluster.scheduler_address.removeprefix('tcp://')}"


def take_order(night: Night, other: Night) -> None:
    """Give a night the order that another has frozen: the ids of shards follow from its secret."""
    frozen = stored_order(other.store, other.key)
    secret = unwrap_secret(frozen.secret_wrapped, other.settings.deployment_key)
    frozen = replace(frozen, secret_wrapped=wrap_secret(secret, night.settings.deployment_key))
    night.store.create(layout.bundle(frozen.model_sha256), other.store.read(layout.bundle(frozen.model_sha256)))
    night.store.create(layout.order(frozen.key), order_to_json(frozen))


def published(night: Night) -> list[dict[str, Any]]:
    """Every row that a night publishes whose only car leaves early, less what was measured while it was computed."""
    car = night.park("car-1")
    night.begin(rows=ROWS, deadline_hours=0.5)
    night.wait_until(night.parts)
    car.unplug()
    merged = night.merge()
    assert check_step(night.settings, night.key).passed
    publish_step(night.settings, night.key, now=night.now)
    assert {who for *_, who in night.parts()} == {"car-1", "cloud"}
    rows = night.results(merged)
    for row in rows:
        del row["energy_wh"], row["computed_at"]
    return rows


@pytest.mark.prove
@pytest.mark.timeout(600)  # two nights
def test_a_night_publishes_the_same_rows_with_local_processes_and_with_two_workers_of_a_cluster(
    tmp_path: Path, postgres: Postgres, cluster: Any
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for home in (here, there):
        home.mkdir()
    with night_in(here, postgres, engine="local") as night, night_in(there, postgres, engine=url(cluster)) as other:
        rows = published(night)
        take_order(other, night)
        assert published(other) == rows
    assert len({row["item_id"] for row in rows}) == ROWS


def test_a_worker_that_is_killed_in_mid_night_costs_no_row(tmp_path: Path, postgres: Postgres, cluster: Any) -> None:
    with night_in(tmp_path, postgres, engine=url(cluster)) as night:
        night.begin(rows=ROWS, deadline_hours=0.5)
        night.wait_until(night.parts)
        killed = night.trusted.submit(os.getpid).result()
        os.kill(killed, signal.SIGKILL)
        merged = night.merge()
        assert (merged.rows_in, merged.rows_out, merged.missing_rows) == (ROWS, ROWS, 0)
        assert len({row["item_id"] for row in night.results(merged)}) == ROWS
