"""The days and months of the forecast, cell by cell: stays closed, promises judged, models learnt."""

import logging
from datetime import date, datetime
from typing import Any

from fleetbatch.settings import Settings
from fleetbatch.store import Store, open_store
from fleetbatch.windows.daily import ingest_until, refit_cell, tune_day

_LOG = logging.getLogger(__name__)


def ingest_step(settings: Settings, day: date, *, now: datetime) -> dict[str, Any]:
    """Close the stays of a day, and of missed days before it, in every cell; return what was closed."""
    store, told = _store(settings), {}
    for cell in settings.cells:
        for done, found in ingest_until(store, cell.name, day, timezone=cell.timezone, now=now).items():
            _LOG.info("%s %s: %d stays closed, %d go on", cell.name, done, found.closed, found.open)
            for broken in found.broken:
                _LOG.warning("%s: telemetry left out: %s", cell.name, broken)
            told[f"{cell.name}/{done}"] = found.closed
    return {"day": str(day), "closed": told}


def tune_step(settings: Settings, day: date, *, now: datetime) -> dict[str, Any]:
    """Set every cell's calibration, thresholds and level from a day on; return the levels with their reasons."""
    store, told = _store(settings), {}
    for cell in settings.cells:
        tuned = tune_day(store, cell.name, day, now=now)
        level = logging.INFO if tuned.level == "L2" or not tuned.model_sha256 else logging.WARNING
        _LOG.log(level, "%s: %s serves: %s", cell.name, tuned.level, tuned.reason)
        told[cell.name] = f"{tuned.level}: {tuned.reason}"
    return {"day": str(day), "levels": told}


def refit_step(settings: Settings, day: date, *, now: datetime) -> dict[str, Any]:
    """Learn every cell's model anew; return which were kept, and why others were not."""
    store, told = _store(settings), {}
    for cell in settings.cells:
        fitted = refit_cell(store, cell.name, day, now=now)
        told[cell.name] = "kept" if fitted.bundle is not None else "; ".join(fitted.problems)
        _LOG.info("%s: new model: %s", cell.name, told[cell.name])
    return {"day": str(day), "models": told}


def _store(settings: Settings) -> Store:
    return open_store(settings.store, deployment_key=settings.deployment_key)
