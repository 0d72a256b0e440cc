"""Work that may be done anywhere is split between cells before it is registered: by what their cars will give."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from night import Night, night_in

from fleetbatch import layout
from fleetbatch.local.postgres import Postgres


def shards_by_cell(night: Night) -> dict[str, int]:
    """Return the shards of the newest order by cell as the manifest deals them out; the ledgers hold just these."""
    manifest = pq.read_table(night.home / "store" / layout.manifest(night.key))
    dealt = dict(Counter(manifest["cell"].to_pylist()))
    assert dealt == {name: side.ledger.counts(night.key).total for name, side in night.cells.items()}
    return dealt


def test_a_cell_whose_cars_are_at_their_plugs_gets_more_than_one_that_only_has_more_cars(
    tmp_path: Path, postgres: Postgres
) -> None:
    with night_in(tmp_path, postgres, cells=2) as night:
        for number in range(3):
            night.park(f"eu-{number}", cell="eu-1")
        away = [night.park(f"us-{number}", cell="us-1") for number in range(5)]
        for car in away[1:]:
            car.unplug()
        night.pass_time(minutes=5)  # every cell has planned a round
        night.begin(rows=96)
        assert shards_by_cell(night) == {"eu-1": 9, "us-1": 3}
