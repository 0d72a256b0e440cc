"""Rounds: the planner's advice, written by one dispatcher at a time and held in memory by every gateway."""

import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.arrays import copy_in, copy_out
from fleetbatch.ledger.ids import lease_id
from fleetbatch.ledger.messages import Epoch, FencedOff, Offers, PlannerLock
from fleetbatch.ledger.pool import Connection, Pool, Row, fetch
from fleetbatch.logs import say
from fleetbatch.units import CellName, RoundId

_CHANNEL: Final = "fleetbatch_round"
_OFFERS_IN: Final = {"day": "i4", "round_id": "i8", "car_id": "i8", "shard_id": "i8", "seq": "i2"}
_OFFERS_OUT: Final = {"car_id": "i8", "shard_id": "i8", "seq": "i2"}
GIVEN_AWAY: Final = "another car will end the shard sooner"
_DAY_ZERO: Final = dt.date(2000, 1, 1)
"""PostgreSQL's dates count from here in binary."""


class Rounds:
    """The statements about rounds and offers."""

    _pool: Pool
    _holder: str
    """Who this ledger is to the planner's lock."""
    _listener: Connection | None

    def lock_planner(self, cell: CellName) -> PlannerLock | None:
        """Take the lock of a cell's planner, or keep it when it is ours already; None while someone else holds it.

        It lasts `dials.planner_lock` and is renewed by this call and by every round written.
        """
        parameters = {"cell": cell, "holder": self._holder, "lock_for": self._pool.dials.planner_lock}
        rows = self._pool.rows("lock_planner", parameters)
        return PlannerLock(cell=cell, epoch=Epoch(rows[0]["epoch"])) if rows else None

    def unlock_planner(self, lock: PlannerLock) -> None:
        """Give the lock back at once; harmless when it is no longer ours."""
        self._pool.rows("unlock_planner", {"cell": lock.cell, "epoch": lock.epoch})

    def write_round(
        self,
        lock: PlannerLock,
        assignments: pa.Table,
        stats: Mapping[str, Any],
        *,
        given_away: Iterable[tuple[int, int]] = (),
    ) -> RoundId:
        """Write a round's offers (contract `assignments`) as a whole and tell the gateways.

        The leases of `given_away`, (car_id, shard_id), end in the same transaction, and the log tells each; one that
        is over is no matter.
        `stats` is whatever JSON the planner wants kept. Raises FencedOff when the lock changed hands: nothing is
        written. Sent again after a lost connection it may write the same offers twice, as two rounds.
        """
        offers = conform(assignments, "assignments").sort_by([("car_id", "ascending"), ("seq", "ascending")])

        def work(connection: Connection) -> tuple[RoundId, list[Row]]:
            with connection.transaction():
                round_id = _write_round(connection, lock, offers, stats, self._pool.dials.planner_lock)
                return round_id, [row for pair in sorted(given_away) for row in _end_lease(connection, *pair)]

        round_id, ended = self._pool.run(work)
        for row in ended:
            lease = lease_id(row["night"], row["shard_id"], row["fence"])
            say("shard given away", round=round_id, car=row["car_id"], shard=row["shard_id"], lease=lease)
        return round_id

    def latest_round(self) -> RoundId | None:
        """Return the newest round that is committed; None before the first."""
        [row] = self._pool.rows("latest_round")
        return RoundId(row["round_id"]) if row["round_id"] is not None else None

    def offers(self, round_id: RoundId) -> Offers:
        """Return a round's offers, sorted by car and place in its queue. Raises RejectedError for an unknown round."""

        def work(connection: Connection) -> Mapping[str, np.ndarray[Any, Any]]:
            rows = fetch(connection, "round", {"round_id": round_id})
            if not rows:
                summary = f"there is no round {round_id}"
                raise RejectedError(summary)
            return copy_out(connection, "offers", {"day": rows[0]["day"], "round_id": round_id}, _OFFERS_OUT)

        found = self._pool.run(work)
        order = np.lexsort((found["seq"], found["car_id"]))
        return Offers(round_id=round_id, **{name: found[name][order] for name in _OFFERS_OUT})

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait until a round or void tokens are announced (True) or the time is over (False); one thread at a time.

        It hears only what is announced after its first call: look at `latest_round` and `voided_tokens` between two
        calls. Raises TransientError when the database does not answer.
        """
        try:
            if self._listener is None:
                self._listener = self._pool.connect()
                self._listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(_CHANNEL)))
            return any(True for _ in self._listener.notifies(timeout=timeout_s, stop_after=1))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._stop_listening()
            message = f"the ledger's database does not announce anything: {str(error).strip()}"
            raise TransientError(message) from error

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(psycopg.Error):
                listener.close()


def _end_lease(connection: Connection, car_id: int, shard_id: int) -> list[Row]:
    """End the car's lease if it is still on that shard; return what was ended."""
    held = [row for row in fetch(connection, "leases_of_car", {"car_id": car_id}) if row["shard_id"] == shard_id]
    return [
        {**row, "car_id": car_id}
        for row in held
        if fetch(connection, "revoke", {"shard_id": [shard_id], "fence": [row["fence"]], "reason": GIVEN_AWAY})
    ]


def _write_round(
    connection: Connection, lock: PlannerLock, offers: pa.Table, stats: Mapping[str, Any], lock_for: dt.timedelta
) -> RoundId:
    count = offers.num_rows
    rows = fetch(
        connection,
        "open_round",
        {
            "cell": lock.cell,
            "epoch": lock.epoch,
            "offers": count,
            "stats": msgspec.json.encode(stats).decode(),
            "lock_for": lock_for,
        },
    )
    if not rows:
        message = f"the planner's lock of {lock.cell} has left epoch {lock.epoch}; another dispatcher plans now"
        raise FencedOff(message)
    round_id, day = rows[0]["round_id"], rows[0]["day"]
    fetch(connection, "ensure_day", {"day": day})
    arrays = {
        "day": np.full(count, (day - _DAY_ZERO).days),
        "round_id": np.full(count, round_id),
        "car_id": offers["car_id"].to_numpy(),
        "shard_id": offers["shard_id"].to_numpy(),
        "seq": offers["seq"].to_numpy(),
    }
    copy_in(connection, "copy_offers", arrays, _OFFERS_IN)
    fetch(connection, "notify_round", {"round_id": round_id})
    return RoundId(round_id)
