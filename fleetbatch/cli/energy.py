"""`fleetbatch energy`: what electricity costs and emits, hour by hour, for the dispatchers to plan with."""

from pathlib import Path

import polars as pl
import pyarrow as pa

from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.planner import write_energy
from fleetbatch.settings import Settings, load_settings
from fleetbatch.store import open_store


def load_energy(settings_file: Path, path: Path) -> list[str]:
    """Give a file of prices to every cell that names its zone, and return a line for each cell.

    Raises RejectedError when the file makes no sense, or has nothing for a cell's zone; then no cell gets it.
    """
    settings = load_settings(settings_file)
    energy = read_file(path)
    zones = sorted({str(zone) for zone in energy["zone"].to_pylist()})
    problems = [
        f"cell {cell.name}: the file has nothing of its zone {cell.energy_zone!r}, only of {', '.join(zones) or 'none'}"
        for cell in settings.cells
        if cell.energy_zone and cell.energy_zone not in zones
    ]
    if not any(cell.energy_zone for cell in settings.cells):
        problems.append("no cell names its `energy_zone` in the settings")
    if problems:
        summary = f"{path} does not fit this deployment"
        raise RejectedError(summary, problems)
    return _write(settings, energy)


def _write(settings: Settings, energy: pa.Table) -> list[str]:
    store = open_store(settings.store, deployment_key=settings.deployment_key)
    lines = []
    for cell in (one for one in settings.cells if one.energy_zone):
        write_energy(store, cell.name, energy)
        mine = pl.DataFrame(energy).filter(pl.col("zone") == cell.energy_zone)["from_at"].sort()
        span = f"{mine[0]:%Y-%m-%d %H:%M} to {mine[-1]:%Y-%m-%d %H:%M} UTC"
        lines.append(f"cell {cell.name}: {len(mine)} prices of {cell.energy_zone}, {span}")
    return lines


def read_file(path: Path) -> pa.Table:
    """Return a CSV or Parquet file with the columns of contract `energy`; raise RejectedError when it is none."""
    try:
        frame = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
        if "from_at" in frame.columns and frame["from_at"].dtype == pl.String:
            frame = frame.with_columns(pl.col("from_at").str.to_datetime("%+", time_unit="us", time_zone="UTC"))
        numbers = [name for name in ("price_per_kwh", "carbon_g_per_kwh") if name in frame.columns]
        table = frame.with_columns(pl.col(numbers).cast(pl.Float64)).to_arrow()
    except (OSError, pl.exceptions.PolarsError) as error:
        summary = f"cannot read energy prices from {path}"
        raise RejectedError(summary, [str(error).partition("\n")[0]]) from error
    if isinstance(kind := frame.schema.get("from_at"), pl.Datetime) and kind.time_zone is None:
        summary = f"{path} says no time zone with its instants; expected `from_at` such as 2026-11-22T23:00:00+01:00"
        raise RejectedError(summary)
    known = [name for name in contract("energy").schema.names if name in table.column_names]
    return table.select(known)
