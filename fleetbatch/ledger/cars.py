"""Cars and their owners' consent: who may work, and who said so."""

import secrets
from collections.abc import Sequence
from datetime import date, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.arrays import copy_out
from fleetbatch.ledger.ids import lease_id
from fleetbatch.ledger.leases import revoke_leases
from fleetbatch.ledger.messages import CarKey, ConsentChange, ConsentRecord, ConsentRefused, Enrolment
from fleetbatch.ledger.owners import PURPOSE_TELEMETRY, PURPOSES, CarConsents, Standing, decided
from fleetbatch.ledger.pool import Connection, Pool, Row, fetch
from fleetbatch.units import CarId

_CARS: Final = {
    "car_id": "i8",
    "owner_id": "i8",
    "consent": "b1",
    "revoked": "b1",
    "reputation": "f8",
    "strikes": "f8",
    "running_shard": "i8",
    "fence": "i4",
    "night": "i4",
    "running_done_through": "i2",
    "last_beat_us": "i8",
    "data_bits": "i4",
}
_CREDITED: Final = {"car_id": "i8", "units": "f8"}
DATA_CLASSES_MAX: Final = 31
"""Of open orders at a time; cars count as not consenting to those beyond."""
_NIGHT_ZERO: Final = np.datetime64("2000-01-01")


