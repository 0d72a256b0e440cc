"""One DAG for every file in orders/: each evening it opens the order's night and each morning it closes it.

And `adhoc`, the same walk for an order that somebody types into a form.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.sdk import DAG, Asset, Param, get_current_context, task
from airflow.sdk.definitions.xcom_arg import XComArg
from night_tasks import DEFAULTS, CarsFinish, later, night_of, orders_folder, run_step, told
from order_labels import OrderLabel, label_order

FORCE: Final = Param(
    False,  # noqa: FBT003 # Param's own signature
    type="boolean",
    description="Compute a night that is published already anew, as its next generation.",
)
NIGHT: Final = Param(
    None,
    type=["null", "string"],
    format="date",
    description="The night to compute, such as 2026-11-22; left empty, it is the run's partition or today.",
)
FIRST_NIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""With a first night in the past, a DAG that is switched on runs its last night at once and every later one on time."""
UNTIL_MORNING: Final = timedelta(hours=12)
"""What a run may take beyond its order's deadline: opening, closing and retries."""
FORM: Final[dict[str, Any]] = {
    "source": Param(
        "generator:road-signs?count=600&seed=1",
        type="string",
        minLength=1,
        title="Source",
        description="A folder of pictures, a file that lists them, or a generator.",
    ),
    "model": Param(
        "road_signs",
        type="string",
        minLength=1,
        title="Model bundle",
        description="A bundle (.zip) or the name of one that comes with the package.",
    ),
    "workload": Param("image", type="string", enum=["image"], title="Workload"),
    "region": Param("any", type="string", title="Region", description="A region of the cells, or any."),
    "priority": Param(1, type="integer", minimum=0, maximum=2, title="Priority", description="0 goes first."),
    "deadline_hours": Param(
        8.0, type="number", exclusiveMinimum=0, title="Deadline", description="Hours after the run starts."
    ),
    "data_class": Param("open", type="string", enum=["open", "confidential", "pseudonymous"], title="Data class"),
    "name": Param(
        "adhoc", type="string", pattern="^[a-z][a-z0-9_-]{0,39}$", title="Name", description="Names the result table."
    ),
}
"""The form; what it asks for is what an order file says."""


@task
@told
def order(file: str, timezone: str) -> str:
    """Accept tonight's order and freeze it: from here on nothing about it changes.

    Fails at once with every mistake in the order's file. Skips the run when this night is published already, unless
    `force` is set, which computes the night anew under the next generation. The log has the estimate: shards, bytes,
    car-hours, and whether it will fit into the night.
    """
    context = get_current_context()
    night, force = night_of(context, timezone), bool(context["params"]["force"])
    return str(run_step("order", file=file, night=night, force=force)["key"])


@task(task_id="order")
@told
def adhoc_order() -> str:
    """Accept the order that was typed into the form and freeze it: from here on nothing about it changes.

    Fails at once with every mistake in the form.
    """
    context = get_current_context()
    form = {name: value for name, value in context["params"].items() if name not in {"night", "force"}}
    night, force = night_of(context, "UTC"), bool(context["params"]["force"])
    return str(run_step("order", form=form, night=night, force=force)["key"])


@task
@told
def shards(key: str) -> str:
    """Cut the order's input into sealed shards and register them in the ledgers of the cells that may compute it.

    A row that cannot be read travels as a dead letter with its reason. Interrupted, it goes on where it was.
    """
    return str(run_step("shards", key=key)["key"])


@task
@told
def merge(key: str) -> str:
    """Join the parts of every shard into result files, and name every row that nobody computed, with the reason."""
    return str(run_step("merge", key=key)["key"])


@task
@told
def check(key: str) -> str:
    """Check every result file, and the night as a whole with Great Expectations; a night that fails is not published.

    The failing shards and the rules that they broke are in the log and in the night's verdict.json.
    """
    return str(run_step("check", key=key)["key"])


@task
@told
def publish(key: str) -> str:
    """Publish the night as one version of the order's table; readers see all of it or nothing of it."""
    answer = run_step("publish", key=key)
    context = get_current_context()
    for asset in context["outlets"]:
        context["outlet_events"][asset].extra = answer
    return str(answer["key"])


@task
@told
def report(key: str) -> str:
    """Write the night's summary and its page: what came in, what came out, what is missing and why."""
    tasks = len(get_current_context()["dag"].tasks)
    return str(run_step("report", key=key, task_instances=tasks)["key"])


def walk(key: XComArg, results: Asset) -> None:
    """Lay the tasks of a night behind the one that froze its order; keys are passed, never data."""
    finished = CarsFinish(task_id="cars_finish", key=later(shards(later(key))))
    merged = merge(later(finished.output))
    report(later(publish.override(outlets=[results])(later(check(later(merged))))))


def overnight(label: OrderLabel) -> None:
    """Make the DAG of one order file."""
    with DAG(
        dag_id=label.dag_id,
        description=f"The nights of the order {label.path.name}",
        doc_md=label.doc(),
        schedule=label.timetable(),
        start_date=FIRST_NIGHT,
        catchup=False,
        tags=label.tags(),
        params={"night": NIGHT, "force": FORCE},
        default_args=DEFAULTS,
        dagrun_timeout=label.deadline + UNTIL_MORNING,
    ):
        walk(order(str(label.path), label.timezone), Asset(f"fleetbatch-{label.dag_id}"))


for path in sorted(orders_folder().glob("*.toml")):
    overnight(label_order(path, path.read_text()))

with DAG(
    dag_id="adhoc",
    description="One night of an order that is typed into the form",
    doc_md=__doc__,
    schedule=None,
    tags=["fleetbatch", "form"],
    params={**FORM, "night": NIGHT, "force": FORCE},
    default_args=DEFAULTS,
    dagrun_timeout=timedelta(days=3),
):
    walk(adhoc_order(), Asset("fleetbatch-adhoc"))
