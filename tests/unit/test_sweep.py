"""A few lines of an order are thousands of scenarios; what no car could drive is refused before its night."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from fleetbatch.errors import RejectedError
from fleetbatch.orders import Known, load_order
from fleetbatch.sharding import list_input, open_input
from fleetbatch.steps.examining import estimated, known_in
from fleetbatch.workloads import workload

HIGHWAY = "highway_env:highway-fast-v0"
NOTHING_MEASURED = pa.table({"workload": pa.array([], pa.string()), "rows": [], "busy_s": []})
FIVE_LINES = """
workload = "scenario"
model = "driving-policy"
source = "generator:scenarios?seeds=1000"
options.sweep.vehicles_count = [10, 20, 30, 40, 50]
options.sweep.vehicles_density = [1.0, 1.5]
"""


def test_five_lines_of_an_order_are_ten_thousand_scenarios(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(FIVE_LINES)
    known = Known(
        regions=frozenset(),
        workloads=frozenset({"scenario"}),
        rows_per_s=lambda name: workload(name).rows_per_s,
        generators=frozenset({"scenarios"}),
    )
    order = load_order(tmp_path / "sweep.toml", known)
    given = open_input(order.workload, order.source, dict(order.options))
    assert list_input(given).items == 10_000
    assert (order.cutting.shard_rows, order.cutting.row_group_rows) == (600, 60)
    entries = list(given.entries())
    contents = [given.row(entry, bytes_max=1 << 20).content for entry in (entries[0], entries[-1])]
    assert [len(content or b"") for content in contents] == [entries[0].size_bytes, entries[-1].size_bytes]
    assert [json.loads(bytes(content or b"")) for content in contents] == [
        {"environment": HIGHWAY, "seed": 0, "config": {"vehicles_count": 10, "vehicles_density": 1.0}},
        {"environment": HIGHWAY, "seed": 999, "config": {"vehicles_count": 50, "vehicles_density": 1.5}},
    ]
    assert len({entry.uri for entry in entries}) == 10_000


def test_a_sweep_keeps_what_is_fixed_and_takes_several_environments() -> None:
    options = {
        "environment": '["highway_env:highway-v0", "highway_env:highway-fast-v0"]',
        "config": '{"duration": 5}',
        "sweep": '{"lanes_count": [1, 2]}',
    }
    given = open_input("scenario", "generator:scenarios?seeds=2&first_seed=7", options)
    scenarios = [json.loads(bytes(given.row(entry, bytes_max=1000).content or b"")) for entry in given.entries()]
    assert len(scenarios) == 8
    first = {"environment": "highway_env:highway-v0", "seed": 7, "config": {"duration": 5, "lanes_count": 1}}
    assert scenarios[0] == first


def test_a_sweep_that_cannot_be_is_refused_with_every_mistake() -> None:
    with pytest.raises(RejectedError) as refused:
        open_input("scenario", "generator:scenarios?seeds=0&speed=3", {"sweep": '{"a": 1}', "config": "[]"})
    said = "\n".join(refused.value.problems)
    for name in ("`seeds`", "`speed`", "`sweep.a`", "`config`"):
        assert name in said


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        ("seeds=1000", {"sweep": json.dumps({"a": [1] * 200_000})}, "200000000 scenarios"),
        ("seeds=" + "9" * 5000, {}, "expected a whole number from 1"),
        ("seeds=1", {"config": '{"a":' * 100_000 + "1" + "}" * 100_000}, "expected a table"),
        ("seeds=1", {"config": '{"a": Infinity}'}, "expected a table of what JSON holds"),
        ("seeds=3&seeds=4", {}, "says seeds more than once"),
    ],
    ids=["more than a night", "digits", "depth", "infinity", "twice"],
)
def test_a_sweep_beyond_all_bounds_is_refused_before_it_is_spelt_out(
    source: str, options: dict[str, str], why: str
) -> None:
    with pytest.raises(RejectedError) as refused:
        open_input("scenario", f"generator:scenarios?{source}", options)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"environment": "highway_env:nope-v0"}, "environment highway_env:nope-v0 cannot be made"),
        ({"environment": "no_such_package:some-v0"}, "environment no_such_package:some-v0 cannot be made"),
        ({"sweep": '{"vehicles_cuont": [1, 2]}'}, "knows no configuration vehicles_cuont"),
    ],
    ids=["environment", "package", "configuration"],
)
def test_a_sweep_that_no_car_could_drive_is_refused_before_its_night(options: dict[str, str], why: str) -> None:
    with pytest.raises(RejectedError, match="none can be used") as refused:
        list_input(open_input("scenario", "generator:scenarios?seeds=500", options))
    assert why in str(refused.value)


def test_of_several_environments_the_wrong_one_is_named_row_by_row() -> None:
    options = {"environment": '["CartPole-v1", "Cartpole-v1"]'}
    given = open_input("scenario", "generator:scenarios?seeds=2", options)
    errors = [given.row(entry, bytes_max=1000).error for entry in given.entries()]
    assert errors[:2] == [None, None]
    assert all("Cartpole-v1 cannot be made" in (error or "") for error in errors[2:])


def test_an_option_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    def check(text: str) -> None:
        (tmp_path / "sweep.toml").write_text(text)
        order = load_order(tmp_path / "sweep.toml", known_in(frozenset()))
        estimated(order, rates=NOTHING_MEASURED, free_car_hours=None)

    check(FIVE_LINES)
    with pytest.raises(RejectedError, match="nothing here reads") as refused:
        check(f"{FIVE_LINES}\noptions.swep.lanes_count = [2]\noptions.decode = 'reduced'")
    assert [problem.partition(" ")[0] for problem in refused.value.problems] == ["`options.decode`", "`options.swep`"]


def test_a_policy_that_its_environment_has_no_use_for_is_refused_before_every_row_comes_out_dead(
    tmp_path: Path,
) -> None:
    (tmp_path / "sweep.toml").write_text(f"{FIVE_LINES.partition('options')[0]}options.environment = 'CartPole-v1'")
    order = load_order(tmp_path / "sweep.toml", known_in(frozenset()))
    with pytest.raises(RejectedError, match="the policy takes 25 values, the environment gives 4") as refused:
        estimated(order, rates=NOTHING_MEASURED, free_car_hours=None)
    assert "model driving-policy does not fit source generator:scenarios?seeds=1000" in str(refused.value)


def test_a_policy_that_only_the_first_of_several_environments_has_no_use_for_is_not_refused(tmp_path: Path) -> None:
    environments = f"options.environment = ['CartPole-v1', '{HIGHWAY}']"
    (tmp_path / "sweep.toml").write_text(f"{FIVE_LINES.partition('options')[0]}{environments}")
    order = load_order(tmp_path / "sweep.toml", known_in(frozenset()))
    assert estimated(order, rates=NOTHING_MEASURED, free_car_hours=None).rows == 2000


def test_scenarios_may_come_as_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"environment": HIGHWAY, "seed": 1, "config": {"duration": 4}}))
    (tmp_path / "b.json").write_text('{"environment": "CartPole-v1", "seed": -1}')
    (tmp_path / "c.txt").write_text("hello")
    given = open_input("scenario", str(tmp_path), {})
    found = [given.row(entry, bytes_max=1000) for entry in given.entries()]
    assert [row.error is None for row in found] == [True, False, False]
