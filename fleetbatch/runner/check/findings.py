"""What a check of a car found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `advice` is there unless it is fine."""

    check: str
    outcome: Outcome
    found: str
    advice: str = ""


def fine(check: str, found: str) -> Finding:
    """Return a finding with which nothing need be done."""
    return Finding(check=check, outcome="ok", found=found)


def odd(check: str, found: str, advice: str) -> Finding:
    """Return a finding with which a car can work, and somebody should look."""
    return Finding(check=check, outcome="warning", found=found, advice=advice)


def bad(check: str, found: str, advice: str) -> Finding:
    """Return a finding with which a car cannot work."""
    return Finding(check=check, outcome="failed", found=found, advice=advice)


def skipped(check: str, found: str, advice: str) -> Finding:
    """Return a finding that there is none; `advice` says how to get one."""
    return Finding(check=check, outcome="skipped", found=found, advice=advice)
