"""Great Expectations judges tables in a process of its own: its import is slow, loud, and holds much memory.

`python -m fleetbatch.checks.expectations REQUEST.json ANSWER.json` is that process.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fleetbatch.errors import TransientError

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.expectations.expectation import Expectation

_TIMEOUT_S: Final = 600
_WORDS_OF_TRACE: Final = 2000
_WHERE_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Expectations over one Parquet file; `index` is the column that names a failing row."""

    name: str
    table: str
    index: str
    expectations: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one expectation found; `failing` are the index values of the rows that break it."""

    suite: str
    expectation: str
    column: str
    success: bool
    observed: str
    failing: tuple[str, ...]


def in_words(check: Check) -> str:
    """Return what a person must know of a check that failed: the rule, what was found, and where."""
    where = f"; in {', '.join(check.failing[:_WHERE_SHOWN])}" if check.failing else ""
    more = f" and {len(check.failing) - _WHERE_SHOWN} more" if len(check.failing) > _WHERE_SHOWN else ""
    found = check.observed or "otherwise"
    return f"{check.suite}, {check.column or 'table'}: {check.expectation}, found {found}{where}{more}"


def judge_suites(suites: Sequence[Suite], folder: Path) -> list[Check]:
    """Let Great Expectations judge; raise TransientError when it crashed: that says nothing of the data."""
    request, answer = folder / "suites.json", folder / "checks.json"
    request.write_bytes(msgspec.json.encode(suites))
    command = [sys.executable, "-m", "fleetbatch.checks.expectations", str(request), str(answer)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603 # our own module
    except subprocess.TimeoutExpired as error:
        message = f"Great Expectations did not answer within {_TIMEOUT_S} s"
        raise TransientError(message) from error
    if child.returncode:
        message = f"Great Expectations could not judge the night: {child.stderr[-_WORDS_OF_TRACE:].strip()}"
        raise TransientError(message)
    return msgspec.json.decode(answer.read_bytes(), type=list[Check])


def main(request: Path, answer: Path) -> None:
    """Judge every suite of the request; crash when an expectation could not be evaluated."""
    logging.getLogger("great_expectations._docs_decorators").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    pandas = context.data_sources.add_pandas("files")
    checks: list[Check] = []
    for suite in msgspec.json.decode(request.read_bytes(), type=list[Suite]):
        asset = pandas.add_parquet_asset(suite.name, path=Path(suite.table))
        assert asset is not None
        batch = asset.add_batch_definition(suite.name).get_batch()
        expectations = gx.ExpectationSuite(name=suite.name, expectations=[_expectation(e) for e in suite.expectations])
        found = batch.validate(
            expectations,
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [suite.index]},
        )
        checks += [_check(suite, result) for result in _results(found)]
    answer.write_bytes(msgspec.json.encode(checks))


def _expectation(rule: Mapping[str, Any]) -> "Expectation":
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    return ExpectationConfiguration(type=rule["type"], kwargs=dict(rule["kwargs"])).to_domain_obj()


def _results(found: "ExpectationSuiteValidationResult") -> list[Mapping[str, Any]]:
    return found.to_json_dict()["results"]  # type: ignore[no-any-return,no-untyped-call] # the method has no types


def _check(suite: Suite, result: Mapping[str, Any]) -> Check:
    """Shorten a result; raise RuntimeError for one that is a crash and not an answer."""
    if crashes := _crashes(result["exception_info"]):
        message = f"{result['expectation_config']['type']} of suite {suite.name}: {crashes}"
        raise RuntimeError(message)
    config, details = result["expectation_config"], result["result"]
    rows = details.get("unexpected_index_list") or []
    observed = details.get("observed_value", details.get("unexpected_count", ""))
    column = config["kwargs"].get("column", config["kwargs"].get("column_A", ""))
    bounds = {k: v for k, v in config["kwargs"].items() if k not in {"column", "batch_id"}}
    return Check(
        suite=suite.name,
        expectation=f"{config['type']} {json.dumps(bounds)}" if bounds else config["type"],
        column=column,
        success=bool(result["success"]),
        observed=str(observed),
        failing=tuple(sorted({str(row[suite.index]) for row in rows})),
    )


def _crashes(info: Mapping[str, Any]) -> str:
    """Return the messages of all exceptions; they stand either flat or one per metric."""
    if "raised_exception" in info:
        return str(info["exception_message"] or "") if info["raised_exception"] else ""
    return "; ".join(sorted({str(one["exception_message"]) for one in info.values() if one["raised_exception"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