class Cars:
    """The statements about cars."""

    _pool: Pool

    def enrol(self, enrolments: Sequence[Enrolment]) -> None:
        """Make cars known, once; a car that is known keeps its key and owner."""
        batch = sorted(enrolments, key=lambda e: e.car_id)
        names = ("car_id", "owner_id", "public_key_pem", "region")
        self._pool.rows("enrol", {name: [getattr(e, name) for e in batch] for name in names})

    def car_key(self, car_id: CarId) -> CarKey | None:
        """Return what proves that a car is calling; None when it never enrolled."""
        return self.car_keys([car_id])[0]

    def car_keys(self, car_ids: Sequence[CarId]) -> list[CarKey | None]:
        """Return what proves that each of these cars is calling; None for one that never enrolled."""
        rows = self._pool.rows("car_keys", {"car_id": list(car_ids)})
        found = {row["car_id"]: CarKey(**row) for row in rows}
        return [found.get(car_id) for car_id in car_ids]

    def use_assertions(self, assertions: Sequence[tuple[CarId, str, datetime]]) -> list[bool]:
        """Say of each assertion (car, `jti`, until when it must be remembered) whether this is its first use."""
        use = secrets.token_hex(8)
        columns = dict(zip(("car_id", "jti", "until"), map(list, zip(*assertions, strict=True)), strict=True))
        first = {(row["car_id"], row["jti"]) for row in self._pool.rows("use_assertions", {**columns, "use": use})}
        return [(car, jti) in first for car, jti, _ in assertions]

    def forget_assertions(self) -> None:
        """Forget the assertions that buy nothing any more, a batch at a time."""
        batch = self._pool.dials.batch_rows
        while len(self._pool.rows("forget_assertions", {"batch": batch})) == batch:
            pass

    def revoke_car(self, car_id: CarId, reason: str) -> None:
        """Distrust a car for ever: its lease ends, its tokens are void, it gets no other. The first reason stays."""

        def work(connection: Connection) -> None:
            with connection.transaction():
                fetch(connection, "revoke_car", {"car_id": car_id, "reason": reason})
                revoke_leases(connection, "leases_of_car", {"car_id": car_id}, f"the car is revoked: {reason}")

        self._pool.run(work)

    def set_consent(self, change: ConsentChange) -> ConsentRecord | ConsentRefused:
        """Add a record to the chain of this car and purpose; return it as it was kept.

        What changes nothing adds none: the record that stands is returned. Refused are purposes that nothing is done
        for, and a yes too many in a day (`dials.decisions_a_day`).
        A withdrawal voids the car's tokens and, unless telemetry alone is withdrawn, revokes its open lease in the same
        transaction, so that from its commit no work is granted.
        Raises RejectedError when the car never enrolled.
        """
        parameters = {name: getattr(change, name) for name in ConsentChange.__dataclass_fields__}

        def work(connection: Connection) -> ConsentRecord | ConsentRefused:
            with connection.transaction():
                if not fetch(connection, "consent_lock", parameters):
                    summary = f"car {change.car_id:016x} is not enrolled; enrol it before its owner consents"
                    raise RejectedError(summary)
                if (answer := decided(change, self._standing(connection, change))) is not None:
                    return answer
                [record] = fetch(connection, "consent_add", parameters)
                fetch(connection, "consent_apply", parameters)
                if not change.granted:
                    fetch(connection, "void_tokens", {"car_id": change.car_id})
                if not change.granted and change.purpose != PURPOSE_TELEMETRY:
                    reason = f"consent to {change.purpose} is withdrawn"
                    revoke_leases(connection, "leases_of_car", {"car_id": change.car_id}, reason)
                return _record(record, change)

        return self._pool.run(work)

    def consents(self, car_id: CarId) -> list[ConsentRecord]:
        """Return every record of a car, by purpose and number."""
        return [_record(row, _change(row)) for row in self._pool.rows("consents", {"car_id": car_id})]

    def consented(self, after: CarId, limit: int) -> list[CarConsents]:
        """Return what the next cars after this one may be used for, with every record of each; by car."""
        rows = self._pool.rows("consented", {"after": after, "limit": limit})
        return [_car_consents(list(of_car)) for _, of_car in groupby(rows, key=itemgetter("car_id"))]

    def cars(self) -> pa.Table:
        """Return every enrolled car, sorted by car_id.

        Columns car_id, owner_id (uint64), consent (to compute), consents (to `data:` classes of open orders), revoked,
        reputation (share of audited rows that agreed, with one agreed row granted in advance), strikes (faded:
        `dials.strike_half_life`), open_lease, running_shard, running_done_through, last_beat_at; the last four are
        null for a car without an open lease.
        """
        classes = [row["data_class"] for row in self._pool.rows("data_classes")][:DATA_CLASSES_MAX]
        asked = {"strike_half_life": self._pool.dials.strike_half_life, "data_classes": classes}
        found = self._pool.run(lambda connection: copy_out(connection, "cars", asked, _CARS))
        idle = found["running_shard"] < 0
        nights = _NIGHT_ZERO + found["night"].astype("timedelta64[D]")
        keys = zip(idle, nights.tolist(), found["running_shard"].tolist(), found["fence"].tolist(), strict=True)
        leases = [None if free else lease_id(night, shard, fence) for free, night, shard, fence in keys]
        return pa.table(
            {
                "car_id": pa.array(found["car_id"]).cast(pa.uint64()),
                "owner_id": pa.array(found["owner_id"].view(np.uint64)),
                "consent": pa.array(found["consent"]),
                "consents": _named(found["data_bits"], classes),
                "revoked": pa.array(found["revoked"]),
                "reputation": pa.array(found["reputation"]),
                "strikes": pa.array(found["strikes"]),
                "open_lease": pa.array(leases, pa.string()),
                "running_shard": pa.array(found["running_shard"].view(np.uint64), mask=idle),
                "running_done_through": pa.array(found["running_done_through"], mask=idle),
                "last_beat_at": pa.array(found["last_beat_us"], pa.timestamp("us", tz="UTC"), mask=idle),
            }
        )

    def _standing(self, connection: Connection, change: ConsentChange) -> Standing:
        """Return what a decision meets, of a car that is locked."""
        asked = {"car_id": change.car_id, "purpose": change.purpose, "purposes": list(PURPOSES)}
        asked["decisions_a_day"] = self._pool.dials.decisions_a_day
        [row] = fetch(connection, "consent_standing", asked)
        newest = None if row["number"] is None else _record(row, _change(row | {"car_id": change.car_id}))
        return Standing(newest=newest, agreed=row["agreed"], full_for=row["full_for"])

    def credited(self, since: date) -> pa.Table:
        """Return car_id (uint64) and the work units credited to each since a night, sorted; cars without are left out.

        It reads the leases of all those nights: ask once a day.
        """
        found = self._pool.run(lambda connection: copy_out(connection, "credited", {"since": since}, _CREDITED))
        return pa.table({"car_id": found["car_id"].view(np.uint64), "units": found["units"]})


def _car_consents(rows: Sequence[Row]) -> CarConsents:
    return CarConsents(
        car_id=CarId(rows[0]["car_id"]),
        purposes=frozenset(rows[0]["consents"]),
        records=tuple(_record(row, _change(row)) for row in rows if row["purpose"] is not None),
    )


def _change(row: Row) -> ConsentChange:
    return ConsentChange(**{name: row[name] for name in ConsentChange.__dataclass_fields__})


def _record(row: Row, change: ConsentChange) -> ConsentRecord:
    names = ("number", "at", "previous", "sha256")
    return ConsentRecord(change=change, **{name: row[name] for name in names})


def _named(bits: npt.NDArray[np.int32], classes: Sequence[str]) -> "pa.Array[Any]":
    """Return for each car the purposes whose bits are set; few combinations differ. Pure."""
    different, which = np.unique(bits, return_inverse=True)
    lists = [[f"data:{name}" for n, name in enumerate(classes) if one >> n & 1] for one in different.tolist()]
    return pa.array(lists, pa.list_(pa.string())).take(np.asarray(which, np.int64))
