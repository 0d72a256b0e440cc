from collections.abc import Iterator
from pathlib import Path

import pytest
from night import Night, night_in

from fleetbatch.local.postgres import Postgres


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres) -> Iterator[Night]:
    with night_in(tmp_path, postgres) as night:
        yield night


def test_two_parked_cars_compute_a_night(night: Night) -> None:
    night.park("car-1")
    night.park("car-2")
    night.begin(rows=24)

    merged = night.merge()

    assert (merged.rows_in, merged.rows_out, merged.missing_rows) == (24, 24, 0)
