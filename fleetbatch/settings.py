"""A deployment's settings are one TOML file, read by the doors only; every mistake is named at once."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Cell
from fleetbatch.units import CellName

KEY_BYTES = 32
CARBON_MAX: Final = 1e6
_CELL: Final = ("name", "region", "ledger_url", "gateway_ledger_url", "gateway_url")


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
    raw = _read(path)
    problems = [_problem(name, raw) for name in ("store", "deployment_key_file") if not _is_text(raw, name)]
    problems += [_problem("engine", raw)] if "engine" in raw and not _is_text(raw, "engine") else []
    cells = raw.get("cells")
    if not isinstance(cells, list) or not cells or not all(isinstance(cell, dict) for cell in cells):
        problems.append("`[[cells]]` is missing: one table a cell")
        cells = []
    for number, cell in enumerate(cells, start=1):
        problems += [f"cell {number}: {problem}" for problem in _cell_problems(cell)]
    key_file = raw["deployment_key_file"] if _is_text(raw, "deployment_key_file") else ""
    key = _read_key(path.parent / key_file, problems) if key_file else b""
    if problems:
        summary = f"{path} cannot be used"
        raise RejectedError(summary, problems)
    return Settings(
        store=raw["store"],
        deployment_key=key,
        engine=raw.get("engine", "local"),
        cells=tuple(
            Cell(
                **{**{n: c[n] for n in _CELL}, "name": CellName(c["name"])},
                timezone=c.get("timezone", "UTC"),
                energy_zone=c.get("energy_zone", ""),
                carbon_per_tonne=float(c.get("carbon_per_tonne", 0.0)),
            )
            for c in cells
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        summary = f"cannot read the settings file {path}: {error.strerror}"
        raise RejectedError(summary) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        summary = f"{path} is not TOML: {error}"
        raise RejectedError(summary) from error


def _cell_problems(cell: Mapping[str, Any]) -> list[str]:
    problems = [_problem(name, cell) for name in _CELL if not _is_text(cell, name)]
    problems += [
        _problem(name, cell) for name in ("timezone", "energy_zone") if name in cell and not _is_text(cell, name)
    ]
    worth = cell.get("carbon_per_tonne", 0.0)
    if isinstance(worth, bool) or not isinstance(worth, int | float) or not 0.0 <= worth <= CARBON_MAX:
        problems.append(f"`carbon_per_tonne` is {worth!r}; expected a number from 0 to {CARBON_MAX:g}")
    if _is_text(cell, "gateway_url") and not _is_http(cell["gateway_url"]):
        problems.append(f"`gateway_url` is {cell['gateway_url']!r}; expected a URL such as https://gateway.example")
    return problems


def _is_text(table: Mapping[str, Any], name: str) -> bool:
    return isinstance(table.get(name), str)


def _problem(name: str, table: Mapping[str, Any]) -> str:
    return f"`{name}` is {table[name]!r}; expected text" if name in table else f"`{name}` is missing"


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address in brackets, or a port, that is none
        return False


def _read_key(path: Path, problems: list[str]) -> bytes:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        problems.append(f"deployment key {path}: {error.strerror}")
        return b""
    except ValueError:  # no text, or no digits
        problems.append(f"deployment key {path}: not hexadecimal; expected {2 * KEY_BYTES} hex digits")
        return b""
    if len(key) != KEY_BYTES:
        problems.append(f"deployment key {path}: {len(key)} bytes; expected {KEY_BYTES}")
    return key
