"""Every object key, in one file. Pure: keys follow from content or night, so running twice is running once."""

from collections.abc import Iterable
from datetime import datetime

from fleetbatch.nouns import OrderKey
from fleetbatch.units import CellName, LeaseId, OrderName, RoundId, RoundName, Sha256, ShardId, shard_hex


def _night(key: OrderKey) -> str:
    return f"nights/{key.night}/{key.order}/g{key.generation}"


def order(key: OrderKey) -> str:
    """The frozen order, created once."""
    return f"{_night(key)}/order.json"


def manifest(key: OrderKey) -> str:
    """One row per shard, created once, after the last shard file."""
    return f"{_night(key)}/manifest.parquet"


def sources(key: OrderKey) -> str:
    """item_id to source_uri; joined at merge, never sent to a car."""
    return f"{_night(key)}/sources.parquet"


def shard(key: OrderKey, shard_id: ShardId) -> str:
    """One sealed Parquet file."""
    return f"{_night(key)}/shards/{shard_hex(shard_id)}.parquet"


def part(key: OrderKey, shard_id: ShardId, lease: LeaseId, start: int, stop: int, sha256: Sha256) -> str:
    """The answers of row groups [start, stop) of a shard, from one lease; other bytes lie under another key."""
    return f"{_night(key)}/parts/{shard_hex(shard_id)}/{start:05d}-{stop:05d}-{lease}-{sha256[:16]}.parquet"


def staged(key: OrderKey, name: str) -> str:
    """A result file that is merged and not yet published."""
    return f"{_night(key)}/staging/{name}"


def forgettable(key: OrderKey) -> tuple[str, ...]:
    """What nobody needs any more some time after a night is published, as prefixes."""
    return tuple(f"{_night(key)}/{folder}/" for folder in ("shards", "parts", "staging"))


def profile(key: OrderKey) -> str:
    """One row per shard: what the checks saw."""
    return f"{_night(key)}/profile.parquet"


def verdict(key: OrderKey) -> str:
    """What Great Expectations said of the profile, as JSON."""
    return f"{_night(key)}/verdict.json"


def missing(key: OrderKey) -> str:
    """The rows that no one computed, with the reason; made by merge."""
    return f"{_night(key)}/missing.parquet"


def summary(key: OrderKey) -> str:
    """The night's summary as JSON; written last."""
    return f"{_night(key)}/summary.json"


def report(key: OrderKey, name: str = "index.html") -> str:
    """A page for people."""
    return f"{_night(key)}/report/{name}"


def bundle(sha256: Sha256) -> str:
    """A model bundle under its own hash."""
    return f"bundles/{sha256}.zip"


def table(order_name: OrderName) -> str:
    """The Delta table of an order, partitioned by night."""
    return f"tables/{order_name}/results"


def nights(order_name: OrderName) -> str:
    """One row per published night, replaced atomically beside the table."""
    return f"tables/{order_name}/nights.parquet"


def missing_rows(order_name: OrderName) -> str:
    """Every missing row of every published night, replaced atomically beside the table."""
    return f"tables/{order_name}/missing_rows.parquet"


def kept_beside(order_name: OrderName, name: str, sha256: Sha256) -> str:
    """A version of `nights` or `missing_rows` under its own hash, there before the commit that names the hash."""
    return f"tables/{order_name}/beside/{name}-{sha256}.parquet"


def telemetry(cell: CellName, gateway: str, at: datetime) -> str:
    """The signals that one gateway heard in one minute."""
    return f"cells/{cell}/telemetry/{at:%Y-%m-%d}/{at:%H%M}-{gateway}.parquet"


def telemetry_day(cell: CellName, day: str) -> str:
    """Where the signals of a day (UTC) lie."""
    return f"cells/{cell}/telemetry/{day}/"


def round_name(at: datetime, round_id: RoundId) -> RoundName:
    """What a round is stored as; names are in the order of time, also when a new ledger counts from 1 again."""
    return RoundName(f"{at:%Y%m%dT%H%M%SZ}-{round_id:010d}")


