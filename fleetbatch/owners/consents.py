"""The chain of an owner's decisions: what each hash is made of, and where a chain is broken. Pure."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from fleetbatch.ledger.owners import CarConsents, ConsentRecord
from fleetbatch.protocol import ConsentEntry
from fleetbatch.units import CarId

_FORM: Final = "fleetbatch-consent-1"
_BEFORE_THE_FIRST: Final = "0" * 64


def consent_entry(record: ConsentRecord) -> ConsentEntry:
    """Return a record as its owner reads it, with all that its hash is made of."""
    return ConsentEntry(
        purpose=record.change.purpose,
        number=record.number,
        granted=record.change.granted,
        at=f"{record.at:%Y-%m-%dT%H:%M:%S.%fZ}",
        notice_version=record.change.notice_version,
        notice_sha256=record.change.notice_sha256,
        previous=record.previous,
        sha256=record.sha256,
    )


def consent_sha256(car: CarId, entry: ConsentEntry) -> str:
    """Return what the hash of a record must be; the ledger's `consent_add` makes it of the same lines."""
    lines = [_FORM, entry.previous, str(car), entry.purpose, str(entry.number), "t" if entry.granted else "f"]
    lines += [entry.notice_version, entry.notice_sha256, entry.at]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def broken_consent(car: CarId, entries: Iterable[ConsentEntry], kept: Collection[str] = ()) -> str:
    """Name the first record that breaks a chain of a car, by purpose and number, and say how; "" when all are whole.

    `kept` are hashes that somebody kept: each must be of a record, or what came after some record was cut off.
    """
    told = sorted(entries, key=attrgetter("purpose", "number"))
    for _, chain in groupby(told, key=attrgetter("purpose")):
        previous = _BEFORE_THE_FIRST
        for place, entry in enumerate(chain, start=1):
            if wrong := _wrong(car, entry, place, previous):
                return f"car {car:016x}: decision {entry.number} on {entry.purpose} ({entry.at}) {wrong}"
            previous = entry.sha256
    lost = sorted(set(kept) - {entry.sha256 for entry in told})
    return f"car {car:016x}: no decision has the hash {lost[0]}, which was kept" if lost else ""


def broken_car(car: CarConsents) -> str:
    """Name what is broken in a car's consents, as the ledger holds them; "" when nothing is."""
    entries = [consent_entry(record) for record in car.records]
    if broken := broken_consent(car.car_id, entries):
        return broken
    standing = _standing(entries)
    if standing == car.purposes:
        return ""
    return f"car {car.car_id:016x} may be used for {_named(car.purposes)}; its decisions say {_named(standing)}"


def _wrong(car: CarId, entry: ConsentEntry, place: int, previous: str) -> str:
    if entry.number != place:
        return f"is not the next one: decision {place} is missing or told otherwise"
    if entry.previous != previous:
        return "does not follow the decision before it: `previous` is not its hash"
    if entry.sha256 != consent_sha256(car, entry):
        return "was changed: its hash is not that of what it says"
    return ""


def _standing(entries: Sequence[ConsentEntry]) -> frozenset[str]:
    """Return the purposes to which the newest decision is yes; entries are by purpose and number."""
    newest = {entry.purpose: entry.granted for entry in entries}
    return frozenset(purpose for purpose, granted in newest.items() if granted)


def _named(purposes: Collection[str]) -> str:
    return ", ".join(sorted(purposes)) or "nothing"
