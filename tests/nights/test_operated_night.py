"""Stories of nights that people stop: what cars see, what the morning says."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from night import Night, night_in

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.local.postgres import Postgres
from fleetbatch.nouns import Merged
from fleetbatch.publish import publish_order
from fleetbatch.steps.closing import check_step, close_order, publish_step
from fleetbatch.steps.doors import find_order, open_doors
from fleetbatch.steps.operating import Verb, operate_order


@pytest.fixture
def night(tmp_path: Path, postgres: Postgres) -> Iterator[Night]:
    """A night of three shards: one is valid, and the car is in the middle of another."""
    with night_in(tmp_path, postgres) as night:
        car = night.park("car-1")
        night.begin(rows=24)
        night.wait_until(lambda: night.progress().counts.valid == 1 and car.lease)
        yield night


def operate(night: Night, verb: Verb, reason: str = "") -> None:
    operate_order(night.settings, verb, night.key.order, night.key.night, reason=reason)


def reasons(night: Night) -> set[str]:
    rows = pq.read_table(io.BytesIO(night.store.read(layout.missing(night.key))))
    return {str(reason) for reason in rows["reason"].to_pylist()}


def published(night: Night, merged: Merged) -> bool:
    passed = check_step(night.settings, night.key).passed
    publish_step(night.settings, night.key, now=night.now)
    return passed and merged.rows_in == merged.rows_out + merged.missing_rows == 24


def test_a_cancelled_night_ends_at_once_and_names_what_it_did_not_do(night: Night) -> None:
    operate(night, "cancel", "wrong folder")
    night.pass_time(minutes=2)
    assert night.cars["car-1"].lease is None, "it heard at its next beat"
    cancelled_at = night.now
    merged = night.merge()
    assert (night.now - cancelled_at).total_seconds() < 120, "nobody waits for the deadline"
    assert merged.rows_out >= 8
    assert published(night, merged)
    assert reasons(night) == {"the order is cancelled: wrong folder"}


def test_nothing_of_a_recalled_night_is_published_and_every_row_is_named(night: Night) -> None:
    operate(night, "recall", "bad labels")
    merged = night.merge()
    assert (merged.rows_out, merged.missing_rows) == (0, 24)
    assert published(night, merged)
    assert reasons(night) == {"the order is recalled: bad labels"}


def test_nothing_of_a_night_that_is_recalled_after_its_merge_is_published(night: Night) -> None:
    assert night.merge().rows_out == 24
    night.pass_checks()
    operate(night, "recall", "bad labels")
    for _ in range(2):
        with pytest.raises(RejectedError, match="is not what was merged any more"):
            publish_step(night.settings, night.key, now=night.now)
        operate(night, "recall", "said twice is said once")
    assert not list(night.store.keys(f"{layout.table(night.key.order)}/"))
    merged = night.merge()
    assert (merged.rows_out, merged.missing_rows) == (0, 24)
    night.pass_checks()
    assert not publish_step(night.settings, night.key, now=night.now).again
    assert reasons(night) == {"the order is recalled: bad labels"}


def test_who_is_killed_while_publishing_is_followed_by_the_next_and_nobody_recalls_in_between(night: Night) -> None:
    merged = night.merge()
    night.pass_checks()
    with open_doors(night.settings) as doors:
        opened = find_order(doors.ledgers, night.key)
        close_order(opened.ledgers, night.key, merged.token)
    with pytest.raises(RejectedError, match="is being published, for good"):
        operate(night, "recall", "too late")
    first = publish_order(night.store, opened.frozen, merged, now=night.now)
    with pytest.raises(RejectedError, match="is being published, for good"):
        operate(night, "cancel", "too late")
    second = publish_step(night.settings, night.key, now=night.now)
    assert (second.again, second.version) == (True, first.version)
    assert night.progress().counts.done == 3
    with pytest.raises(RejectedError, match="is closed, for good"):
        operate(night, "recall", "too late")


def test_a_paused_night_goes_on_where_it_stopped(night: Night) -> None:
    operate(night, "pause")
    night.wait_until(lambda: night.cars["car-1"].lease is None)
    night.pass_time(minutes=10)
    assert night.progress().counts.ready == 1
    operate(night, "resume")
    merged = night.merge()
    assert (merged.rows_out, merged.missing_rows) == (24, 0)
