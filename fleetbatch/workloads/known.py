"""Which workloads there are: the package's own, and those that installed packages bring under an entry point."""

import functools
import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Final

from fleetbatch.contracts import WORKLOADS_GROUP
from fleetbatch.errors import RejectedError
from fleetbatch.workloads.protocol import Workload

_OURS: Final = {
    "image": "fleetbatch.workloads.image:ImageWorkload",
    "scenario": "fleetbatch.workloads.scenario:ScenarioWorkload",
    "video": "fleetbatch.workloads.video:VideoWorkload",
}


def workload(name: str) -> Workload:
    """Return a workload by name; raise RejectedError when it is not installed here, or cannot be loaded."""
    found = _entry_points()
    if name not in found:
        summary = f"workload {name!r} is not known; known are {', '.join(sorted(found))}"
        raise RejectedError(summary)
    try:
        kind = found[name].load()()
    except (ImportError, AttributeError, TypeError) as error:
        summary = f"workload {name!r} cannot be loaded from {found[name].value}: {error}"
        raise RejectedError(summary) from error
    if not isinstance(kind, Workload) or kind.name != name:
        summary = f"{found[name].value} is not a Workload that calls itself {name!r}"
        raise RejectedError(summary)
    return kind


def known_workloads() -> frozenset[str]:
    """Return every name that an order may give; nothing is loaded."""
    return frozenset(_entry_points())


def usable_workloads() -> tuple[str, ...]:
    """Return the names of what this machine can compute, in order: loaded, with the modules that each needs."""
    return tuple(sorted(name for name in _entry_points() if _usable(name)))


def _usable(name: str) -> bool:
    try:
        return all(find_spec(module) is not None for module in workload(name).needs)
    except RejectedError:
        return False


def _entry_points() -> dict[str, EntryPoint]:
    return _entry_points_on(tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _entry_points_on(path: tuple[str, ...]) -> dict[str, EntryPoint]:  # noqa: ARG001 # what is installed follows from it
    """Return name to entry point; nobody takes the place of the package's own. Looking takes 26 ms, so once a path."""
    theirs = {point.name: point for point in entry_points(group=WORKLOADS_GROUP)}
    ours = {name: EntryPoint(name=name, value=value, group=WORKLOADS_GROUP) for name, value in _OURS.items()}
    return theirs | ours
