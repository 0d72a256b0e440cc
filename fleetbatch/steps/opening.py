"""The evening: an order is accepted and frozen, its input cut into shards, the shards registered in their cells."""

from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.engine import open_engine
from fleetbatch.errors import RejectedError
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.logs import say
from fleetbatch.nouns import FrozenOrder, Order, OrderKey
from fleetbatch.orders import (
    AlreadyPublished,
    Estimate,
    Known,
    freeze_order,
    load_order,
    parse_form,
    stored_order,
)
from fleetbatch.sealing import unwrap_secret
from fleetbatch.settings import Settings
from fleetbatch.sharding import cut_order, split_region
from fleetbatch.steps.doors import Doors, open_doors
from fleetbatch.steps.examining import estimated, known_in
from fleetbatch.steps.forecast import capacities, free_car_hours, free_hours_by_cell
from fleetbatch.store import refuse_lacking
from fleetbatch.units import UNITS_MAX, Night
from fleetbatch.workloads import row_units


def accept_file(settings: Settings, path: Path) -> Order:
    """Return the order in a file; raise RejectedError with every mistake in it."""
    return load_order(path, _known(settings))


def accept_form(settings: Settings, form: Mapping[str, Any], *, base: Path) -> Order:
    """Return the order that a form describes, its paths relative to `base`; raise RejectedError with every mistake."""
    return parse_form(form, _known(settings), base=base)


def order_step(
    settings: Settings, order: Order, *, night: Night, force: bool, now: datetime
) -> FrozenOrder | AlreadyPublished:
    """Estimate an order and freeze it for a night, unless that is published already and not forced.

    Raises RejectedError when night, source, model or store cannot be used, TransientError when a ledger is away.
    """
    _check_night(night)
    with open_doors(settings) as doors:
        refuse_lacking(
            doors.store
        )  # in the evening: a night that cannot be published in the morning is computed in vain
        estimate = estimate_in(doors, order)
        frozen = freeze_order(
            doors.store, order, night=night, force=force, now=now, deployment_key=settings.deployment_key
        )
    say("order accepted", order=str(frozen.key), estimate=str(estimate))
    return frozen


def estimate_in(doors: Doors, order: Order) -> Estimate:
    """Say what an order will take in this deployment, and whether it fits into the night, before anything runs."""
    rates = pa.concat_tables([ledger.rates() for ledger in doors.ledgers.values()])
    free = free_car_hours(doors.settings, doors.store, doors.ledgers, order)
    return estimated(order, rates=rates, free_car_hours=free)


def shards_step(settings: Settings, key: OrderKey) -> pa.Table:
    """Cut a frozen order, split its shards between the cells of its region, and register them; return the manifest.

    What was cut and registered by an interrupted run stays as it is.
    """
    with open_doors(settings) as doors, open_engine(settings.engine) as engine:
        return cut_and_register(doors, key, engine=engine)


def cut_and_register(doors: Doors, key: OrderKey, *, engine: Executor | None) -> pa.Table:
    """Do what `shards_step` says through open doors; without an engine the cut is done here."""
    frozen = stored_order(doors.store, key)
    forecast = free_hours_by_cell(doors.settings, doors.store, doors.ledgers, frozen.order)
    willing = {cell: willing_cars(ledger) for cell, ledger in doors.ledgers.items()}
    manifest = cut_order(
        doors.store,
        frozen,
        secret=unwrap_secret(frozen.secret_wrapped, doors.settings.deployment_key),
        shares=split_region(frozen.order.region, doors.settings.cells, capacities(forecast, willing)),
        engine=engine,
    )
    for cell in doors.settings.cells:
        ours = manifest.filter(pc.field("cell") == cell.name)
        if not ours.num_rows:
            continue
        ledger = doors.ledgers[cell.name]
        ledger.open_order(frozen)
        new = ledger.register_shards(key, in_units(ours, frozen.order.workload))
        say("shards registered", order=str(key), cell=cell.name, shards=ours.num_rows, new=new)
    return manifest


def in_units(manifest: pa.Table, workload: str) -> pa.Table:
    """Return a manifest whose work is counted by the time that it takes (units.UNIT_S) instead of by its rows.

    A ledger keeps it with each shard: rounds, owners' turns and pay follow from it for as long as the night is told.
    """
    units = np.minimum(manifest["work_units"].to_numpy() * row_units(workload), UNITS_MAX)
    place = manifest.column_names.index("work_units")
    return manifest.set_column(place, manifest.schema.field(place), pa.array(units))


def willing_cars(ledger: PostgresLedger) -> float:
    """Return how many cars of a cell may be given work."""
    cars = ledger.cars()
    return float(cars.filter(pc.field("consent") & ~pc.field("revoked")).num_rows)


def _check_night(night: Night) -> None:
    try:
        right = f"{date.fromisoformat(night):%Y-%m-%d}" == night
    except ValueError:
        right = False
    if not right:
        summary = f"{night!r} is not a night; expected a date such as 2026-11-22"
        raise RejectedError(summary)


def _known(settings: Settings) -> Known:
    return known_in(frozenset(cell.region for cell in settings.cells))
