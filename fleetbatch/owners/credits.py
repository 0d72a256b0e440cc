"""Credits follow from leases: the book is computed a second time, from the leases alone, and compared. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.book import ESCROW, FLEET, DeliveredLease, Entry, LeaseRef, Step, Tariff, Terms, owner_account
from fleetbatch.units import CarId, shard_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What a lease is worth, in millionths of a credit."""

    work_micro: int
    energy_micro: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """The book beside what the leases say."""

    leases: int
    entries: int
    balances: Mapping[str, int]
    """As the leases say; together they are zero."""
    differences: tuple[str, ...]
    """Every way in which the book says something else; none when it is right."""


def recompute(
    leases: Iterable[DeliveredLease], entries: Iterable[Entry], terms: Sequence[Terms], tariffs: Sequence[Tariff]
) -> Recomputed:
    """Rebuild the entries from the leases and compare them with those of the book.

    A lease without a verdict may be in escrow, may have been given back, or may not be in the book yet; its amount must
    be right all the same. Raises RejectedError for a lease older than all terms.
    """
    by_ref = {lease.lease: lease for lease in leases}
    found = list(entries)
    written = {(entry.lease, entry.step): entry for entry in found}
    expected = _expected(by_ref.values(), written, terms, tariffs)
    differences = [
        _difference(key, expected.get(key), written.get(key))
        for key in sorted(
            {key for key in expected.keys() | written.keys() if expected.get(key) != written.get(key)},
            key=lambda key: (key[0], key[1].value),
        )
    ]
    if len(found) != len(written):
        differences.append(f"{len(found) - len(written)} entries are in the book twice")
    return Recomputed(
        leases=len(by_ref), entries=len(found), balances=balances(expected.values()), differences=tuple(differences)
    )


def lease_amount(lease: DeliveredLease, terms: Terms, micro_per_kwh: float | None) -> Amount:
    """Return what a lease is worth: the work it delivered, and the energy for it at the owner's tariff.

    Work counts by the rows delivered and what the reference car takes for one, never by claimed time; claimed energy
    counts up to what the terms allow for that work. Order of operations as in the ledger's statement, whose millionths
    these are.
    """
    units = lease.work_units * lease.delivered_rows / lease.rows
    tariff = min(terms.micro_per_kwh if micro_per_kwh is None else micro_per_kwh, terms.micro_per_kwh_max)
    energy_wh = min(lease.delivered_wh, units * terms.wh_per_unit_max)
    return Amount(
        work_micro=math.floor(units * terms.micro_per_unit), energy_micro=math.floor(energy_wh * tariff / 1000.0)
    )


def balances(entries: Iterable[Entry]) -> dict[str, int]:
    """Return every account's balance, by name."""
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry.to_account] += entry.micro
        found[entry.from_account] -= entry.micro
    return dict(sorted(found.items()))


def _expected(
    leases: Iterable[DeliveredLease],
    written: Mapping[tuple[LeaseRef, Step], Entry],
    terms: Sequence[Terms],
    tariffs: Sequence[Tariff],
) -> dict[tuple[LeaseRef, Step], Entry]:
    """Return what the book should hold; of leases without a verdict, as much as it does hold."""
    of_car = _by_car(tariffs)
    expected = {}
    for lease in leases:
        amount = lease_amount(lease, _terms_of(lease, terms), _tariff_of(lease, of_car.get(lease.car_id, ())))
        for step in Step:
            if lease.credit != "none" or (lease.lease, step) in written:
                expected[lease.lease, step] = _entry(lease, step, amount)
    return expected


def _entry(lease: DeliveredLease, step: Step, amount: Amount) -> Entry:
    settled_to = owner_account(lease.owner_id) if lease.credit == "credited" else FLEET
    accounts = (FLEET, ESCROW) if step is Step.ESCROW else (ESCROW, settled_to)
    return Entry(
        lease=lease.lease,
        step=step,
        car_id=lease.car_id,
        from_account=accounts[0],
        to_account=accounts[1],
        work_micro=amount.work_micro,
        energy_micro=amount.energy_micro,
    )


def _terms_of(lease: DeliveredLease, terms: Sequence[Terms]) -> Terms:
    """Return the newest terms that were in force when the lease was granted; `terms` has the oldest first."""
    known = [one for one in terms if one.from_at < lease.granted_at]
    if not known:
        summary = (
            f"lease {_named(lease.lease)} was granted before there were any terms; add terms from an earlier instant"
        )
        raise RejectedError(summary)
    return known[-1]


def _tariff_of(lease: DeliveredLease, tariffs: Sequence[Tariff]) -> float | None:
    known = [one.micro_per_kwh for one in tariffs if one.from_at < lease.granted_at]
    return known[-1] if known else None


def _by_car(tariffs: Sequence[Tariff]) -> dict[CarId, list[Tariff]]:
    of_car: dict[CarId, list[Tariff]] = {}
    for tariff in tariffs:
        of_car.setdefault(tariff.car_id, []).append(tariff)
    return of_car


def _difference(key: tuple[LeaseRef, Step], expected: Entry | None, found: Entry | None) -> str:
    where = f"{key[1].value} of lease {_named(key[0])}"
    if expected is None:
        return f"{where}: in the book, and no lease delivered that"
    if found is None:
        return f"{where}: not in the book; the leases say {_told(expected)}"
    return f"{where}: the book says {_told(found)}, the leases say {_told(expected)}"


def _told(entry: Entry) -> str:
    parts = f"work {entry.work_micro}, energy {entry.energy_micro}"
    return f"{parts} from {entry.from_account} to {entry.to_account} for car {entry.car_id:016x}"


def _named(lease: LeaseRef) -> str:
    return f"{lease.night:%Y%m%d}-{shard_hex(lease.shard_id)}-{lease.fence}"
