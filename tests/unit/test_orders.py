from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import colour_bundle

from fleetbatch import layout
from fleetbatch.bundle import build_bundle, open_bundle
from fleetbatch.contracts import empty
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Cutting, FrozenOrder, Order
from fleetbatch.orders import (
    AlreadyPublished,
    Known,
    estimate_order,
    freeze_order,
    load_order,
    model_file,
    order_from_json,
    order_to_json,
    parse_form,
)
from fleetbatch.orders.cron import cron_problem
from fleetbatch.sealing import KEY_BYTES, unwrap_secret
from fleetbatch.store import Store, open_store
from fleetbatch.units import Night

KNOWN = Known(regions=frozenset({"eu", "us"}), workloads=frozenset({"image"}), rows_per_s=lambda _: 50 / 3)
NIGHT = Night("2026-11-22")
EVENING = datetime(2026, 11, 22, 20, tzinfo=UTC)
DEPLOYMENT_KEY = bytes(range(KEY_BYTES))
MINIMAL = 'source = "pictures"\nmodel = "model.zip"\n'


def bundle_for(workload: str) -> bytes:
    content = open_bundle(colour_bundle(), expected_sha256=None).content
    return build_bundle(replace(content, manifest=msgspec.structs.replace(content.manifest, workload=workload)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "model.zip").write_bytes(colour_bundle())
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path / 'store'}", deployment_key=DEPLOYMENT_KEY)


def load(folder: Path, text: str) -> Order:
    path = folder / "overnight.toml"
    path.write_text(text)
    return load_order(path, KNOWN)


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(RejectedError) as refused:
        load(folder, text)
    return refused.value.problems


def freeze(store: Store, order: Order, *, force: bool = False, now: datetime = EVENING) -> FrozenOrder:
    frozen = freeze_order(store, order, night=NIGHT, force=force, now=now, deployment_key=DEPLOYMENT_KEY)
    assert isinstance(frozen, FrozenOrder)
    return frozen


def publish(store: Store, frozen: FrozenOrder) -> None:
    store.write(layout.summary(frozen.key), b"{}")


def test_an_order_needs_only_a_source_and_a_model(folder: Path) -> None:
    order = load(folder, MINIMAL)
    assert (order.name, order.workload, order.region, order.lane) == ("overnight", "image", "any", "cars")
    assert order.source == str(folder / "pictures")
    assert order.model == str(folder / "model.zip")


def test_every_mistake_is_named_at_once(folder: Path) -> None:
    found = problems(
        folder,
        """
        name = "Über Nacht"
        workload = "sound"
        source = "nowhere"
        model = "nothing.zip"
        region = "mars"
        priority = 7
        deadline_hours = -1
        data_class = "secret"
        schedule = "0 25 * * *"
        timezone = "Mars/Olympus"
        colour = "red"
        [cutting]
        shard_rows = 0
        row_rows = 5
        [auditing]
        rows_min = "two"
        """,
    )
    named = {problem.partition("`")[2].partition("`")[0] for problem in found}
    assert named == {
        "name", "workload", "source", "model", "region", "priority", "deadline_hours", "data_class", "schedule",
        "timezone", "colour", "cutting.shard_rows", "cutting.row_rows", "auditing.rows_min",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["inf", "nan", "[1.0, -inf]", "{ duration = nan }", "{ sizes = [inf] }"])
def test_an_option_that_is_no_number_is_refused_and_not_read_as_nothing(folder: Path, value: str) -> None:
    with pytest.raises(RejectedError) as refused:
        load(folder, f'source = "pictures"\n[options]\nsize = {value}\n')
    assert "`options.size` is" in "\n".join(refused.value.problems)


def test_an_empty_order_says_what_is_missing(folder: Path) -> None:
    assert [problem.split(" ")[0] for problem in problems(folder, "")] == ["`source`"]


def test_a_file_that_is_not_toml_or_not_there_is_named(folder: Path) -> None:
    with pytest.raises(RejectedError, match=r"overnight\.toml is not TOML"):
        load(folder, "source = = 3")
    with pytest.raises(RejectedError, match=r"nothing\.toml: No such file"):
        load_order(folder / "nothing.toml", KNOWN)


