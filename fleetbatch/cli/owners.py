"""`fleetbatch owner` and `fleetbatch credits`: what a car did and earned, and whether the book is right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from fleetbatch.cli.show import print_json
from fleetbatch.errors import RejectedError
from fleetbatch.units import CarId

owners = typer.Typer(help="What owners may know.", no_args_is_help=True)
credits_app = typer.Typer(help="What owners earn.", no_args_is_help=True)
_HEX: int = 16
_MICRO: int = 1_000_000

Home = Annotated[
    Path,
    typer.Option(help="Where the laptop's deployment keeps its store, keys and logs.", envvar="FLEETBATCH_HOME"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
HOME = Path(".fleetbatch")


@owners.command()
def statement(
    car: Annotated[str, typer.Argument(metavar="CAR", help="Sixteen hex digits.")],
    *,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Tell all that is kept about a car: consent, what ran in which night and for whom, and what it earned."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.credits import find_statement

    told = msgspec.to_builtins(find_statement(load_settings(settings_file(home)), _car(car)))
    if json:
        print_json(told)
    else:
        _print_statement(told)


@credits_app.command()
def recompute(*, home: Home = HOME, json: Json = False) -> None:
    """Rebuild the book from the leases, archived nights included, and compare; a difference is an error."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.credits import recompute_credits

    books = recompute_credits(load_settings(settings_file(home)))
    found: dict[str, Any] = {cell: msgspec.to_builtins(book) for cell, book in books.items()}
    if json:
        print_json(found)
    else:
        _print_books(found)
    wrong = [f"cell {cell}: {line}" for cell, book in books.items() for line in book.differences]
    if wrong:
        summary = "the book is not what the leases say"
        raise RejectedError(summary, wrong)


def _car(text: str) -> CarId:
    try:
        return CarId(int(text, _HEX))
    except ValueError as error:
        summary = f"{text!r} is not a car; expected sixteen hex digits"
        raise RejectedError(summary) from error


def _print_statement(told: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]car[/bold] {told['car_id']}")
    for record in told["consents"]:
        word = "yes to" if record["granted"] else "no to"
        console.print(f"  {record['at'][:19]} UTC: {word} {record['purpose']} (notice {record['notice_version']})")
    table = Table("night", "order", "rows", "minutes", "kWh", "MB read", "MB sent", "credits", "in escrow")
    for night in told["nights"]:
        table.add_row(
            *(night["night"], f"{night['order']} ({night['data_class']})", f"{night['rows']:,}"),
            *(f"{night['minutes']:.1f}", f"{night['energy_wh'] / 1000:.3f}"),
            *(f"{night['bytes_read'] / 1e6:.1f}", f"{night['bytes_sent'] / 1e6:.1f}"),
            *(f"{night['paid_micro'] / _MICRO:.6f}", f"{night['escrow_micro'] / _MICRO:.6f}"),
        )
    console.print(table)
    console.print(f"paid to the owner so far: {told['owner_paid_micro'] / _MICRO:.6f} credits")


def _print_books(found: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    for cell, book in found.items():
        total, owed = sum(book["balances"].values()), -book["balances"].get("fleet", 0)
        console.print(
            f"cell {cell}: {book['entries']:,} entries of {book['leases']:,} leases in {book['nights']:,} nights;"
            f" {owed / _MICRO:.6f} credits owed or in escrow, all accounts together {total},"
            f" {len(book['differences'])} differences"
        )
