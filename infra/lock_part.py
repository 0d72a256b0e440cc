# ruff: noqa: INP001 # a script
"""Cut the pins that one extra needs from the laptop's lock: `python infra/lock_part.py cloud > infra/locks/cloud.txt`.

Run it in the environment that was set up from the whole lock, so that what is needed is what is installed.
"""

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parent / "locks" / "laptop.txt"


def needed(name: str, extras: frozenset[str], seen: dict[str, frozenset[str]]) -> None:
    """Add to `seen` everything that a distribution needs, itself included."""
    if extras <= seen.get(name, frozenset()) and name in seen:
        return
    seen[name] = seen.get(name, frozenset()) | extras
    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        chosen = [{"extra": extra} for extra in ("", *seen[name])]
        if wanted.marker is None or any(wanted.marker.evaluate(one) for one in chosen):
            needed(canonicalize_name(wanted.name), frozenset(wanted.extras), seen)


def cut(lock: str, names: frozenset[str]) -> str:
    """Return the lock's entries of these distributions."""
    entries = re.split(r"\n(?=\S)", lock.strip())
    return "\n".join(entry for entry in entries if canonicalize_name(entry.split("==")[0]) in names)


if __name__ == "__main__":
    found: dict[str, frozenset[str]] = {}
    needed("fleetbatch", frozenset(sys.argv[1:]), found)
    print(cut(LOCK.read_text(), frozenset(found) - {"fleetbatch"}))  # noqa: T201 # the command's output