def test_a_model_is_a_file_or_travels_in_the_package(folder: Path) -> None:
    found = problems(folder, 'source = "pictures"\nmodel = "unicorn-spotter"\n')
    assert "unicorn_spotter.zip" in found[0]
    assert model_file("road-signs").name == "road_signs.zip"
    assert model_file("/srv/mine.zip") == Path("/srv/mine.zip")


@pytest.mark.parametrize("value", ["0", "-1", "0.0", "73", "true", '"ten"', "nan", "inf"])
def test_a_deadline_is_hours_between_none_and_three_days(folder: Path, value: str) -> None:
    assert "deadline_hours" in problems(folder, MINIMAL + f"deadline_hours = {value}\n")[0]


def test_personal_data_is_refused_unless_no_car_sees_it(folder: Path) -> None:
    assert "personal" in problems(folder, MINIMAL + 'data_class = "personal"\n')[0]
    assert load(folder, MINIMAL + 'data_class = "personal"\nlane = "cloud"\n').lane == "cloud"


def test_a_row_group_cannot_be_larger_than_its_shard(folder: Path) -> None:
    found = problems(folder, MINIMAL + "[cutting]\nshard_rows = 10\nrow_group_rows = 11\nshard_bytes = 100\n")
    assert len(found) == 2


def test_an_order_that_does_not_say_how_it_is_cut_has_shards_of_twenty_minutes(folder: Path) -> None:
    assert load(folder, MINIMAL).cutting == Cutting()
    slow = replace(KNOWN, rows_per_s=lambda _: 0.0001)
    (folder / "slow.toml").write_text(MINIMAL)
    assert load_order(folder / "slow.toml", slow).cutting == Cutting(shard_rows=1, row_group_rows=1)
    said = load(folder, MINIMAL + "[cutting]\nshard_rows = 50\n").cutting
    assert said == Cutting(shard_rows=50, row_group_rows=5)


def test_a_generator_is_no_path(folder: Path) -> None:
    order = load(folder, 'source = "generator:road-signs?count=5"\nmodel = "model.zip"\n[options]\nseed = 3\n')
    assert order.source == "generator:road-signs?count=5"
    assert order.options == (("seed", "3"),)
    assert "unicorns" in problems(folder, 'source = "generator:unicorns"\nmodel = "model.zip"\n')[0]


def test_the_forms_empty_fields_take_their_defaults(folder: Path) -> None:
    form: dict[str, Any] = {"source": "pictures", "model": "model.zip", "region": "", "priority": None, "force": True}
    order = parse_form(form, KNOWN, base=folder)
    assert (order.name, order.region, order.priority, order.schedule) == ("adhoc", "any", 1, "")


@pytest.mark.parametrize("text", ["0 20 * * *", "*/15 0-6,22 1 jan-mar mon", "5,35 */2 * * 0-7"])
def test_cron_that_airflow_takes_is_taken(text: str) -> None:
    assert cron_problem(text) is None


@pytest.mark.parametrize(
    "text", ["", "@daily", "0 20 * *", "60 0 * * *", "0 5-3 * * *", "* * 0 * *", "*-3 * * * *", "0 0 * * xyz"]
)
def test_other_schedules_are_refused(text: str) -> None:
    assert cron_problem(text) is not None


def test_the_estimate_counts_shards_by_rows_or_bytes_and_hours_by_measured_rates(folder: Path) -> None:
    order = load(folder, MINIMAL + "[cutting]\nshard_rows = 100\nrow_group_rows = 10\n")
    rates = pa.table(
        {"workload": ["image", "image", "video"], "rows": [3600, 3600, 9], "busy_s": [1800.0, 1800.0, 1.0]}
    )
    estimate = estimate_order(order, items=1001, size_bytes=10, rates=rates, assumed=50 / 3, free_car_hours=0.1)
    assert (estimate.shards, estimate.fits, estimate.measured) == (11, False, True)
    assert estimate.car_hours == pytest.approx(1001 / 7200)
    assert (
        estimate_order(order, items=1, size_bytes=1 << 30, rates=rates, assumed=50 / 3, free_car_hours=1).shards == 32
    )


def test_without_measured_rates_the_estimate_says_so(folder: Path) -> None:
    rates = pa.table(
        {"workload": pa.array([], pa.string()), "rows": pa.array([], pa.int64()), "busy_s": pa.array([], pa.float64())}
    )
    estimate = estimate_order(
        load(folder, MINIMAL), items=20_000, size_bytes=1, rates=rates, assumed=50 / 3, free_car_hours=None
    )
    assert (estimate.measured, estimate.fits) == (False, None)
    assert estimate.car_hours == pytest.approx(1 / 3)
    assert "an assumed 16.7 rows a second" in str(estimate)


