"""Why a car has a shard, why a shard has no car, why a car has nothing: one byte in a round's tables. Pure."""

import enum
from typing import Self


class Reason(enum.IntEnum):
    """Codes never change their meaning; new ones are added. `said` is the sentence for a person."""

    said: str

    def __new__(cls, code: int, said: str) -> Self:
        """Make a member that is its code and carries its sentence."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.said = said
        return member

    # of assignments
    RUNNING = 1, "the car holds the shard's lease and keeps it"
    LONGEST_WINDOW = 2, "the most urgent open shard went to the free car that will stay longest"
    PRICE = 3, "the car earns most with this kind of work at the round's prices"
    SPECULATIVE = 4, "a copy near the deadline, because the holder may leave before it is done"

    HANDED_OVER = 5, "its holder would not end it in time; this car would stand idle and will"

    # of shards that have row groups left
    HELD = 20, "another car or the cloud lane holds its lease"
    NO_CARS = 21, "no car may work now"
    NO_REGION = 22, "no car of its region may work now"
    NO_CONSENT = 23, "no car that may work now has this workload and an owner who consents to it"
    NO_HARDWARE = 24, "no car that may work now has hardware that computes it"
    NO_MEMORY = 25, "no car that could compute it has the memory"
    DEADLINE_PASSED = 26, "its deadline has passed"
    TOO_LONG = 27, "not even one row group would end before the deadline on any car that stays long enough"
    LATER = 28, "cars that can compute it have other work until the next rounds"
    REMAINDER = 29, "its first row groups are placed, the rest waits for the next rounds"
    NOT_WORTH = 30, "the energy would cost more than the work is worth"
    OUTBID = 31, "more valuable work takes all the time that cars have before its deadline"
    BETTER_HOURS = 32, "it is planned for later hours, which suit it better and leave time enough before its deadline"

    # of cars
    HAS_WORK = 40, "it has a queue"
    NOT_READY = 41, "its charge is below the owner's reserve for longer than a round plans ahead"
    SHORT_WINDOW = 42, "no row group of what waits would end before it leaves"
    NOTHING_FITS = 43, "no open shard allows its hardware, memory, region or consent"
    ALL_PLACED = 44, "other cars have all the open work that it could do"
    BUSY = 45, "its running shard is no longer open, it finishes or hears so at its next contact"

    GIVES_AWAY = 46, "its running shard goes to a car that ends it in time"
    RUNS_LATE = (
        47,
        "no more row group of the shard that it holds will end before it leaves or the deadline comes",
    )
    BETTER_LATER = 48, "what waits is worth less to it now than the energy, it keeps for better hours"
    TOO_SLOW = 49, "what waits is due before it would end a row group of it"
    NO_WORK = 50, "no shard is open: all are done, held by others or past their deadline"


ASSIGNED = frozenset(reason for reason in Reason if reason < 20)  # noqa: PLR2004 the range of codes above
"""What an assignment may carry."""
WAITING = frozenset(reason for reason in Reason if 20 <= reason < 40)  # noqa: PLR2004 the range of codes above
"""What an unassigned shard may carry."""


def said(code: int) -> str:
    """Return the sentence of a stored code."""
    return next((reason.said for reason in Reason if reason == code), f"reason {code}, which a newer version gave")
