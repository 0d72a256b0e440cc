"""Parse the DAGs of this environment's Airflow and write what the integrity tests look at, as JSON, to a file.

A process of its own: Airflow changes logging, warnings and signals of whoever imports it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.serialization.serialized_objects import DagSerialization

import fleetbatch

HEAVY = ("polars", "pyarrow", "onnxruntime", "boto3", "numpy", "pandas", "psycopg", "great_expectations", "deltalake")


def main(target: Path) -> None:
    before = [name for name in HEAVY if name in sys.modules]
    folder = conf.get_mandatory_value("core", "dags_folder")
    bag = BundleDagBag(dag_folder=folder, bundle_path=Path(folder))
    found = {
        "import_errors": {path: str(error) for path, error in bag.import_errors.items()},
        "dags": {dag_id: describe(dag) for dag_id, dag in bag.dags.items()},
        "parse_s": {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats},
        "fleetbatch": fleetbatch.__file__,
        "heavy": [name for name in HEAVY if name in sys.modules and name not in before],
    }
    target.write_text(json.dumps(found))


def describe(dag: Any) -> dict[str, Any]:
    stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    return {
        "tags": sorted(dag.tags),
        "doc_md": dag.doc_md,
        "params": {name: dag.params.get_param(name).schema for name in dag.params},
        "partitioned": stored.timetable.partitioned,
        "mapped": any(task.is_mapped for task in dag.tasks),
        "tasks": [
            {
                "id": task.task_id,
                "owner": task.owner,
                "retries": task.retries,
                "doc_md": task.doc_md,
                "upstream": sorted(task.upstream_task_ids),
                "outlets": len(task.outlets),
            }
            for task in dag.topological_sort()
        ],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
