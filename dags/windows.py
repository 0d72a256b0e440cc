"""How long will cars stay: every day the forecast looks at what it promised, every month it learns anew.

`windows` closes yesterday's stays, judges the forecasts that have matured, and sets calibration, thresholds and the
level that serves from today on; `windows_refit` learns a model, which first runs in the shadow of the serving one.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from airflow.sdk import DAG, CronTriggerTimetable, Param, get_current_context, task
from night_tasks import DEFAULTS, later, run_step, told

FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAY: Final = Param(
    None,
    type=["null", "string"],
    format="date",
    description="The day (UTC) from which the answer serves; left empty, it is the day of the run.",
)


def day_of_run() -> datetime:
    """Return midnight (UTC) of the day that was asked for, or of the run."""
    context = get_current_context()
    asked = context["params"].get("day") or f"{context['dag_run'].run_after.astimezone(UTC):%Y-%m-%d}"
    return datetime.fromisoformat(str(asked)).replace(tzinfo=UTC)


@task
@told
def ingest() -> str:
    """Close yesterday's stays from the gateways' telemetry, and those of missed days before it.

    The log has one line per cell and day, and names every telemetry file that could not be read.
    """
    return str(run_step("windows_ingest", day=f"{day_of_run() - timedelta(days=1):%Y-%m-%d}")["day"])


@task
@told
def tune(ingested: str) -> str:  # noqa: ARG001 # what it waits for
    """Judge matured forecasts and set calibration, thresholds and the serving level from today on.

    Falls back to the shrinkage by itself when the model scored worse for a week; the log and the day's page say why.
    """
    return str(run_step("windows_tune", day=f"{day_of_run():%Y-%m-%d}")["day"])


@task
@told
def refit() -> str:
    """Learn a model from all stays, try it on six weeks that it has not seen, and keep it if it passes its gates.

    A model that is refused changes nothing: the serving one goes on, and the log says which gate it failed.
    """
    return str(run_step("windows_refit", day=f"{day_of_run():%Y-%m-%d}")["day"])


with DAG(
    dag_id="windows",
    description="Close stays, judge forecasts, set calibration and thresholds",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("30 4 * * *", timezone="UTC"),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    tags=["fleetbatch", "forecast"],
    params={"day": DAY},
    default_args=DEFAULTS,
    dagrun_timeout=timedelta(hours=12),
):
    tune(later(ingest()))

with DAG(
    dag_id="windows_refit",
    description="Learn the forecast's model anew",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 6 1 * *", timezone="UTC"),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    tags=["fleetbatch", "forecast"],
    params={"day": DAY},
    default_args=DEFAULTS,
    dagrun_timeout=timedelta(hours=12),
):
    refit()
