"""What tests count: each says its counts to pytest, and the session's end tells them all, whatever ran them.

They travel with a test's report, so that they come home from parallel workers, too, and captured output stays as it is.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

NAMES = ("events", "pieces", "violations", "mutants", "killed", "kills", "lost", "doubled", "paid_twice")
"""What proofs count: their sums are one line of JSON."""
FOLDER = "tests/faults/"
"""Here every test is told of, also one that says no more than that it passed."""
_KEY = "counts"
Count = Callable[..., None]
"""Add to a test's counts, by name."""


def counter_of(item: pytest.Item) -> Count:
    """Return what keeps a test's counts with its report."""

    def count(**counts: int) -> None:
        item.user_properties.append((_KEY, json.dumps(counts)))

    return count


@dataclass(slots=True)
class Told:
    """One test's counts, over all its parameters."""

    cases: int = 0
    failed: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def line(self, name: str) -> str:
        """Return its cases and counts in words."""
        told = [f"{self.cases} case{'s' * (self.cases != 1)}", f"{self.failed} failed"]
        told += [f"{number:,} {what}" for what, number in self.counts.items()]
        return f"{name}: {', '.join(told).replace('_', ' ')}"


def told(reports: Iterable[pytest.TestReport]) -> dict[str, Told]:
    """Return what tests counted, by their names without parameters."""
    found: dict[str, Told] = {}
    for report in reports:
        said = [json.loads(str(value)) for key, value in report.user_properties if key == _KEY]
        if report.when != "call" or not (said or report.nodeid.startswith(FOLDER)):
            continue
        one = found.setdefault(report.nodeid.partition("[")[0], Told())
        one.cases += 1
        one.failed += report.failed
        for counts in said:
            one.counts.update(counts)
    return found


def sums(found: Iterable[Told]) -> str:
    """Return the sums of what proofs count, in one order, as JSON; empty when none of it was counted."""
    together: Counter[str] = Counter()
    for one in found:
        together.update(one.counts)
    return (
        json.dumps({name: together[name] for name in NAMES if name in together}) if set(NAMES) & set(together) else ""
    )
