"""Once a week, what has grown is made small again: tables are kept light, and old nights give up their inputs.

Nothing that a reader of the last thirty days can still need is touched; orders, manifests, verdicts, reports and
summaries stay.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

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
    nights()
