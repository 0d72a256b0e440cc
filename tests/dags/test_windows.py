from typing import Any

import pytest

pytestmark = pytest.mark.airflow


def test_a_day_of_the_forecast_closes_stays_and_then_tunes(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["windows"]["tasks"]
    assert [(task["id"], task["upstream"]) for task in tasks] == [("ingest", []), ("tune", ["ingest"])]
    assert "day" in parsed["dags"]["windows"]["params"]


def test_a_model_is_learnt_in_a_dag_of_its_own(parsed: dict[str, Any]) -> None:
    assert [task["id"] for task in parsed["dags"]["windows_refit"]["tasks"]] == ["refit"]
