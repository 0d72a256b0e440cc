"""Work under way: grant, beat, deliver, release, revoke, sweep. Batches in, one answer a request, in the same order."""

from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from fleetbatch import layout
from fleetbatch.ledger.ids import NOWHERE, lease_id, lease_key
from fleetbatch.ledger.machine import ARCHIVED, NOT_YOURS, ending
from fleetbatch.ledger.messages import (
    Beat,
    BeatAnswer,
    CarKey,
    Credit,
    Delivered,
    Delivery,
    Granted,
    GrantRequest,
    LeaseRow,
    LeaseState,
    Refused,
    Release,
    Released,
    Swept,
    Terminal,
)
from fleetbatch.ledger.pool import Connection, Pool, Row, fetch
from fleetbatch.nouns import OrderKey
from fleetbatch.units import CLOUD_CAR, CarId, Fence, LeaseId, Night, OrderName, Sha256, ShardId

Message = Beat | Delivery | Release
Key = tuple[ShardId, Fence, CarId]
M = TypeVar("M", Beat, Delivery, Release)


class Leases:
    """The statements by which cars and trusted machines hold shards."""

    _pool: Pool
    _swept_pages: int = 0
    """Where the next sweep begins."""

    def grant(self, requests: Sequence[GrantRequest]) -> list[Granted | Refused]:
        """Give each car the shard that it asks for, or say why not.

        A car that already holds a lease gets that lease again (`again`), whatever it asked for. CLOUD_CAR may hold any
        number and is given shards that cars no longer get.
        """
        granted = self._granted("grant", sorted(requests, key=lambda r: (r.car_id, r.shard_id)))
        rest = [r for r in requests if (r.car_id, r.shard_id) not in granted]
        if not rest:
            return [granted[r.car_id, r.shard_id] for r in requests]
        asking = [r for r in rest if r.car_id != CLOUD_CAR]
        held = {car: lease for (car, _), lease in self._granted("grant_again", asking, again=True).items()}
        refused = self._refused([r for r in rest if r.car_id not in held])
        return [
            granted.get((r.car_id, r.shard_id)) or held.get(r.car_id) or refused[r.car_id, r.shard_id] for r in requests
        ]

    def beat(self, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """Renew each lease for its full length, or say that it is over and why.

        A lease that delivers nothing is renewed for no longer than `dials.stalled_after`: its car hears when it ends.
        """
        columns = _columns(beats, ("row_groups_done", "energy_wh", "busy_s"))
        rows = self._pool.rows("beat", columns | {"stalled_after": self._pool.dials.stalled_after}) if beats else []
        until = {_key_of(row): row["expires_at"] for row in rows}
        renewed = [(b, until.get(_key(b))) for b in beats]
        over = self._over([b for b, at in renewed if at is None])
        return [
            BeatAnswer(go_on=at is not None, reason="" if at else over[b][0].reason, expires_at=at) for b, at in renewed
        ]

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Delivered | Terminal | Refused]:
        """Count each part once, durably; a repeated delivery gets its first answer, a late one the lease's end.

        Refused is for a part that does not continue the shard, or lacks rows: nothing has changed.
        """
        answers: dict[int, Delivered | Terminal | Refused] = {}
        keys = [_key(one) for one in deliveries]
        for turn in _turns(keys):
            batch = [deliveries[n] for n in turn]
            taken = {_key_of(row): row for row in self._pool.rows("deliver", _deliver_columns(batch))}
            rest = [n for n in turn if keys[n] not in taken]
            counted = [(n, taken[keys[n]]) for n in set(turn).difference(rest)]
            answers |= {n: Delivered(done_through=row["done_through"], complete=row["complete"]) for n, row in counted}
            for row in self._numbered("deliver_again", [deliveries[n] for n in rest], extra=("start",)):
                answers[rest[row["n"]]] = _not_taken(deliveries[rest[row["n"]]], row)
        unknown = [n for n, answer in answers.items() if answer == NOT_YOURS]
        answers |= zip(unknown, self.gone([deliveries[n].lease_id for n in unknown]), strict=True)
        return [answers[n] for n in range(len(deliveries))]

    def release(self, releases: Sequence[Release]) -> list[Released | Terminal]:
        """End each lease as its car wishes; the shard keeps what was delivered. Repeated, the same answer."""
        firsts = list({_key(r): r for r in reversed(releases)}.values())
        columns = _columns(firsts, ("reason", "detail", "energy_wh", "busy_s"))
        rows = self._pool.rows("release", columns) if releases else []
        free = {_key_of(row): row["done_through"] for row in rows}
        over = self._over([r for r in releases if _key(r) not in free])
        answers: list[Released | Terminal] = []
        for one in releases:
            if _key(one) in free:
                answers.append(Released(done_through=free[_key(one)]))
                continue
            terminal, done_through = over[one]
            released = terminal.state is LeaseState.RELEASED
            answers.append(Released(done_through=done_through) if released else terminal)
        return answers

    def sweep(self) -> Swept:
        """End leases whose time has passed, in a bounded batch: each call looks at the next pages of open leases.

        To be called every few seconds by processes that answer beats, and by no other: it also says that the cell is in
        service, and only time in service counts. After a gap longer than `dials.outage_after` nothing expires before
        one full lease length.
        """
        dials = self._pool.dials
        [service] = self._pool.rows("serve", {"outage_after": dials.outage_after})
        first = self._swept_pages if self._swept_pages < service["pages"] else 0
        stop = first + dials.sweep_pages
        window = {"first": f"({first},0)", "stop": f"({stop},0)", "batch": dials.sweep_batch}
        rows = self._pool.rows("sweep", window)
        more = len(rows) == dials.sweep_batch
        self._swept_pages = first if more else stop
        return Swept(
            expired=tuple(lease_id(row["night"], row["shard_id"], row["fence"]) for row in rows),
            more=more,
            outage=service["outage"],
        )

    def lease(self, lease: LeaseId) -> LeaseRow | None:
        """Return one lease, open or ended."""
        return self.leases([lease])[0]

    def leases(self, leases: Sequence[LeaseId]) -> list[LeaseRow | None]:
        """Return each lease, open or ended; None where there is none of that id."""
        keys = [lease_key(lease) for lease in leases]
        columns: dict[str, list[Any]] = {"n": list(range(len(keys)))}
        columns |= {name: [getattr(key, name) for key in keys] for name in ("night", "shard_id", "fence")}
        found = {row["n"]: row for row in self._pool.rows("leases", columns)}
        return [_lease_row(lease, found[n]) if n in found else None for n, lease in enumerate(leases)]

    def gone(self, leases: Sequence[LeaseId]) -> list[Terminal]:
        """Return what is said of leases that are not here: archived with their night, or never there.

        Whose an archived lease was, and how it ended, is in files: all that a late car must hear is that it is over.
        """
        nights = {lease_key(lease).night for lease in leases}
        rows = self._pool.rows("archived_nights", {"night": sorted(nights)}) if nights else []
        archived = {row["night"] for row in rows}
        return [ARCHIVED if lease_key(lease).night in archived else NOT_YOURS for lease in leases]

    def _granted(
        self, name: str, requests: Sequence[GrantRequest], *, again: bool = False
    ) -> dict[tuple[int, int], Granted]:
        if not requests:
            return {}
        fields = GrantRequest.__dataclass_fields__
        columns: dict[str, Any] = {field: list(map(attrgetter(field), requests)) for field in fields}
        rows = self._pool.rows(name, columns | {"stalled_after": self._pool.dials.stalled_after})
        return {(row["car_id"], row["shard_id"]): _granted(row, again=again) for row in rows}

    def _refused(self, requests: Sequence[GrantRequest]) -> dict[tuple[int, int], Refused]:
        if not requests:
            return {}
        columns = {"car_id": [r.car_id for r in requests], "shard_id": [r.shard_id for r in requests]}
        rows = self._pool.rows("grant_refused", columns)
        return {(row["car_id"], row["shard_id"]): Refused(reason=row["reason"]) for row in rows}

    def _over(self, messages: Sequence[M]) -> dict[M, tuple[Terminal, int]]:
        """Return for each message the end of its lease, and how far its shard was then."""
        over = {}
        for row in self._numbered("ended", messages):
            end = ending(LeaseState(row["state"]), row["reason"])
            over[messages[row["n"]]] = (end, int(row["done_through"]))
        unknown = [message for message in messages if message not in over]
        ends = self.gone([message.lease_id for message in unknown])
        return over | {message: (end, 0) for message, end in zip(unknown, ends, strict=True)}

    def _numbered(self, name: str, messages: Sequence[Message], extra: tuple[str, ...] = ()) -> list[Row]:
        if not messages:
            return []
        nights = [lease_key(m.lease_id).night for m in messages]
        return self._pool.rows(
            name, {"n": list(range(len(messages))), "night": nights, **_columns(messages, extra, ordered=False)}
        )


