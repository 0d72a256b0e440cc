"""`fleetbatch results`: the published files, and how to open exactly these."""

from pathlib import Path
from typing import Any

from rich.console import Console

from fleetbatch import layout
from fleetbatch.cli.show import print_opening
from fleetbatch.publish import how_to_open, published_files
from fleetbatch.settings import load_settings
from fleetbatch.store import open_store
from fleetbatch.units import Night, OrderName


def published_results(settings_file: Path, order: str, night: str | None) -> dict[str, Any]:
    """Return the table's place, its published files and a line for each reader; raise RejectedError without a table."""
    settings = load_settings(settings_file)
    store = open_store(settings.store, deployment_key=settings.deployment_key)
    name, one_night = OrderName(order), Night(night) if night else None
    files = published_files(store, name, one_night)
    uri = store.uri(layout.table(name))
    return {"order": order, "night": night, "table": uri, "files": files, "open": how_to_open(uri, files, one_night)}


def print_results(found: dict[str, Any]) -> None:
    """Print the files and the lines that open them."""
    console = Console(highlight=False)
    console.print(f"[bold]table[/bold]  {found['table']}", soft_wrap=True)
    for file in found["files"]:
        console.print(f"       {file}", soft_wrap=True, markup=False)
    print_opening(found["open"], console)
