"""What an order may name here, and what it will take: asked before anything runs, with a deployment or without one."""

import itertools
from typing import Final

import pyarrow as pa

from fleetbatch.bundle import read_model_file
from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Order
from fleetbatch.orders import Estimate, Known, estimate_order, model_file
from fleetbatch.sharding import GENERATORS, Input, dials_of, list_input, open_input, some_rows, usable_row
from fleetbatch.workloads import blamed, known_workloads, workload

ROWS_TRIED: Final = 16
"""Of an input whose first row a model does not take: an order may have several environments."""


def known_in(regions: frozenset[str]) -> Known:
    """Return what an order may name where cells serve these regions."""
    return Known(
        regions=regions,
        workloads=known_workloads(),
        rows_per_s=lambda name: workload(name).rows_per_s,
        generators=frozenset(GENERATORS),
    )


def estimated(order: Order, *, rates: pa.Table, free_car_hours: float | None) -> Estimate:
    """List an order's input and say what it will take; raise RejectedError when the input cannot be used.

    `rates` and `free_car_hours` are as in orders.estimate_order.
    """
    _refuse_unknown_options(order)
    given = open_input(order.workload, order.source, dict(order.options))
    listing = list_input(given)
    _refuse_misfit(order, given, listing.items)
    return estimate_order(
        order,
        items=listing.items,
        size_bytes=listing.size_bytes,
        rates=rates,
        assumed=workload(order.workload).rows_per_s,
        free_car_hours=free_car_hours,
    )


def _refuse_misfit(order: Order, given: Input, items: int) -> None:
    """Raise RejectedError for a model that takes no row of this input, tried all over it: all would come out dead."""
    model = read_model_file(model_file(order.model)) if order.model else None
    kind, reason = workload(order.workload), ""
    with blamed(f"workload {order.workload!r} cannot say whether its model fits"):
        for row in itertools.chain([usable_row(given)], some_rows(given, every=max(1, items // ROWS_TRIED))):
            why = kind.misfit(model, bytes(row.content or b""))
            if not why:
                return
            reason = reason or why
    summary = f"order {order.name}: model {order.model or 'none'} does not fit source {order.source}: {reason}"
    raise RejectedError(summary)


def _refuse_unknown_options(order: Order) -> None:
    """Raise RejectedError for an option that neither the workload nor the source knows: it would be passed over."""
    own = workload(order.workload).options
    if own is None:
        return
    known = own | dials_of(order.source)
    problems = [
        f"`options.{name}` is not known; known are {', '.join(sorted(known))}"
        for name, _ in order.options
        if name not in known
    ]
    if problems:
        summary = f"order {order.name} has options that nothing here reads"
        raise RejectedError(summary, problems)
