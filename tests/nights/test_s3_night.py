"""A whole night on a real S3 server: cars put their parts into it by signed URLs, and the table is published in it."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from cell_processes import cell_processes
from s3_servers import S3Server, radosgw
from surroundings import environment

from fleetbatch import layout
from fleetbatch.nouns import OrderKey
from fleetbatch.publish.reading import published_files
from fleetbatch.store import open_store, probe
from fleetbatch.units import Night, OrderName

PICTURES = 48
NIGHT = "2026-11-22"


@pytest.fixture
def server() -> Iterator[S3Server]:
    with radosgw() as running, environment(running.environment()):
        yield running


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_a_night_on_a_real_s3_server_is_published_whole(server: S3Server, tmp_path: Path) -> None:
    url = server.bucket_url()
    with cell_processes(tmp_path, cars=2, pictures=PICTURES, store=url) as cell:
        store = open_store(url, deployment_key=cell.settings.deployment_key)
        assert probe(store) == []
        key = OrderKey.parse(cell.run_night(NIGHT)["key"])
        parts = cell.ledger.valid_parts(key)
        by_cars = [part for part in parts.to_pylist() if part["car_id"]]
        files = published_files(store, OrderName("colours"), Night(NIGHT))
    rows = pl.concat([pl.read_parquet(file, storage_options=store.storage_options()) for file in files])
    assert rows["item_id"].n_unique() == rows.height == PICTURES
    assert rows["error"].null_count() == PICTURES
    assert len(by_cars) == parts.num_rows > 0
    assert store.size(layout.summary(key))