def test_a_frozen_order_carries_its_bundle_its_deadline_and_a_wrapped_secret(folder: Path, store: Store) -> None:
    frozen = freeze(store, load(folder, MINIMAL + "deadline_hours = 6\n"))
    assert str(frozen.key) == "2026-11-22/overnight/g1"
    assert frozen.deadline_at == EVENING + timedelta(hours=6)
    assert len(unwrap_secret(frozen.secret_wrapped, DEPLOYMENT_KEY)) == KEY_BYTES
    stored = open_bundle(store.read(layout.bundle(frozen.model_sha256)), expected_sha256=None)
    assert stored.sha256 == frozen.model_sha256


def test_a_frozen_order_comes_back_from_json_as_it_was(folder: Path, store: Store) -> None:
    frozen = freeze(store, load(folder, MINIMAL + "[options]\nseed = 1\nfast = true\n"))
    assert order_from_json(order_to_json(frozen)) == frozen
    with pytest.raises(RejectedError, match="cannot be read"):
        order_from_json(b"{}")


def test_an_interrupted_night_goes_on_as_it_was_frozen(folder: Path, store: Store) -> None:
    order = load(folder, MINIMAL)
    first = freeze(store, order)
    assert freeze(store, order, now=EVENING + timedelta(hours=1)) == first
    assert freeze(store, replace(order, priority=0), now=EVENING + timedelta(hours=1)) == first


def test_a_published_night_is_done_and_force_makes_the_next_generation(folder: Path, store: Store) -> None:
    order = load(folder, MINIMAL)
    first = freeze(store, order)
    publish(store, first)
    again = freeze_order(store, order, night=NIGHT, force=False, now=EVENING, deployment_key=DEPLOYMENT_KEY)
    assert again == AlreadyPublished(key=first.key)
    second = freeze(store, order, force=True)
    assert second.key.generation == 2
    assert freeze(store, order, force=True) == second, "a retried forced run goes on with what it froze"
    assert second.secret_wrapped != first.secret_wrapped


def test_force_begins_anew_when_the_interrupted_night_is_not_what_is_asked_for_now(folder: Path, store: Store) -> None:
    order = load(folder, MINIMAL)
    freeze(store, order)
    assert freeze(store, replace(order, priority=0), force=True).key.generation == 2
    late = EVENING + timedelta(hours=order.deadline_hours, seconds=1)
    assert freeze(store, replace(order, priority=0), force=True, now=late).key.generation == 3


def test_a_night_whose_files_were_archived_stays_published(folder: Path, store: Store) -> None:
    order = load(folder, MINIMAL)
    row = {field.name: None for field in empty("nights").schema} | {
        "night": NIGHT, "order": order.name, "generation": 3, "state": "complete", "rows_in": 1, "rows_out": 1,
        "dead_letter_rows": 0, "missing_rows": 0, "shards": 1, "model_sha256": "0" * 64, "table_version": 5,
        "published_at": EVENING, "files": ["a.parquet"],
    }  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row], schema=empty("nights").schema), sink)
    store.write(layout.nights(order.name), sink.getvalue().to_pybytes())
    done = freeze_order(store, order, night=NIGHT, force=False, now=EVENING, deployment_key=DEPLOYMENT_KEY)
    assert isinstance(done, AlreadyPublished)
    assert done.key.generation == 3
    assert freeze(store, order, force=True).key.generation == 4


def test_an_order_without_the_model_that_its_workload_needs_is_not_frozen(folder: Path, store: Store) -> None:
    with pytest.raises(RejectedError, match="pictures need a model"):
        freeze(store, load(folder, 'source = "pictures"\n'))


def test_a_bundle_of_another_workload_or_no_bundle_leaves_nothing_in_the_store(folder: Path, store: Store) -> None:
    order = load(folder, MINIMAL)
    (folder / "model.zip").write_bytes(bundle_for("video"))
    with pytest.raises(RejectedError, match="'video'"):
        freeze(store, order)
    (folder / "model.zip").write_bytes(b"no zip")
    with pytest.raises(RejectedError, match="not a zip of ours"):
        freeze(store, order)
    assert list(store.keys("")) == []
