"""Once a week, what has grown is made small again: tables are kept light, and old nights give up their inputs.

Nothing that a reader of the last thirty days can still need is touched; orders, manifests, verdicts, reports and
summaries stay. Leases and parts, which credits and provenance are recomputed from, move from the ledgers to files.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, cast

from airflow.sdk import DAG, CronTriggerTimetable, task
from night_tasks import DEFAULTS, run_step, told

FIRST_WEEK: Final = datetime(2026, 1, 1, tzinfo=UTC)


@task
@told
def tables() -> int:
    """Checkpoint every order's table, clean its log, and remove files that a newer generation replaced long ago.

    The log has one line a table with the number of files that went.
    """
    return int(run_step("keep_tables")["removed_files"])


@task
@told
def nights() -> int:
    """Remove sealed shards and parts of nights published long ago, and forget the keys that open stray copies.

    The log has one line a night. A night that was forgotten can be computed anew from its source, with `force`.
    """
    return int(run_step("forget")["forgotten_nights"])


@task
@told
def keys(cleared: int) -> int:  # noqa: ARG001 # what it waits for
    """Forget the secrets of orders that are long over in every cell, in the store and in the ledgers.

    The log has one line an order. From then on a stray copy of one of its shards is noise.
    """
    return len(run_step("forget_keys")["orders"])


@task
@told
def archive() -> int:
    """Move nights that are long over from the ledgers' tables to Parquet files in the store, then drop them.

    The log has one line a night with the rows moved. A night is dropped only while it holds just the archived rows; one
    that changed meanwhile stays, and this task is tried again.
    """
    return len(run_step("archive_nights")["moved"])


@task
@told
def rounds() -> int:
    """Remove the tables and offers of old rounds, and the cars' old signals; stays are kept.

    The log has one line a cell with the number of files that went. `fleetbatch why` answers for younger rounds only.
    """
    return sum(run_step("forget_rounds")["removed_files"].values())


with DAG(
    dag_id="maintenance",
    description="Keep tables light, forget what old nights no longer need",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 12 * * 0", timezone="UTC"),
    start_date=FIRST_WEEK,
    catchup=False,
    max_active_runs=1,
    tags=["fleetbatch", "maintenance"],
    default_args=DEFAULTS,
    dagrun_timeout=timedelta(hours=12),
):
    tables()
    keys(cast("int", nights()))
    archive()
    rounds()
