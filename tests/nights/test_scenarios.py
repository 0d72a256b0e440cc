"""A night of driving scenarios, from a few lines of an order to the published table."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from night import Night, night_in

from fleetbatch.local.postgres import Postgres
from fleetbatch.steps.closing import check_step, publish_step, report_step
from fleetbatch.steps.credits import recompute_credits
from fleetbatch.units import UNIT_S


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres) -> Iterator[Night]:
    with night_in(tmp_path, postgres) as night:
        yield night


def test_a_sweep_is_driven_audited_and_published_as_one_table(night: Night) -> None:
    for name in ("car-1", "car-2"):
        night.park(name)
    night.begin(
        workload="scenario",
        source="generator:scenarios?seeds=2",
        model="driving-policy",
        options={"config": {"duration": 3}, "sweep": {"vehicles_count": [3, 6, "many"], "lanes_count": [2]}},
        auditing={"rows_min": 2},
    )

    merged = night.merge()

    assert (merged.rows_in, merged.rows_out, merged.dead_letter_rows, merged.missing_rows) == (6, 4, 2, 0)
    assert night.stats()["disagreements"] == 0
    assert night.stats()["audited_rows"] >= 2
    leases = night.cells["eu-1"].ledger.night_book(date(2026, 11, 22))[0]
    delivered = sum(lease.work_units * lease.delivered_rows / lease.rows for lease in leases)
    assert delivered * UNIT_S == pytest.approx(6 * 2.0), "six scenarios of two seconds, whatever came of them"
    [book] = recompute_credits(night.settings).values()
    assert book.differences == ()
    assert check_step(night.settings, night.key).passed
    published = publish_step(night.settings, night.key, now=night.now)
    rows = pl.read_parquet([f"{published.table}/{file}" for file in published.files])
    driven = rows.filter(pl.col("error").is_null())
    assert driven["seed"].unique().sort().to_list() == [0, 1]
    assert {json.loads(config)["vehicles_count"] for config in driven["config"]} == {3, 6}
    assert driven["trajectory"].n_unique() == 4
    assert rows.filter(pl.col("error").is_not_null())["source_uri"].str.contains("many").all()
    summary = report_step(night.settings, night.key, task_instances=8, now=night.now)
    assert sum(summary["headline"].values()) == 4
    assert 0 <= summary["numbers"]["collision"]["mean"] <= 1
