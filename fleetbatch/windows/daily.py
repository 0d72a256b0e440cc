"""A day of the forecast: close yesterday's stays, tune on kept and broken promises, write the page.

The doing part: reads, decides by the pure modules beside it, writes under the day's keys. Twice is once.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import msgspec
import polars as pl

from fleetbatch import layout
from fleetbatch.contracts import parquet_bytes
from fleetbatch.errors import RejectedError
from fleetbatch.logs import say
from fleetbatch.store import Store
from fleetbatch.units import CellName
from fleetbatch.windows.bundle import WindowsBundle, open_bundle
from fleetbatch.windows.closing import close_stays
from fleetbatch.windows.page import day_page
from fleetbatch.windows.refit import Refit, RefitDials, refit
from fleetbatch.windows.shadow import Model, compared, model_of, pick, promoted
from fleetbatch.windows.state import Tuned
from fleetbatch.windows.stored import latest_state, open_model, read_history, read_stays_file, read_tables, union
from fleetbatch.windows.tuning import TuningDials, tune

CATCH_UP_DAYS: Final = 14
TRIED: Final = 3
"""Of the newest models, besides the one that serves: a broken one must not stand in the way of those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """How many stays a day closed and left open, and the telemetry files that could not be read."""

    closed: int
    open: int
    broken: tuple[str, ...]


def ingest_day(store: Store, cell: CellName, day: date, *, timezone: str, now: datetime) -> Ingested:
    """Close the stays of a day (UTC) from its telemetry; the cell's cars live by the clock of `timezone`."""
    until = min(now, datetime.combine(day + timedelta(days=1), time(), UTC))
    signals, broken = read_tables(store, layout.telemetry_day(cell, str(day)), "signals")
    before = read_stays_file(store, layout.open_stays(cell, str(day - timedelta(days=1))))
    heard = pl.DataFrame(signals.select(["car_id"])).vstack(pl.DataFrame(before.select(["car_id"])))
    cars = heard.unique().sort("car_id").with_columns(timezone=pl.lit(timezone)).to_arrow()
    told = close_stays(before, signals, cars, now=until)
    key = layout.stays(cell, str(day))
    closed = union(read_stays_file(store, key), told.closed)
    store.write(key, parquet_bytes(closed))
    store.write(layout.open_stays(cell, str(day)), parquet_bytes(told.open))
    return Ingested(closed=told.closed.num_rows, open=told.open.num_rows, broken=broken)


def ingest_until(store: Store, cell: CellName, day: date, *, timezone: str, now: datetime) -> dict[date, Ingested]:
    """Ingest a day and whatever days before it were missed, at most two weeks of them."""
    prefix = layout.open_stays_days(cell)
    done = [date.fromisoformat(key.removeprefix(prefix)[:10]) for key in store.keys(prefix)]
    last = max((d for d in done if d < day), default=day - timedelta(days=1))
    missed = min((day - last).days, CATCH_UP_DAYS)
    days = [day - timedelta(days=ago) for ago in range(max(missed, 1) - 1, -1, -1)]
    return {d: ingest_day(store, cell, d, timezone=timezone, now=now) for d in days}


def tune_day(store: Store, cell: CellName, day: date, *, now: datetime, dials: TuningDials | None = None) -> Tuned:
    """Write the state and the page from `now` on, and return the state; a better shadow takes over.

    A model that cannot be opened is named and left out; without any, L1 serves and the reason says so.
    """
    dials = dials or TuningDials()
    stays = read_history(store, cell, day)
    yesterday = latest_state(store, cell, before=day)
    served = yesterday.model_sha256 if yesterday else ""
    bundles, refused = _open_models(store, cell, served, day)
    current, shadow = pick(tuple(bundles), served, day)
    tuned = tune(stays, bundles[current] if current else None, now, dials)
    if current is None and refused:
        tuned = msgspec.structs.replace(tuned, reason="no model can be used: " + "; ".join(refused))
    if shadow is not None:
        trial = tune(stays, bundles[shadow], now, dials)
        taken = promoted(tuned, trial, shadow.day, day)
        sentence = compared(tuned, trial, shadow, taken=taken)
        say("shadow", cell=cell, model=shadow.sha256[:12], promoted=taken, outcome=sentence)
        tuned = msgspec.structs.replace(trial if taken else tuned, shadow=sentence)
    store.write(layout.windows_state(cell, str(day)), msgspec.json.encode(tuned))
    store.write(layout.windows_page(cell, str(day)), day_page(cell, day, tuned).encode())
    return tuned


def refit_cell(store: Store, cell: CellName, day: date, *, now: datetime, dials: RefitDials | None = None) -> Refit:
    """Learn this month's model and keep it when it passes its gates; it starts in the shadow."""
    fitted = refit(read_history(store, cell, day), now, dials or RefitDials())
    if fitted.bundle is not None:
        key = layout.windows_model(cell, str(day), open_bundle(fitted.bundle).sha256)
        store.create(key, fitted.bundle)
    return fitted


def _open_models(
    store: Store, cell: CellName, serving: str, day: date
) -> tuple[Mapping[Model, WindowsBundle], tuple[str, ...]]:
    """Return the model that serves and the newest others of up to the day, and what is wrong with the rest of these."""
    known = sorted(map(model_of, store.keys(layout.windows_models(cell))), key=lambda m: (m.day, m.sha256))
    known = [model for model in known if model.day <= day]
    bundles, refused = {}, []
    for model in {*known[-TRIED:], *(m for m in known if m.sha256 == serving)}:
        try:
            bundles[model] = open_model(store, model)
        except RejectedError as error:
            refused.append(f"{model.day} {model.sha256[:12]}: {error}")
            say("model left out", level=logging.ERROR, cell=cell, model=model.sha256[:12], problem=str(error))
    return bundles, tuple(sorted(refused))
