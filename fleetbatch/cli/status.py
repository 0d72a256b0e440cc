"""`fleetbatch status`: every cell of a deployment at a glance, each from its own ledger and gateway."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.ledger.glance import AGES_S, CellGlance
from fleetbatch.ledger.messages import LedgerDials
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.nouns import Cell
from fleetbatch.settings import load_settings

_GATEWAY_S: Final = 2.0
_MINUTE_S: Final = 60
_SHARDS: Final = ("ready", "out", "returned", "valid", "dead")


def deployment_status(settings_file: Path) -> dict[str, Any]:
    """Return what every cell is doing now.

    Raises:
        RejectedError: there are no settings at that place.
        TransientError: no ledger of the deployment answers, so nothing runs.
    """
    if not settings_file.exists():
        summary = (
            f"there is no deployment at {settings_file}: start one with `fleetbatch up` or `fleetbatch night`, or name"
            " a deployment's settings file in FLEETBATCH_SETTINGS"
        )
        raise RejectedError(summary)
    cells = {cell.name: _cell(cell) for cell in load_settings(settings_file).cells}
    if all("error" in cell for cell in cells.values()):
        message = f"nothing runs: no ledger that {settings_file} names answers; `fleetbatch up` starts a laptop's"
        raise TransientError(message)
    return {"settings": str(settings_file), "cells": cells}


def told(glance: CellGlance) -> dict[str, Any]:
    """Return a glance as people and scripts read it: a shard that was given up is dead. Pure."""
    shards = glance.shards
    return {
        "shards": {
            "ready": shards.ready,
            "out": shards.out,
            "returned": shards.returned,
            "valid": shards.valid + shards.done,
            "dead": shards.missing,
        },
        "open_leases": {
            "total": glance.leases.total,
            "cloud": glance.leases.cloud,
            "by_age": dict(zip(_age_names(), glance.leases.counts, strict=True)),
        },
        "cars": {"enrolled": glance.cars.total, **asdict(glance.cars)},
        "last_round": asdict(glance.last_round) if glance.last_round else None,
        "locks": asdict(glance.locks) | {name: getattr(glance.locks, name) for name in ("needed", "room", "enough")},
        "publishing": [str(key) for key in glance.publishing],
        "orders": [
            {
                "order": str(one.key),
                "state": one.state.value,
                "deadline_at": one.deadline_at.isoformat(),
                "shards": one.shards.total,
                "left": one.shards.ready + one.shards.out + one.shards.returned,
            }
            for one in glance.orders
        ],
    }


def print_status(status: Mapping[str, Any]) -> None:
    """Print a table with a line a cell, and the open orders below it."""
    console = Console(highlight=False)
    table = Table("cell", "gateway", *_SHARDS, "leases", "computing", "idle", "last round")
    for name, cell in status["cells"].items():
        table.add_row(name, cell["gateway"], *_numbers(cell))
    console.print(table)
    for name, cell in status["cells"].items():
        for line in status_lines(cell):
            console.print(f"{name}: {line}", soft_wrap=True, markup=False)


def _cell(cell: Cell) -> dict[str, Any]:
    about = {"region": cell.region, "gateway": _gateway(cell.gateway_url)}
    try:
        with PostgresLedger.open(cell.ledger_url, dials=LedgerDials(connections=1, retries=1)) as ledger:
            return {**about, **told(ledger.glance())}
    except TransientError as error:
        return {**about, "error": str(error)}


def _gateway(url: str) -> str:
    try:
        answer = httpx.get(f"{url.rstrip('/')}/healthz", timeout=_GATEWAY_S, trust_env=False)
        return "up" if answer.is_success and answer.json()["ledger"] == "up" else "ailing"
    except (httpx.HTTPError, ValueError, KeyError):
        return "down"


def _age_names() -> tuple[str, ...]:
    spans = [f"under {age // _MINUTE_S} min" for age in AGES_S]
    return (*spans, "older")


def _numbers(cell: Mapping[str, Any]) -> tuple[str, ...]:
    if "error" in cell:
        return ("?",) * (len(_SHARDS) + 4)
    newest = cell["last_round"]
    return (
        *(f"{cell['shards'][state]:,}" for state in _SHARDS),
        f"{cell['open_leases']['total']:,}",
        f"{cell['cars']['computing']:,}",
        f"{cell['cars']['idle']:,}",
        f"{newest['round_id']}, {newest['age_s']:.0f} s ago, {newest['offers']:,} offers" if newest else "none yet",
    )


def status_lines(cell: Mapping[str, Any]) -> list[str]:
    """Return what people read of a cell below its line in the table. Pure."""
    if "error" in cell:
        return [cell["error"]]
    cars, ages = cell["cars"], cell["open_leases"]["by_age"]
    lines = [f"{cars['enrolled']:,} cars enrolled, {cars['unwilling']:,} without consent, {cars['revoked']:,} revoked"]
    if cell["open_leases"]["total"]:
        spans = ", ".join(f"{count:,} {name}" for name, count in ages.items() if count)
        lines.append(f"open leases by age: {spans} ({cell['open_leases']['cloud']:,} in the cloud lane)")
    return (
        lines
        + [
            f"order {order['order']} is {order['state']}: {order['left']:,} of {order['shards']:,} shards left,"
            f" deadline {order['deadline_at'][:16].replace('T', ' ')} UTC"
            for order in cell["orders"]
        ]
        + [
            f"order {key} is being published: closed for good, not published yet; unless its publish task runs,"
            " run its publish task again"
            for key in cell["publishing"]
        ]
        + _full_locks(cell["locks"])
    )


def _full_locks(locks: Mapping[str, int]) -> list[str]:
    """Return what to do before the database's table of locks is full, and a grant or a beat fails for it."""
    if locks["needed"] <= locks["room"]:
        return []
    warning = (
        f"warning: the database's lock table is small for {locks['nights']:,} nights: {locks['connections']:,}"
        f" connections that lock {locks['relations']:,} relations each need {locks['needed']:,} of {locks['room']:,}"
        f" locks; set max_locks_per_transaction from {locks['per_transaction']:,} to {locks['enough']:,} and restart"
        " PostgreSQL, or keep fewer nights (the DAG `maintenance` archives old ones)"
    )
    return [warning]
