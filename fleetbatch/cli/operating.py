"""`fleetbatch order pause|resume|cancel|recall NAME NIGHT`: people's hands on a night that runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetbatch.cli.orders import orders
from fleetbatch.cli.show import print_facts

__all__ = ["orders"]  # with the commands below

if TYPE_CHECKING:
    from fleetbatch.steps.operating import Verb

Name = Annotated[str, typer.Argument(metavar="NAME", help="The order's name.")]
NightOf = Annotated[str, typer.Argument(metavar="NIGHT", help="YYYY-MM-DD; its newest generation is meant.")]
Why = Annotated[str, typer.Option("--why", help="The reason; missing rows are named with it.")]
Home = Annotated[
    Path,
    typer.Option(help="Where the laptop's deployment keeps its store, keys and logs.", envvar="FLEETBATCH_HOME"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
HOME = Path(".fleetbatch")


@orders.command()
def pause(name: Name, night: NightOf, *, home: Home = HOME, json: Json = False) -> None:
    """Give out no more of an order; what cars hold runs on, and what they deliver counts."""
    _operate("pause", name, night, "", home=home, json=json)


@orders.command()
def resume(name: Name, night: NightOf, *, home: Home = HOME, json: Json = False) -> None:
    """Give out a paused order's shards again."""
    _operate("resume", name, night, "", home=home, json=json)


@orders.command()
def cancel(name: Name, night: NightOf, why: Why, *, home: Home = HOME, json: Json = False) -> None:
    """Compute no more of an order, for good; what is valid by then is published, everything else is named missing."""
    _operate("cancel", name, night, why, home=home, json=json)


@orders.command()
def recall(name: Name, night: NightOf, why: Why, *, home: Home = HOME, json: Json = False) -> None:
    """Cancel an order and publish nothing of it, not even what is valid; owners keep what they earned."""
    _operate("recall", name, night, why, home=home, json=json)


def _operate(verb: "Verb", name: str, night: str, why: str, *, home: Path, json: bool) -> None:
    import dataclasses

    from fleetbatch.cli.commands import settings_file
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.operating import operate_order

    done = operate_order(load_settings(settings_file(home)), verb, name, night, reason=why)
    if json:
        print_facts({"order": str(done.key), "did": verb, **dataclasses.asdict(done.counts)}, json=True)
    else:
        typer.echo(done.line())
