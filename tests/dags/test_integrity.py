from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetbatch.local.airflow import airflow_env, dags_folder

WALK = ["order", "shards", "cars_finish", "merge", "check", "publish", "report"]


def test_every_dag_file_can_be_imported(parsed: dict[str, Any]) -> None:
    assert parsed["import_errors"] == {}


def test_every_order_file_has_a_dag_and_the_form_has_one(parsed: dict[str, Any]) -> None:
    orders = {path.stem for path in (dags_folder() / "orders").glob("*.toml")}
    assert "overnight" in orders
    assert orders | {"adhoc"} <= set(parsed["dags"])


def test_every_dag_is_tagged_and_explained(parsed: dict[str, Any]) -> None:
    for dag_id, dag in parsed["dags"].items():
        assert "fleetbatch" in dag["tags"], dag_id
        assert len(dag["doc_md"]) > 100, dag_id


def test_every_task_has_an_owner_retries_and_words_for_the_night_watch(parsed: dict[str, Any]) -> None:
    for dag_id, dag in parsed["dags"].items():
        for task in dag["tasks"]:
            place = f"{dag_id}.{task['id']}"
            assert task["owner"] == "fleetbatch", place
            assert task["retries"] >= 1, place
            assert len(task["doc_md"]) > 40, place
            assert "\n    " not in task["doc_md"], f"{place}: Airflow would show an indented line as code"


@pytest.mark.parametrize("dag_id", ["overnight", "adhoc"])
def test_a_night_is_seven_tasks_in_a_row_whatever_the_number_of_shards(parsed: dict[str, Any], dag_id: str) -> None:
    dag = parsed["dags"][dag_id]
    assert [task["id"] for task in dag["tasks"]] == WALK
    assert [task["upstream"] for task in dag["tasks"]] == [[], *([name] for name in WALK[:-1])]
    assert not dag["mapped"]  # nothing grows with the shards


def test_an_order_runs_once_a_night_as_a_partition_and_the_form_by_hand(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["overnight"]["partitioned"]
    assert not parsed["dags"]["adhoc"]["partitioned"]


def test_publishing_tells_whoever_waits_for_the_table(parsed: dict[str, Any]) -> None:
    outlets = {task["id"]: task["outlets"] for task in parsed["dags"]["overnight"]["tasks"]}
    assert outlets == dict.fromkeys(WALK, 0) | {"publish": 1}


def test_the_form_asks_for_what_an_order_says(parsed: dict[str, Any]) -> None:
    asked = set(parsed["dags"]["adhoc"]["params"])
    assert asked >= {"source", "model", "workload", "region", "priority", "deadline_hours", "force", "night"}


def test_parsing_is_quick_and_loads_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []
    assert sum(parsed["parse_s"].values()) < 2.0, parsed["parse_s"]


def test_a_broken_order_file_keeps_its_dag_and_costs_no_other_order_its_own(
    airflow: dict[str, str], describe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    good = (dags_folder() / "orders" / "overnight.toml").read_text()
    (tmp_path / "good.toml").write_text(good)
    (tmp_path / "not toml.toml").write_text("workload = ")
    (tmp_path / "never.toml").write_text('schedule = "at night"\ntimezone = "Europe/Atlantis"\n')
    env = airflow_env(
        airflow, home=Path(airflow["AIRFLOW_HOME"]).parent, settings=tmp_path, dags=dags_folder(), orders=tmp_path
    )

    found = describe(env, tmp_path)

    assert found["import_errors"] == {}
    assert {"good", "not_toml", "never"} <= set(found["dags"])
    assert "not TOML" in found["dags"]["not_toml"]["doc_md"]
    assert "Atlantis" in found["dags"]["never"]["doc_md"]
    assert "broken order" in found["dags"]["never"]["tags"]
