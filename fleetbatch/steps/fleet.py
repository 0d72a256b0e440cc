"""What the fleet and its open orders look like right now, cell by cell, as a page for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.ledger.messages import OrderRow, ShardCounts
from fleetbatch.pages import page, paragraph, section, table
from fleetbatch.settings import Settings
from fleetbatch.steps.doors import open_ledgers

_HEAD = ("Order", "State", "Shards", "Free", "On cars", "Being audited", "Done", "Missing", "Deadline (UTC)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """One cell at a glance."""

    name: str
    region: str
    cars: Mapping[str, int]
    """How many, by what a person asks for."""
    orders: Sequence[tuple[OrderRow, ShardCounts]]


def fleet_page(settings: Settings, *, now: datetime) -> str:
    """Look at every cell and return the page; raise TransientError when a ledger is out of reach."""
    views = []
    with open_ledgers(settings) as ledgers:
        for cell in settings.cells:
            ledger = ledgers[cell.name]
            orders = [(row, ledger.counts(row.key)) for row in ledger.orders_open()]
            views.append(CellView(name=cell.name, region=cell.region, cars=count_cars(ledger.cars()), orders=orders))
    return draw_fleet(views, now=now)


def count_cars(cars: pa.Table) -> dict[str, int]:
    """Return how many cars are enrolled, willing and at work. Pure."""
    willing = cars.filter(pc.field("consent") & ~pc.field("revoked"))
    return {
        "enrolled": cars.num_rows,
        "with consent": willing.num_rows,
        "at work": cars.filter(pc.is_valid(cars["open_lease"])).num_rows,
    }


def draw_fleet(views: Sequence[CellView], *, now: datetime) -> str:
    """Return the page as HTML that needs nothing else. Pure."""
    return page("Fleet", [paragraph(f"As of {now:%Y-%m-%d %H:%M:%S} UTC.", kind="faint"), *map(_cell, views)])


def _cell(view: CellView) -> str:
    cars = ", ".join(f"{count} {what}" for what, count in view.cars.items())
    body = [paragraph(f"Cars: {cars}.")]
    if view.orders:
        body.append(table(_HEAD, [_order(row, counts) for row, counts in view.orders]))
    else:
        body.append(paragraph("No order is open.", kind="faint"))
    return section(f"Cell {view.name}, region {view.region}", *body)


def _order(row: OrderRow, counts: ShardCounts) -> tuple[object, ...]:
    return (
        *(str(row.key), row.state.value, counts.total, counts.ready, counts.out, counts.returned),
        *(counts.valid + counts.done, counts.missing, f"{row.frozen.deadline_at:%Y-%m-%d %H:%M}"),
    )