def revoke_leases(connection: Connection, which: str, parameters: dict[str, Any], reason: str) -> int:
    """End the open leases that statement `which` names, inside whatever transaction is open; return how many."""
    rows = fetch(connection, which, parameters)
    if not rows:
        return 0
    keys = sorted((row["shard_id"], row["fence"]) for row in rows)
    columns = {"shard_id": [k[0] for k in keys], "fence": [k[1] for k in keys], "reason": reason}
    return len(fetch(connection, "revoke", columns))


def order_key(row: Row) -> OrderKey:
    """Return the order that a row's night, name and generation are of."""
    return _order_key(row["night"], row["name"], row["generation"])


@lru_cache(maxsize=256)
def _order_key(night: date, name: str, generation: int) -> OrderKey:
    return OrderKey(night=Night(night.isoformat()), order=OrderName(name), generation=generation)


def _key(message: Message) -> Key:
    """Return shard, fence and car, so that two cars naming one lease are told apart; a wrong fence names none."""
    key = lease_key(message.lease_id)
    found = key if key.fence == message.fence else NOWHERE
    return found.shard_id, found.fence, message.car_id


def _key_of(row: Row) -> Key:
    return row["shard_id"], row["fence"], row["car_id"]


def _columns(messages: Sequence[Message], names: Iterable[str], *, ordered: bool = True) -> dict[str, Any]:
    """Return the batch column by column, sorted by key unless the order of the answers matters."""
    keyed = [(_key(m), m) for m in messages]
    if ordered:
        keyed.sort(key=itemgetter(0))
    batch = [m for _, m in keyed]
    found: dict[str, Any] = {name: list(map(attrgetter(name), batch)) for name in ("car_id", *names)}
    return found | {"shard_id": [k[0] for k, _ in keyed], "fence": [k[1] for k, _ in keyed]}


