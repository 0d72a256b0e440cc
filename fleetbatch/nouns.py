"""The nouns that several rooms share; each room keeps its own beside its code."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from fleetbatch.errors import RejectedError
from fleetbatch.units import MIB, CellName, Night, OrderName, Sha256

DataClass = Literal["open", "confidential", "pseudonymous", "personal"]
"""How close an order's data is to somebody; what is above `open` needs a consent of its own."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class OrderKey:
    """One computation of one order for one night; a forced rerun is the next generation."""

    night: Night
    order: OrderName
    generation: int

    def __str__(self) -> str:
        """Return "2026-11-22/overnight/g1", the form in which keys travel between tasks."""
        return f"{self.night}/{self.order}/g{self.generation}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `str` made; raise RejectedError for anything else."""
        match text.split("/"):
            case [night, order, generation] if generation[:1] == "g" and generation[1:].isdigit():
                return cls(night=Night(night), order=OrderName(order), generation=int(generation[1:]))
            case _:
                summary = f"{text!r} is not an order key; expected NIGHT/ORDER/gN, such as 2026-11-22/overnight/g1"
                raise RejectedError(summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """Dials of the cut (design: 20 minutes of reference work, at most 32 MiB, row groups of 4 MiB)."""

    shard_rows: int = 20_000
    shard_bytes: int = 32 * MIB
    row_group_rows: int = 2_000
    row_group_bytes: int = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """Dials of the audit (design/trust: 8 secretly chosen rows of every 1,000-row shard)."""

    rows_per_1000: int = 8
    rows_min: int = 2
    attempts_max: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants computed every night, after validation.

    `source` is a folder, a file list or a generator's name; `model` is a bundle's path; `region` is a region
    of the cells or "any"; `priority` is 0 (highest) to 2.
    """

    name: OrderName
    workload: str
    source: str
    model: str
    region: str
    priority: int
    deadline_hours: float
    data_class: str
    schedule: str
    timezone: str
    cutting: Cutting
    auditing: Auditing
    options: tuple[tuple[str, str], ...] = ()
    """What only the workload understands, for instance the generator's seed and count."""
    lane: Literal["cars", "cloud"] = "cars"
    """`cloud`: trusted machines compute it from the start, no car sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenOrder:
    """An order at the moment its night began: from here on nothing about it changes."""

    key: OrderKey
    order: Order
    model_sha256: Sha256
    frozen_at: datetime
    deadline_at: datetime
    secret_wrapped: bytes
    """32 random bytes from which each shard's key follows, wrapped (RFC 3394) by the deployment's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A region's slice of the fleet: one database, one prefix, gateways, one dispatcher."""

    name: CellName
    region: str
    ledger_url: str
    gateway_ledger_url: str
    gateway_url: str
    timezone: str = "UTC"
    """IANA name of the clock that its cars live by."""
    energy_zone: str = ""
    """Whose rows of contract `energy` hold for its cars; without one work costs no energy."""
    carbon_per_tonne: float = 0.0
    """What a tonne of CO2 is worth avoiding, in the currency of the energy's price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A result file that is merged and not yet published."""

    name: str
    """`<token>-<n>.parquet`, the same before and after it is published."""
    key: str
    rows: int
    size_bytes: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge made of a night: its files and its balance, rows_in = rows_out + dead letters + missing rows."""

    key: str
    token: str
    """Follows from the parts merged: the same parts give the same files under the same names."""
    files: tuple[StagedFile, ...]
    missing_sha256: Sha256
    """Of the file of missing rows, beside the staged ones."""
    shards: int
    rows_in: int
    rows_out: int
    dead_letter_rows: int
    missing_rows: int
    answers: int
    """Rows of the files: as many as items are answered, or more where an item has several answers."""
