"""`fleetbatch order`: look at an order before any night runs it."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fleetbatch.cli.show import print_facts

orders = typer.Typer(help="Orders: what is computed every night.", no_args_is_help=True)


@orders.command()
def check(
    file: Annotated[Path, typer.Argument(help="An order's TOML file.")],
    *,
    region: Annotated[list[str], typer.Option(help="The regions there are; may be repeated.")] = ["eu", "us"],  # noqa: B006 # typer copies it
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Accept or refuse an order with all its mistakes, and estimate what a night of it takes."""
    from fleetbatch.local.preflight import examine_order

    order, estimate = examine_order(file, regions=frozenset(region))
    facts = {"order": order.name, "workload": order.workload, "source": order.source, "model": order.model}
    numbers = dataclasses.asdict(estimate) if json else {"estimate": str(estimate)}
    print_facts({**facts, **numbers}, json=json)
