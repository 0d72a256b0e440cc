"""What people do to an order: pause, resume, cancel and recall it, and give up what the night did not finish."""

from collections.abc import Iterable
from typing import Any, Final

from fleetbatch.errors import RejectedError
from fleetbatch.ledger.leases import revoke_leases
from fleetbatch.ledger.orders import Orders
from fleetbatch.ledger.pool import Connection, fetch
from fleetbatch.ledger.states import OrderState, ShardState
from fleetbatch.nouns import OrderKey

_UNCOMPUTED: Final = (ShardState.READY, ShardState.OUT)
_UNFINISHED: Final = (*_UNCOMPUTED, ShardState.RETURNED)
_UNPUBLISHED: Final = (*_UNFINISHED, ShardState.VALID)


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
        """Name every unfinished shard of an order missing, with the reason; end its leases. Return how many shards."""
        where = self._where(key)

        def work(connection: Connection) -> int:
            with connection.transaction():
                return _give_up(connection, where, reason, _UNFINISHED)

        return self._pool.run(work)

    def _turn(self, key: OrderKey, state: OrderState, reason: str = "", gone: Iterable[ShardState] = ()) -> int:
        """Turn an order to a state and give up shards; raise RejectedError for one that is over in another way."""
        where = self._where(key)

        def work(connection: Connection) -> int:
            with connection.transaction():
                [row] = fetch(connection, "set_order_state", {**where, "state": state.value, "reason": reason})
                if row["state"] != state.value:
                    summary = f"the order {key} is {row['state']}, for good; its next generation can be run"
                    raise RejectedError(summary)
                return _give_up(connection, where, reason, gone) if gone else 0

        return self._pool.run(work)


def _give_up(connection: Connection, where: dict[str, Any], reason: str, gone: Iterable[ShardState]) -> int:
    """Name shards missing and end the order's leases, inside the transaction that is open; return how many shards."""
    names = [state.value for state in gone]
    revoke_leases(connection, "leases_of_order", where, reason)
    kept = fetch(connection, "give_up", {**where, "reason": reason, "gone": names})
    revoke_leases(connection, "leases_of_order", where, reason)  # granted between the two
    if ShardState.RETURNED.value in names:
        fetch(connection, "drop_audits", where)
        fetch(connection, "settle_unaudited", where)
    return sum(row["state"] == ShardState.MISSING.value for row in kept)