def round_number(name: RoundName) -> RoundId:
    """Return the number that its ledger gave a round; names from before they began with the time are numbers only."""
    return RoundId(int(name.rpartition("-")[2]))


def round_table(cell: CellName, name: RoundName, table: str) -> str:
    """A table of a round, kept so that `why` can be answered: cars, shards, assignments, unassigned, certificate."""
    return f"{rounds(cell)}{name}/{table}.parquet"


def energy(cell: CellName) -> str:
    """What electricity costs and emits in the cell's zones; replaced atomically."""
    return f"cells/{cell}/energy.parquet"


def stays(cell: CellName, day: str) -> str:
    """Closed stays by the day (UTC) on which they ended."""
    return f"cells/{cell}/stays/day={day}/stays.parquet"


def open_stays(cell: CellName, day: str) -> str:
    """The stays that went on at the end of a day (UTC)."""
    return f"cells/{cell}/windows/open/{day}.parquet"


def stays_days(cell: CellName) -> str:
    """Where the days of closed stays lie."""
    return f"cells/{cell}/stays/"


def open_stays_days(cell: CellName) -> str:
    """Where the days of open stays lie."""
    return f"cells/{cell}/windows/open/"


def windows_models(cell: CellName) -> str:
    """Where the cell's windows models lie, by the day on which they were learnt."""
    return f"cells/{cell}/windows/models/"


def windows_model(cell: CellName, day: str, sha256: Sha256) -> str:
    """A windows model under its day and hash."""
    return f"{windows_models(cell)}{day}-{sha256}.zip"


def windows_states(cell: CellName) -> str:
    """Where the daily states lie."""
    return f"cells/{cell}/windows/state/"


def windows_state(cell: CellName, day: str) -> str:
    """Calibration, thresholds and level from a day on, as JSON."""
    return f"{windows_states(cell)}{day}.json"


def windows_inputs(cell: CellName) -> tuple[str, ...]:
    """Where everything lies that a cell's forecasts follow from, as prefixes."""
    return (stays_days(cell), open_stays_days(cell), windows_states(cell), windows_models(cell))


def windows_page(cell: CellName, day: str) -> str:
    """The day's page: were the promises kept."""
    return f"cells/{cell}/windows/pages/{day}.html"


def telemetry_days(cell: CellName) -> str:
    """Where the days of a cell's telemetry lie."""
    return f"cells/{cell}/telemetry/"


def rounds(cell: CellName) -> str:
    """Where the rounds of a cell lie, by their name."""
    return f"cells/{cell}/rounds/"


def by_round(cell: CellName, keys: Iterable[str]) -> dict[RoundName, list[str]]:
    """Part the keys of a cell's stored rounds by round, the oldest round first."""
    found: dict[RoundName, list[str]] = {}
    for key in keys:
        found.setdefault(RoundName(key.removeprefix(rounds(cell)).split("/")[0]), []).append(key)
    return dict(sorted(found.items()))


def archives(cell: CellName, table: str) -> str:
    """Where a table of the ledger lies, night by night."""
    return f"cells/{cell}/archive/{table}/"


def archive(cell: CellName, table: str, night: str, sha256: Sha256, footer_sha256: Sha256) -> str:
    """A night's rows of a table of the ledger, as a Parquet file under its hash and that of its footer.

    After a forced rerun a night is archived once more.
    """
    return f"{archived(cell, table, night)}{sha256[:16]}-{footer_sha256[:16]}.parquet"


def archive_hashes(key: str) -> tuple[str, str]:
    """Return the first digits of an archive's hashes; of the footer none, when it is from before keys told it."""
    sha256, _, footer_sha256 = key.rpartition("/")[2].removesuffix(".parquet").partition("-")
    return sha256, footer_sha256


def archived_night(key: str) -> str:
    """Return which night's rows an archive holds."""
    return key.rpartition("/")[0].rpartition("night=")[2]


def archived(cell: CellName, table: str, night: str) -> str:
    """Where a night's rows of a table of the ledger lie."""
    return f"{archives(cell, table)}night={night}/"