def _deliver_columns(batch: Sequence[Delivery]) -> dict[str, list[Any]]:
    names = ("start", "stop", "rows", "size_bytes", "sha256", "energy_wh", "energy_source", "busy_s", "signature")
    columns = _columns(batch, names)
    return columns | {"sha256": [bytes.fromhex(text) for text in columns["sha256"]]}


def _turns(keys: Sequence[Key]) -> list[list[int]]:
    """Split a batch so that no lease delivers twice in one statement, in the order in which the parts arrived."""
    turns: list[list[int]] = []
    seen: dict[Key, int] = {}
    for n, key in enumerate(keys):
        turn = seen[key] = seen.get(key, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(n)
    return turns


def _granted(row: Row, *, again: bool) -> Granted:
    key = order_key(row)
    shard_id = ShardId(row["shard_id"])
    return Granted(
        lease_id=lease_id(row["night"], shard_id, row["fence"]),
        car_id=CarId(row["car_id"]),
        shard_id=shard_id,
        order_key=key,
        fence=Fence(row["fence"]),
        start=row["start"],
        row_groups=row["row_groups"],
        rows=row["rows"],
        size_bytes=row["size_bytes"],
        sha256=Sha256(row["sha256"].hex()),
        key=layout.shard(key, shard_id),
        expires_at=row["expires_at"],
        again=again,
    )


def _not_taken(delivery: Delivery, row: Row) -> Delivered | Terminal | Refused:
    """Say why a part was not counted now. Pure."""
    if row["stop"] == delivery.stop and row["sha256"].hex() == delivery.sha256:
        return Delivered(done_through=row["stop"], complete=row["stop"] == row["row_groups"])
    if row["state"] is not None:
        return ending(LeaseState(row["state"]), row["reason"])
    if not row["is_open"]:
        return NOT_YOURS
    if row["stop"] is not None:
        return Refused(reason=f"another part that starts at row group {delivery.start} is already durable")
    span = f"row groups {delivery.start} to {delivery.stop} with {delivery.rows} rows"
    where = f"the shard is delivered up to {row['done_through']} of {row['row_groups']}"
    return Refused(reason=f"a part of {span} does not fit: {where}")


def _lease_row(lease: LeaseId, row: Row) -> LeaseRow:
    order = _order_key(row["order_night"], row["name"], row["generation"])
    names = ("start", "done_through", "row_groups", "reason", "granted_at", "expires_at", "ended_at", "energy_wh")
    plain: dict[str, Any] = {name: row[name] for name in names}
    return LeaseRow(
        lease_id=lease,
        car_id=CarId(row["car_id"]),
        shard_id=ShardId(row["shard_id"]),
        fence=Fence(row["fence"]),
        order_key=order,
        row_group_rows=tuple(row["row_group_rows"]),
        state=LeaseState(row["state"]),
        credit=Credit(row["credit"]),
        key=CarKey(**{name: row[name] for name in CarKey.__struct_fields__}),
        **plain,
    )
