"""The days and months of the forecast, cell by cell: stays closed, promises judged, models learnt."""

import logging
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec

from fleetbatch.logs import say
from fleetbatch.settings import Settings
from fleetbatch.store import Store, open_store
from fleetbatch.windows.daily import ingest_until, refit_cell, tune_day


def ingest_step(settings: Settings, day: date, *, now: datetime) -> dict[str, Any]:
    """Close the stays of a day, and of missed days before it, in every cell; return what was closed."""
    store, told = _store(settings), {}
    for cell in settings.cells:
        for done, found in ingest_until(store, cell.name, day, timezone=cell.timezone, now=now).items():
            say("stays closed", cell=cell.name, day=str(done), closed=found.closed, open=found.open)
            for broken in found.broken:
                say("telemetry skipped", level=logging.ERROR, cell=cell.name, problem=broken)
            told[f"{cell.name}/{done}"] = found.closed
    return {"day": str(day), "closed": told}


def tune_step(settings: Settings, day: date, *, now: datetime) -> dict[str, Any]:
    """Set every cell's calibration, thresholds and level from a day on; return the levels with their reasons."""
    store, told = _store(settings), {}
    for cell in settings.cells:
        tuned = tune_day(store, cell.name, day, now=_known_by(day, now))
        model = tuned.model_sha256[:12]
        level = logging.WARNING if model and tuned.level == "L1" else logging.INFO
        say("forecasts", level=level, cell=cell.name, by=tuned.level, reason=tuned.reason, model=model)
        told[cell.name] = f"{tuned.level}: {tuned.reason}"
    return {"day": str(day), "levels": told}


def refit_step(settings: Settings, day: date, *, now: datetime) -> dict[str, Any]:
    """Learn every cell's model anew; return which were kept, and why others were not."""
    store, told = _store(settings), {}
    for cell in settings.cells:
        fitted = refit_cell(store, cell.name, day, now=_known_by(day, now))
        told[cell.name] = "kept" if fitted.bundle is not None else "; ".join(fitted.problems)
        say("model learnt", cell=cell.name, outcome=told[cell.name], figures=msgspec.to_builtins(fitted.figures))
    return {"day": str(day), "models": told}


def _known_by(day: date, now: datetime) -> datetime:
    """Return the moment whose knowledge a day's answer rests on: a day caught up with knows nothing later."""
    return min(now, datetime.combine(day + timedelta(days=1), time(), UTC))


def _store(settings: Settings) -> Store:
    return open_store(settings.store, deployment_key=settings.deployment_key)
