"""`fleetbatch owner` and `fleetbatch credits`: what a car did and earned, and whether the book is right."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from fleetbatch.cli.cars import car_of, owner_of
from fleetbatch.cli.show import print_json
from fleetbatch.errors import RejectedError
from fleetbatch.owners.page import UNREADABLE

owners = typer.Typer(help="What owners may know.", no_args_is_help=True)
credits_app = typer.Typer(help="What owners earn.", no_args_is_help=True)
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
    to: Annotated[Path | None, typer.Option("--page", help="Write it as a page to this file instead.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write its nights as a table to this file instead.")] = None,
) -> None:
    """Tell all that is kept about a car: consent, what ran in which night and for whom, and what it earned."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.contracts import parquet_bytes
    from fleetbatch.owners import statement_page, statement_table
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.credits import find_statement

    found = find_statement(load_settings(settings_file(home)), car_of(car))
    told = msgspec.to_builtins(found)
    if to is not None:
        _write(to, statement_page(found).encode())
    if parquet is not None:
        _write(parquet, parquet_bytes(statement_table(found)))
    if to is not None or parquet is not None:
        return
    if json:
        print_json(told)
    else:
        _print_statement(told)


@owners.command()
def token(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Sixteen hex digits, as cars were enrolled with.")],
    *,
    cell: Annotated[str, typer.Option(help="The cell whose gateways it opens.")],
    minutes: Annotated[int, typer.Option(help="How long it lives; nothing ends it before.", min=1, max=60)] = 60,
    home: Home = HOME,
) -> None:
    """Print a token with which an owner, whom your portal knows, consents and reads statements at a gateway."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.gateway.identity import token_key
    from fleetbatch.settings import cell_named, load_settings

    settings = load_settings(settings_file(home))
    key = token_key(settings.deployment_key, cell_named(settings, cell).name, "owner")
    typer.echo(key.token(owner_of(owner), expires_at=datetime.now(UTC) + timedelta(minutes=minutes)))


@owners.command()
def tariff(
    car: Annotated[str, typer.Argument(metavar="CAR", help="Sixteen hex digits.")],
    per_kwh: Annotated[float, typer.Argument(metavar="CREDITS", help="What the owner pays for a kWh.", min=0)],
    *,
    home: Home = HOME,
) -> None:
    """Keep what an owner pays for energy; leases that are granted from now on are paid by it."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.credits import set_tariff

    cell = set_tariff(load_settings(settings_file(home)), car_of(car), micro_per_kwh=per_kwh * _MICRO)
    typer.echo(f"cell {cell}: car {car} pays {per_kwh:.6f} credits for a kWh from now on")


@credits_app.command()
def terms(
    *,
    per_unit: Annotated[
        float | None, typer.Option(help="Credits for a work unit: .06 s of the reference car.", min=0)
    ] = None,
    wh_per_unit_max: Annotated[float | None, typer.Option(help="Energy paid for a work unit at most.", min=0)] = None,
    per_kwh: Annotated[float | None, typer.Option(help="Credits for a kWh where no tariff is known.", min=0)] = None,
    per_kwh_max: Annotated[float | None, typer.Option(help="Credits for a kWh at most.", min=0)] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Show what is paid, by cell; with an option, change that from now on in every cell and leave the rest."""
    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.credits import change_terms

    micro = {"micro_per_unit": per_unit, "micro_per_kwh": per_kwh, "micro_per_kwh_max": per_kwh_max}
    changes = {name: amount * _MICRO for name, amount in micro.items() if amount is not None}
    if wh_per_unit_max is not None:
        changes["wh_per_unit_max"] = wh_per_unit_max
    found = change_terms(load_settings(settings_file(home)), changes)
    if json:
        print_json({cell: msgspec.to_builtins(one) for cell, one in found.items()})
        return
    for cell, one in found.items():
        work = f"{one.micro_per_unit / _MICRO:.6f} credits a work unit"
        energy = f"energy up to {one.wh_per_unit_max:g} Wh a unit at the owner's tariff"
        bounds = f"{one.micro_per_kwh / _MICRO:.6f} a kWh without one, {one.micro_per_kwh_max / _MICRO:.6f} at most"
        typer.echo(f"cell {cell}: {work}; {energy}, {bounds}; since {one.from_at:%Y-%m-%d %H:%M} UTC")


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


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        summary = f"cannot write {path}: {error.strerror}"
        raise RejectedError(summary) from error
    typer.echo(f"written to {path}")


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
    for lacking in told["unreadable_nights"]:
        console.print(f"night {lacking} {UNREADABLE}", soft_wrap=True)
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
