"""What people do to an order: pause, resume, cancel and recall it, and give up what the night did not finish.

A row of `orders` says in one commit what is given up and why; from then on nothing of it is granted. The shards follow
in batches. Whoever is interrupted between two of them may say it again; if nobody does, the dispatcher's next round, or
the morning before it merges, finishes what the row says.
"""

import datetime as dt
from collections.abc import Collection, Iterator
from typing import Any, Final

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.leases import revoke_leases
from fleetbatch.ledger.orders import Orders
from fleetbatch.ledger.pool import Connection, Row, fetch
from fleetbatch.ledger.states import OrderState, ShardState
from fleetbatch.nouns import OrderKey

_UNCOMPUTED: Final = (ShardState.READY, ShardState.OUT)
_UNFINISHED: Final = (*_UNCOMPUTED, ShardState.RETURNED)
_UNPUBLISHED: Final = (*_UNFINISHED, ShardState.VALID)
_FIRST_ID: Final = -(1 << 63)
_TRIES: Final = 20


class Operating(Orders):
    """The statements by which people steer an order; each may be said twice."""

    def pause(self, key: OrderKey) -> None:
        """Grant no more of an order; leases run on, parts count, audits go on."""
        self._turn(key, OrderState.PAUSED)

    def resume(self, key: OrderKey) -> None:
        """Grant a paused order's shards again."""
        self._turn(key, OrderState.OPEN)

    def cancel(self, key: OrderKey, reason: str) -> int:
        """Compute no more of an order, for good; return how many shards are missing because of it.

        Its leases end, and cars hear of it at their next beat. What came back is still audited, and what is valid is
        published; every other shard is missing for this reason.
        """
        return self._turn(key, OrderState.CANCELLED, f"the order is cancelled: {reason}", _UNCOMPUTED)

    def recall(self, key: OrderKey, reason: str) -> int:
        """Cancel an order and take back what it has made: nothing of it is published. Return how many shards go."""
        return self._turn(key, OrderState.CANCELLED, f"the order is recalled: {reason}", _UNPUBLISHED)

    def give_up(self, key: OrderKey, reason: str) -> int:
        """Name every unfinished shard of an order missing, with the reason; end its leases. Return how many shards.

        What an interrupted cancel or recall has left is finished with it, and all is missing for the reason of that.
        """
        where = self._where(key)
        self._pool.rows("begin_give_up", {**where, "reason": reason, "gone": _names(_UNFINISHED)})
        return self.finish_giving_up(where["order_no"])

    def finish_giving_up(self, order_no: int | None = None) -> int:
        """Give up all that is begun and not finished, of one order or of all; return how many shards."""
        return sum(self._finish(row) for row in self._pool.rows("giving_up", {"order_no": order_no}))

    def settled_version(self, key: OrderKey) -> str:
        """Finish what is begun of a recall; return a word that is another one after whatever is done to the order."""
        where = self._where(key)
        self.finish_giving_up(where["order_no"])
        [row] = self._pool.rows("order_version", where)
        version: str = row["version"]
        return version

    def close_order(self, key: OrderKey, version: str) -> bool:
        """Close an order before its table is committed; False when something was done to it since that version.

        From here on nobody recalls it, and what is valid of it stays so until it is marked as published.
        """
        return bool(self._pool.rows("close_order", {**self._where(key), "version": version}))

    def _turn(self, key: OrderKey, state: OrderState, reason: str = "", gone: Collection[ShardState] = ()) -> int:
        """Turn an order to a state and give up shards; raise RejectedError for one that is over in another way."""
        asked = {**self._where(key), "state": state.value, "reason": reason, "gone": _names(gone)}
        [row] = self._pool.rows("set_order_state", asked)
        if row["state"] != state.value:
            publishing = row["state"] == OrderState.CLOSED.value and row["published_at"] is None
            now = "being published" if publishing else row["state"]
            summary = f"the order {key} is {now}, for good; its next generation can be run"
            summary += "; unless it is published in a moment, run its publish task again" if publishing else ""
            raise RejectedError(summary)
        return self.finish_giving_up(asked["order_no"]) if gone else 0

    def _finish(self, order: Row) -> int:
        """Give up an order's shards, page by page; nothing that is behind comes back."""
        missing = 0
        for first, last in self._pages(order["night"]):
            missing += self._give_up_page({**order, "first": first, "last": last})
        self._pool.rows("end_give_up", order)
        return missing

    def _give_up_page(self, page: dict[str, Any]) -> int:
        """Give up a page, again while a grant that was under way had been first; raise TransientError in the end."""
        missing = 0
        for _ in range(_TRIES):
            gone, left = self._pool.run(lambda connection: _give_up_page(connection, page))
            missing += gone
            if not left:
                return missing
        message = f"shards of the night {page['night']:%Y-%m-%d} are out under no lease that could be ended"
        raise TransientError(message)

    def _pages(self, night: dt.date) -> Iterator[tuple[int, int]]:
        """Give the first and last id of each page of a night's shards."""
        first, batch = _FIRST_ID, self._pool.dials.batch_rows
        while True:
            [page] = self._pool.rows("page_of_shards", {"night": night, "first": first, "batch": batch})
            if page["shards"]:
                yield first, page["last"]
            if page["shards"] < batch:
                return
            first = page["last"] + 1


def _give_up_page(connection: Connection, page: dict[str, Any]) -> tuple[int, bool]:
    """End an order's leases on a page of shards, then give up the shards, with what follows for audits and credits.

    Returns how many are missing now, and whether something is left: a grant was under way when the order was turned.
    """
    revoke_leases(connection, "leases_of_page", page, page["reason"])
    with connection.transaction():
        kept = fetch(connection, "give_up", page)
        gone = sorted(row["shard_id"] for row in kept if row["state"] == ShardState.MISSING.value)
        if gone and ShardState.RETURNED.value in page["gone"]:
            fetch(connection, "drop_audits", {**page, "shard_id": gone})
            fetch(connection, "settle_given_up", {**page, "shard_id": gone})
    [left] = fetch(connection, "left_in_page", page)
    return len(gone), left["something"]


def _names(states: Collection[ShardState]) -> list[str]:
    return [state.value for state in states]
