"""A deployment's settings are one TOML file, read by the doors only; every mistake is named at once."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Cell
from fleetbatch.units import CellName

KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a deployment's store, cells and key are."""

    store: str
    """`file:///folder`, `s3://bucket/prefix`, ..."""
    deployment_key: bytes
    """32 bytes: wraps the orders' secrets, keys the tokens and the local store's signed URLs."""
    cells: tuple[Cell, ...]
    engine: str = "local"
    """`local` (processes on this machine), or `dask://host:8786`."""


def load_settings(path: Path) -> Settings:
    """Read and check a settings file; raise RejectedError with every mistake in it."""
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as error:
        summary = f"cannot read the settings file {path}: {error.strerror}"
        raise RejectedError(summary) from error
    except tomllib.TOMLDecodeError as error:
        summary = f"{path} is not TOML: {error}"
        raise RejectedError(summary) from error
    problems = [f"`{name}` is missing" for name in ("store", "deployment_key_file", "cells") if name not in raw]
    wanted = ("name", "region", "ledger_url", "gateway_ledger_url", "gateway_url")
    for number, cell in enumerate(raw.get("cells", []), start=1):
        problems += [f"cell {number}: `{name}` is missing" for name in wanted if name not in cell]
    key = _read_key(path.parent / raw.get("deployment_key_file", "deployment.key"), problems)
    if problems:
        summary = f"{path} cannot be used"
        raise RejectedError(summary, problems)
    return Settings(
        store=raw["store"],
        deployment_key=key,
        engine=raw.get("engine", "local"),
        cells=tuple(
            Cell(
                **{**{name: c[name] for name in wanted}, "name": CellName(c["name"])}, timezone=c.get("timezone", "UTC")
            )
            for c in raw["cells"]
        ),
    )


def cell_named(settings: Settings, name: str) -> Cell:
    """Return one cell; raise RejectedError that lists the known names."""
    for cell in settings.cells:
        if cell.name == name:
            return cell
    known = ", ".join(cell.name for cell in settings.cells)
    summary = f"there is no cell {name!r}; the settings know {known}"
    raise RejectedError(summary)


def _read_key(path: Path, problems: list[str]) -> bytes:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        problems.append(f"deployment key {path}: {error.strerror}")
        return b""
    except ValueError:
        problems.append(f"deployment key {path}: not hexadecimal; expected {2 * KEY_BYTES} hex digits")
        return b""
    if len(key) != KEY_BYTES:
        problems.append(f"deployment key {path}: {len(key)} bytes; expected {KEY_BYTES}")
    return key
