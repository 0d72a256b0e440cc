"""Errors, sorted by who acts: machines retry, or a person changes something."""

from collections.abc import Sequence
from typing import Self


def in_one_line(error: BaseException) -> str:
    """Return what somebody else's code raised, as a reason: its kind, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


class FleetbatchError(Exception):
    """What every error of ours is; it survives a trip through a child process."""


class TransientError(FleetbatchError):
    """The world was not ready (database down, store slow): machines try again."""


class RejectedError(FleetbatchError):
    """The input breaks a contract: a person acts; trying again changes nothing.

    `problems` holds every difference found, each naming the place, what is wrong and what to do.
    """

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        """Say in one line what was refused, and list why."""
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__(summary, self.problems)

    def __str__(self) -> str:
        """Return the summary and, one a line, the problems."""
        return "\n".join((self.summary, *(f"  - {problem}" for problem in self.problems)))

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[str, ...]]]:
        """Pickle by the arguments, so that a child's refusal reaches its parent whole."""
        return (type(self), (self.summary, self.problems))
