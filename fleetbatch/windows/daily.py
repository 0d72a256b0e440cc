"""A day of the forecast: close yesterday's stays, tune on kept and broken promises, write the page.

The doing part: reads, decides by the pure modules beside it, writes under the day's keys. Twice is once.
"""

import io
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fleetbatch import layout
from fleetbatch.contracts import conform, empty
from fleetbatch.store import Store
from fleetbatch.units import CellName, Sha256
from fleetbatch.windows.bundle import open_bundle
from fleetbatch.windows.closing import close_stays
from fleetbatch.windows.forecast import Forecaster, open_forecaster
from fleetbatch.windows.page import day_page
from fleetbatch.windows.refit import Refit, RefitDials, refit
from fleetbatch.windows.shadow import Model, model_of, pick, promoted
from fleetbatch.windows.tuning import Tuned, TuningDials, tune

CATCH_UP_DAYS: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """How many stays a day closed and left open, and the telemetry files that could not be read."""

    closed: int
    open: int
    broken: tuple[str, ...]


def ingest_day(store: Store, cell: CellName, day: date, *, timezone: str, now: datetime) -> Ingested:
    """Close the stays of a day (UTC) from its telemetry; the cell's cars live by the clock of `timezone`."""
    until = min(now, datetime.combine(day + timedelta(days=1), time(), UTC))
    signals, broken = _tables(store, layout.telemetry_day(cell, str(day)), "signals")
    before = _read(store, layout.open_stays(cell, str(day - timedelta(days=1))))
    heard = pl.DataFrame(signals.select(["car_id"])).vstack(pl.DataFrame(before.select(["car_id"])))
    cars = heard.unique().sort("car_id").with_columns(timezone=pl.lit(timezone)).to_arrow()
    told = close_stays(before, signals, cars, now=until)
    key = layout.stays(cell, str(day))
    closed = _union(_read(store, key), told.closed)
    store.write(key, _parquet(closed))
    store.write(layout.open_stays(cell, str(day)), _parquet(told.open))
    return Ingested(closed=told.closed.num_rows, open=told.open.num_rows, broken=broken)


def ingest_until(store: Store, cell: CellName, day: date, *, timezone: str, now: datetime) -> dict[date, Ingested]:
    """Ingest a day and whatever days before it were missed, at most two weeks of them."""
    prefix = layout.open_stays(cell, "").removesuffix(".parquet")
    done = [date.fromisoformat(key.removeprefix(prefix)[:10]) for key in store.keys(prefix)]
    last = max((d for d in done if d < day), default=day - timedelta(days=1))
    missed = min((day - last).days, CATCH_UP_DAYS)
    days = [day - timedelta(days=ago) for ago in range(max(missed, 1) - 1, -1, -1)]
    return {d: ingest_day(store, cell, d, timezone=timezone, now=now) for d in days}


def tune_day(store: Store, cell: CellName, day: date, *, now: datetime, dials: TuningDials | None = None) -> Tuned:
    """Write the state and the page from `now` on, and return the state; a better shadow takes over."""
    dials = dials or TuningDials()
    stays = read_history(store, cell, day)
    yesterday = latest_state(store, cell, before=day)
    models = tuple(model_of(key) for key in store.keys(layout.windows_models(cell)))
    current, shadow = pick(models, yesterday.model_sha256 if yesterday else "", day)
    tuned = _tuned(store, stays, current, now, dials)
    if shadow is not None:
        trial = _tuned(store, stays, shadow, now, dials)
        tuned = trial if promoted(tuned, trial, shadow.day, day) else tuned
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


def tonight(store: Store, cell: CellName, day: date) -> tuple[Forecaster | None, Tuned | None]:
    """Return the forecaster that serves on a day and its state; no forecaster means L1, no state nothing tuned yet."""
    state = latest_state(store, cell, before=day + timedelta(days=1))
    if state is None or state.level == "L1":
        return None, state
    models = [model_of(key) for key in store.keys(layout.windows_models(cell))]
    serving = next((m for m in models if m.sha256 == Sha256(state.model_sha256)), None)
    if serving is None:
        return None, state
    return open_forecaster(open_bundle(store.read(serving.key)), state.calibration()), state


def read_history(store: Store, cell: CellName, day: date) -> pa.Table:
    """Return the closed stays of all days and the open ones of the day or the last before it, as contract stays."""
    closed, _ = _tables(store, layout.stays(cell, "").partition("day=")[0], "stays")
    prefix = layout.open_stays(cell, "").removesuffix(".parquet")
    days = [key for key in store.keys(prefix) if key <= layout.open_stays(cell, str(day))]
    still = _read(store, max(days)) if days else empty("stays")
    return _union(closed, still)


def latest_state(store: Store, cell: CellName, *, before: date) -> Tuned | None:
    """Return the newest state of a day before the one given."""
    limit = layout.windows_state(cell, str(before))
    keys = [key for key in store.keys(layout.windows_states(cell)) if key < limit]
    return msgspec.json.decode(store.read(max(keys)), type=Tuned) if keys else None


def _tuned(store: Store, stays: pa.Table, model: Model | None, now: datetime, dials: TuningDials) -> Tuned:
    return tune(stays, None if model is None else open_bundle(store.read(model.key)), now, dials)


def _tables(store: Store, prefix: str, name: str) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the tables under a prefix as one; a file that is no Parquet is named and left out."""
    tables, broken = [empty(name)], []
    for key in sorted(store.keys(prefix)):
        try:
            tables.append(conform(pq.read_table(io.BytesIO(store.read(key))), name))
        except pa.ArrowInvalid as error:
            broken.append(f"{key}: {error}")
    return pa.concat_tables(tables), tuple(broken)


def _read(store: Store, key: str) -> pa.Table:
    if store.size(key) is None:
        return empty("stays")
    return conform(pq.read_table(io.BytesIO(store.read(key))), "stays")


def _union(first: pa.Table, second: pa.Table) -> pa.Table:
    """Return the stays of both, each once: a start tells a car's stay, and one with an end knows more."""
    both = (
        pl.DataFrame(first)
        .vstack(pl.DataFrame(second))
        .sort("car_id", "plugged_in_at", "unplugged_at", nulls_last=True)
    )
    return conform(both.unique(["car_id", "plugged_in_at"], keep="first", maintain_order=True).to_arrow(), "stays")


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
