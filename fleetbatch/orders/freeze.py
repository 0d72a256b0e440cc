"""Freezing: from here on nothing about this night's order changes, however often its night is started."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.bundle import bundle_sha256, read_model_file
from fleetbatch.contracts import conform, empty
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import FrozenOrder, Order, OrderKey
from fleetbatch.orders.parse import model_file
from fleetbatch.sealing import KEY_BYTES, wrap_secret
from fleetbatch.store import MissingObject, Store
from fleetbatch.units import Night, OrderName, Sha256
from fleetbatch.workloads import Device, open_workload

_TRUSTED: Final = Device(provider="CPUExecutionProvider")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyPublished:
    """The night of this order is done; only force computes it again."""

    key: OrderKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One computation of the night that the store knows of; `frozen` is None when its files were archived."""

    key: OrderKey
    published: bool
    frozen: FrozenOrder | None


def freeze_order(
    store: Store, order: Order, *, night: Night, force: bool, now: datetime, deployment_key: bytes
) -> FrozenOrder | AlreadyPublished:
    """Freeze an order for a night and put its bundle into the store, or take up what an earlier run froze.

    A published night is done unless forced; an unpublished generation goes on as it was frozen. Raises RejectedError
    when the model cannot be used.
    """
    data = read_model(order)
    sha256 = Sha256("") if data is None else bundle_sha256(data)
    known = _generations(store, night, order.name)
    match choose_generation(known, order, sha256, force=force, now=now):
        case FrozenOrder() as frozen:
            return frozen
        case AlreadyPublished() as done:
            return done
        case int(number):
            key = OrderKey(night=night, order=order.name, generation=number)
        case unreachable:
            assert_never(unreachable)
    if data is not None:
        store.create(layout.bundle(sha256), data)
    frozen = FrozenOrder(
        key=key,
        order=order,
        model_sha256=sha256,
        frozen_at=now,
        deadline_at=now + timedelta(hours=order.deadline_hours),
        secret_wrapped=wrap_secret(secrets.token_bytes(KEY_BYTES), deployment_key),
    )
    store.create(layout.order(key), order_to_json(frozen))
    return stored_order(store, key)


def choose_generation(
    known: list[Generation], order: Order, model_sha256: str, *, force: bool, now: datetime
) -> int | FrozenOrder | AlreadyPublished:
    """Decide which generation runs: the number of a new one, an interrupted one, or none since the night is done.

    With force an interrupted generation is taken up only when it is what is asked for now and its deadline is ahead:
    so a retried forced run goes on, and a night that was begun with a mistake can be begun anew.
    """
    if not known:
        return 1
    last = max(known, key=lambda generation: generation.key)
    if last.published or last.frozen is None:
        return last.key.generation + 1 if force else AlreadyPublished(key=last.key)
    same = (last.frozen.order, last.frozen.model_sha256) == (order, model_sha256)
    begin_anew = force and not (same and now < last.frozen.deadline_at)
    return last.key.generation + 1 if begin_anew else last.frozen


def order_to_json(frozen: FrozenOrder) -> bytes:
    """Return a frozen order as JSON; bytes are base64, instants RFC 3339."""
    return msgspec.json.format(msgspec.json.encode(frozen), indent=2)


def order_from_json(data: bytes) -> FrozenOrder:
    """Return what `order_to_json` wrote; raise RejectedError for anything else."""
    try:
        return msgspec.json.decode(data, type=FrozenOrder)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        summary = f"the stored order cannot be read: {error}"
        raise RejectedError(summary) from error


def stored_order(store: Store, key: OrderKey) -> FrozenOrder:
    """Return the frozen order of a key; raise RejectedError when there is none."""
    try:
        return order_from_json(store.read(layout.order(key)))
    except MissingObject as error:
        summary = f"no order was frozen as {key}: start its night first"
        raise RejectedError(summary) from error


def read_model(order: Order) -> bytes | None:
    """Return the bytes of an order's bundle once its workload can open it, None for an order without a model.

    Raises RejectedError when no car could use it, the workload's own reasons included.
    """
    data = read_model_file(model_file(order.model)) if order.model else None
    try:
        open_workload(order.workload, data, _TRUSTED, dict(order.options))
    except RejectedError as error:
        summary = f"order {order.name}, model {order.model or 'none'}: {error.summary}"
        raise RejectedError(summary, error.problems) from error
    return data


def _generations(store: Store, night: Night, order: OrderName) -> list[Generation]:
    """Return what the store knows: order files, and the table of published nights for those archived since."""
    first = layout.order(OrderKey(night=night, order=order, generation=1))
    files = [name for name in store.keys(first.removesuffix("g1/order.json")) if name.endswith("/order.json")]
    keys = [OrderKey(night=night, order=order, generation=int(name.split("/")[-2][1:])) for name in files]
    known = [
        Generation(key=key, published=store.size(layout.summary(key)) is not None, frozen=stored_order(store, key))
        for key in keys
    ]
    published = _nights_table(store, order)
    tonight = published.filter(pc.field("night") == night)["generation"].to_pylist()
    archived = [OrderKey(night=night, order=order, generation=number) for number in tonight if number is not None]
    return known + [Generation(key=key, published=True, frozen=None) for key in archived if key not in keys]


def _nights_table(store: Store, order: OrderName) -> pa.Table:
    try:
        data = store.read(layout.nights(order))
    except MissingObject:
        return empty("nights")
    return conform(pq.read_table(pa.BufferReader(data)), "nights")
