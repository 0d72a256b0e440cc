"""Run DAGs one after the other in one Airflow without a scheduler, and write how each run ended, as JSON, to a file.

What `airflow dags test` does, without paying for its start each time.
"""

import json
import sys
from pathlib import Path

from airflow.configuration import conf
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk import DAG


def main(runs: list[tuple[str, dict[str, object]]], target: Path) -> None:
    folder = conf.get_mandatory_value("core", "dags_folder")
    bag = BundleDagBag(dag_folder=folder, bundle_path=Path(folder))
    target.write_text(json.dumps([run(bag.dags[dag_id], params) for dag_id, params in runs]))


def run(dag: DAG, params: dict[str, object]) -> dict[str, object]:
    print(f"=== {dag.dag_id}", flush=True)
    done = dag.test(run_conf=params)
    tasks = {task.task_id: {"state": task.state, "tries": task.try_number} for task in done.get_task_instances()}
    return {"state": done.state, "tasks": tasks}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
