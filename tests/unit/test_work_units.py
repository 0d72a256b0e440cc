"""Work is counted by the time that it takes the reference car: a row of one workload is not a row of another."""

import pytest
from ledger_nights import manifest

from fleetbatch.steps.opening import in_units
from fleetbatch.units import UNIT_S, UNITS_MAX
from fleetbatch.workloads import row_seconds, row_units, workload

SHARD_S = 1200


@pytest.mark.parametrize("name", ["image", "video", "scenario"])
def test_twenty_minutes_are_the_same_work_whatever_is_computed(name: str) -> None:
    rows = round(SHARD_S * workload(name).rows_per_s)
    units = in_units(manifest({7: (rows,)}), name)["work_units"].to_numpy()
    assert units * UNIT_S == pytest.approx([SHARD_S])


def test_a_picture_is_one_unit_as_terms_have_always_paid_it() -> None:
    pictures = manifest({7: (3, 4), 8: (5,)})
    assert row_units("image") == 1.0
    assert in_units(pictures, "image").equals(pictures)


def test_a_workload_that_is_not_installed_here_counts_as_pictures_do() -> None:
    assert row_units("words") == 1.0


def test_rows_units_and_seconds_agree() -> None:
    assert row_seconds() == pytest.approx({name: row_units(name) * UNIT_S for name in row_seconds()})


def test_no_shard_counts_for_more_than_a_day_so_that_its_pay_has_a_column() -> None:
    units = float(in_units(manifest({7: (1_000_000,)}), "scenario")["work_units"].to_numpy()[0])
    assert units == UNITS_MAX
    assert units * 1e12 + units * 1e6 * 1e9 / 1000.0 < 2**63 - 1
