"""What the tasks of a night share: their defaults, the child in which a step runs, and what an error means here.

This is the only place where errors of ours become outcomes of Airflow: RejectedError fails the task at once (a person
acts), TransientError and everything unexpected fail it with retries left (machines act), and an order that is published
already skips the rest of the run.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast
from zoneinfo import ZoneInfo

from airflow.sdk import BaseOperator, Context
from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from fleetbatch.engine import ENVIRONMENT

try:
    from fleetbatch_wait import NightTrigger
except ImportError as missing:
    _PLUGINS = Path(__file__).parent / "plugins"
    _MESSAGE = f"set AIRFLOW__CORE__PLUGINS_FOLDER to {_PLUGINS}: the wait's trigger lives there"
    raise ImportError(_MESSAGE) from missing

Task = TypeVar("Task", bound=Callable[..., str | int])

STEP_TIMEOUT: Final = timedelta(hours=4)
"""Outer bound of one step's child; a task can hang before Airflow's own execution timeout counts."""
_LAST_WORDS_S: Final = 5.0

DEFAULTS: Final[dict[str, Any]] = {
    "owner": "fleetbatch",
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": STEP_TIMEOUT + timedelta(minutes=5),
}


class CarsFinish(BaseOperator):
    """Wait, without holding a worker, until the cars have brought back every shard of the night.

    The night also ends when its deadline has passed; what nobody computed by then is named as missing. The log has a
    line for each change: shards free, on cars, back, and checked.
    """

    template_fields = ("key",)

    def __init__(self, *, key: str, **options: Any) -> None:  # noqa: ANN401 # BaseOperator's own arguments
        """Wait for the order with this key."""
        super().__init__(doc_md=inspect.getdoc(CarsFinish), **options)
        self.key = key

    def execute(self, context: Context) -> NoReturn:  # noqa: ARG002 # Airflow's signature
        """Hand the wait to the triggerer."""
        self.defer(trigger=NightTrigger(settings=settings_file(), key=self.key), method_name="resume")

    def resume(self, context: Context, event: dict[str, str]) -> str:  # noqa: ARG002 # Airflow's signature
        """Go on with the key, or fail when the order is not there any more."""
        return str(outcome(self.task_id, event)["key"])


def told(function: Task) -> Task:
    """Take the indentation off a task's docstring, which Airflow's pages would show as code."""
    function.__doc__ = inspect.getdoc(function)
    return function


def later(answer: XComArg) -> str:
    """Return a task's future answer, typed as the key that it will be."""
    return cast("str", answer)


def settings_file() -> str:
    """Return the deployment's settings file: FLEETBATCH_SETTINGS, or fleetbatch.toml in Airflow's home."""
    home = os.environ.get("AIRFLOW_HOME", str(Path.home() / "airflow"))
    return os.environ.get("FLEETBATCH_SETTINGS", str(Path(home) / "fleetbatch.toml"))


def orders_folder() -> Path:
    """Return the folder of order files: FLEETBATCH_ORDERS, or `orders` beside the DAGs."""
    return Path(os.environ.get("FLEETBATCH_ORDERS", str(Path(__file__).parent / "orders")))


def night_of(context: Context, timezone: str) -> str:
    """Return the run's night: its partition, the form's date, or the local date on which the run was due."""
    key = context.get("partition_key") or context["params"].get("night")
    return str(key or f"{context['dag_run'].run_after.astimezone(ZoneInfo(timezone)):%Y-%m-%d}")


def run_step(step: str, **words: object) -> dict[str, Any]:
    """Run one of fleetbatch's steps in a process of its own and return its answer.

    Raises:
        AirflowFailException: the step refused its input; trying again changes nothing.
        AirflowSkipException: the order is published already.
        AirflowException: anything else; Airflow tries again.
    """
    words = {"settings": settings_file(), "now": datetime.now(UTC).isoformat(), **words}
    with tempfile.TemporaryDirectory(prefix="fleetbatch-step-") as folder:
        answer = Path(folder) / "answer.json"
        code = _run_child([sys.executable, "-m", "fleetbatch.steps", step, json.dumps(words), str(answer)])
        if not answer.exists():
            message = f"step {step} ended with exit code {code} and without an answer; its last words are in this log"
            raise AirflowException(message)
        return outcome(step, json.loads(answer.read_text()))


def outcome(step: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that is one, and raise what Airflow understands for any other end."""
    match answer:
        case {"rejected": reason}:
            message = f"{step} was refused: {reason}"
            raise AirflowFailException(message)
        case {"already_published": key}:
            message = f"{key} is published already: nothing to do. Run with force to compute the night anew."
            raise AirflowSkipException(message)
        case {"transient": reason}:
            message = f"{step} could not be done now and will be tried again: {reason}"
            raise AirflowException(message)
        case _:
            return answer


def _run_child(command: list[str]) -> int:
    """Return the child's exit code. It ends itself when its standard input closes, so a killed task leaves nothing."""
    env = {**ENVIRONMENT, **os.environ}
    child = subprocess.Popen(command, stdin=subprocess.PIPE, env=env)  # noqa: S603 # our own interpreter and words
    try:
        return child.wait(STEP_TIMEOUT.total_seconds())
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
