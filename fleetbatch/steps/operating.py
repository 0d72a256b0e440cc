"""What people do to an order of a night, in every cell that computes it."""

from dataclasses import dataclass
from datetime import date
from typing import Final, Literal, assert_never

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.messages import ShardCounts
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import OrderKey
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import find_order, open_ledgers
from fleetbatch.steps.waiting import total
from fleetbatch.units import Night, OrderName

Verb = Literal["pause", "resume", "cancel", "recall"]
DONE: Final[dict[Verb, str]] = {
    "pause": "paused",
    "resume": "open again",
    "cancel": "cancelled",
    "recall": "recalled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operated:
    """An order after something was done to it, over its cells."""

    key: OrderKey
    verb: Verb
    counts: ShardCounts

    def line(self) -> str:
        """Return what follows for the night, in one line."""
        c = self.counts
        text = f"{self.key} is {DONE[self.verb]}: {c.valid + c.done} of {c.total} shards are valid"
        text += f", {c.returned} wait for their audit, {c.out} are on cars, {c.ready} are free, {c.missing} are missing"
        ended = "; cars that hold one hear of it at their next beat" if self.verb in {"cancel", "recall"} else ""
        return text + ended


def operate_order(settings: Settings, verb: Verb, name: str, night: str, *, reason: str = "") -> Operated:
    """Pause, resume, cancel or recall the newest generation of an order's night; said twice is said once.

    Raises:
        RejectedError: no cell knows the order, or it is over.
        TransientError: a cell's ledger cannot be reached; cells before it have done as they were told.
    """
    with open_ledgers(settings) as ledgers:
        keys = [ledger.newest_generation(_night(night), OrderName(name)) for ledger in ledgers.values()]
        known = [key for key in keys if key is not None]
        if not known:
            summary = f"no cell knows an order {name!r} of the night {night}"
            raise RejectedError(summary)
        opened = find_order(ledgers, max(known, key=lambda key: key.generation))
        for ledger in opened.ledgers:
            _operate(ledger, verb, opened.frozen.key, reason)
        counts = total(ledger.counts(opened.frozen.key) for ledger in opened.ledgers)
    return Operated(key=opened.frozen.key, verb=verb, counts=counts)


def _operate(ledger: PostgresLedger, verb: Verb, key: OrderKey, reason: str) -> None:
    match verb:
        case "pause":
            ledger.pause(key)
        case "resume":
            ledger.resume(key)
        case "cancel":
            ledger.cancel(key, reason)
        case "recall":
            ledger.recall(key, reason)
        case _:
            assert_never(verb)


def _night(text: str) -> Night:
    try:
        return Night(date.fromisoformat(text).isoformat())
    except ValueError as error:
        summary = f"{text!r} is not a night; expected YYYY-MM-DD"
        raise RejectedError(summary) from error
