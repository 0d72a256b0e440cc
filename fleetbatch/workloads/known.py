"""Which workloads there are: the package's own, and those that installed packages bring under an entry point."""

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Final

import pyarrow as pa

from fleetbatch.contracts import WORKLOADS_GROUP, Contract, contract
from fleetbatch.errors import FleetbatchError, RejectedError, TransientError, in_one_line
from fleetbatch.units import UNIT_S
from fleetbatch.workloads.protocol import Answer, Device, Workload

_OURS: Final = {
    "image": "fleetbatch.workloads.image:ImageWorkload",
    "scenario": "fleetbatch.workloads.scenario:ScenarioWorkload",
    "video": "fleetbatch.workloads.video:VideoWorkload",
}
_RATE_MOST: Final = 1e9
"""Rows a second, and seconds a row."""


@functools.cache
def workload(name: str) -> Workload:
    """Return a workload by name; raise RejectedError when it is not installed here, or cannot be used.

    A process that installs a package while it runs calls `workload.cache_clear`.
    """
    found = _entry_points()
    if name not in found:
        summary = f"workload {name!r} is not known; known are {', '.join(sorted(found))}"
        raise RejectedError(summary)
    with blamed(f"workload {name!r} cannot be loaded from {found[name].value}"):
        kind = found[name].load()()
    if not isinstance(kind, Workload) or kind.name != name:
        summary = f"{found[name].value} is not a Workload that calls itself {name!r}"
        raise RejectedError(summary)
    rate: object = kind.rows_per_s
    if not isinstance(rate, int | float) or not 1.0 / _RATE_MOST <= rate <= _RATE_MOST:
        summary = f"workload {name!r} answers {rate!r} rows a second; expected a number above 0, {_RATE_MOST:g} at most"
        raise RejectedError(summary)
    with blamed(f"the contracts of workload {name!r} cannot be read"):
        problems = _contract_problems(kind)
    if problems:
        summary = f"the contracts of workload {name!r} do not fit each other"
        raise RejectedError(summary, problems)
    return kind


@contextmanager
def blamed(what_fails: str) -> Iterator[None]:
    """Turn whatever a workload's own code raises, or ends its process with, into a RejectedError that says what failed.

    One package that is broken costs its own orders, and no car or dispatcher that serves others, too. Raises
    TransientError for want of memory, which says nothing of the package.
    """
    try:
        yield
    except FleetbatchError:
        raise
    except MemoryError as error:
        message = f"{what_fails}: there is not enough memory now"
        raise TransientError(message) from error
    except (Exception, SystemExit) as error:
        summary = f"{what_fails}: {in_one_line(error)}"
        raise RejectedError(summary) from error


def open_workload(name: str, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:
    """Return what answers a workload's rows; raise RejectedError when it cannot be opened here, for whatever reason."""
    kind = workload(name)
    with blamed(f"workload {name!r} cannot be opened here"):
        return kind.open(model, device, options)


def _contract_problems(kind: Workload) -> list[str]:
    """Return what would stop a night in the morning: results are the answers and what all results have."""
    answers, results, common = (contract(n) for n in (kind.answers_contract, kind.results_contract, "results"))
    problems = []
    for part in (answers, common):
        problems += [
            f"{results.name}: column {field.name!r} is not as in {part.name}: {field.type}, nullable {field.nullable}"
            for field in part.schema
            if field.name not in results.schema.names or results.schema.field(field.name) != field
        ]
    if answers.key != results.key or answers.key[:1] != ("item_id",):
        problems.append(f"the key of {answers.name} is {answers.key}, of {results.name} {results.key}; item_id first")
    must = [f.name for f in answers.schema if not f.nullable and f.name not in {"item_id", "row_group"}]
    problems += [f"{answers.name}: column {name!r} is required; an error has no value for it" for name in must]
    return problems + _unanswerable(answers, results)


def _unanswerable(answers: Contract, results: Contract) -> list[str]:
    """Return what the morning's checks, and every car before them, could not ask of the answers."""
    headline = (results.headline or "").partition(".")[0]
    absent = {headline} - {"", *answers.schema.names}
    kinds = {name: results.schema.field(name).type for name in results.ranges}
    other = [name for name, kind in kinds.items() if not (pa.types.is_integer(kind) or pa.types.is_floating(kind))]
    return [
        *(f"{results.name}: the headline {name!r} is no column of {answers.name}" for name in absent),
        *(f"{results.name}: column {name!r} has a range and holds no numbers: {kinds[name]}" for name in other),
    ]


def known_workloads() -> frozenset[str]:
    """Return every name that an order may give; nothing is loaded."""
    return frozenset(_entry_points())


def row_seconds() -> Mapping[str, float]:
    """Return how long the reference car takes for a row of each workload that is installed here, in seconds."""
    found = {}
    for name in sorted(_entry_points()):
        with suppress(RejectedError):  # whoever cannot load it computes nothing of it, and may plan for others
            found[name] = 1.0 / workload(name).rows_per_s
    return found


def row_units(name: str) -> float:
    """Return the units of work of a row: what the reference car takes for it, beside a picture.

    Of a workload that cannot be loaded here a row counts as a picture does.
    """
    rows_per_s = Workload.rows_per_s
    with suppress(RejectedError):
        rows_per_s = workload(name).rows_per_s
    return float(f"{1.0 / (rows_per_s * UNIT_S):.9g}")  # a picture's is 1, whatever 3/50 is in a float


def usable_workloads() -> tuple[str, ...]:
    """Return the names of what this machine can compute, in order: loaded, with the modules that each needs."""
    return tuple(sorted(name for name in _entry_points() if _usable(name)))


def _usable(name: str) -> bool:
    try:
        return all(find_spec(module) is not None for module in workload(name).needs)
    except (RejectedError, ImportError, ValueError):  # a module within one that is not there
        return False


def _entry_points() -> dict[str, EntryPoint]:
    return _entry_points_on(tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _entry_points_on(path: tuple[str, ...]) -> dict[str, EntryPoint]:  # noqa: ARG001 # what is installed follows from it
    """Return name to entry point; nobody takes the place of the package's own. Looking takes 26 ms, so once a path."""
    theirs = {point.name: point for point in entry_points(group=WORKLOADS_GROUP)}
    ours = {name: EntryPoint(name=name, value=value, group=WORKLOADS_GROUP) for name, value in _OURS.items()}
    return theirs | ours
