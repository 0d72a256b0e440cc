"""What proofs count. Each says its counts once; the session's end prints their sums as one line of JSON."""

import json
from collections import Counter

NAMES = ("events", "pieces", "violations", "mutants", "killed", "kills", "lost", "doubled", "paid_twice")
_told: Counter[str] = Counter()
_names: set[str] = set()


def prove(**counts: int) -> None:
    """Add a proof's counts to the sums."""
    unknown = counts.keys() - set(NAMES)
    assert not unknown, f"no proof counts {sorted(unknown)}"
    _told.update(counts)
    _names.update(counts)


def line() -> str:
    """Return the sums of what was counted, in one order, as JSON; empty when no proof ran."""
    return json.dumps({name: _told[name] for name in NAMES if name in _names}) if _names else ""
