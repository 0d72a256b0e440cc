"""A cell with a dispatcher, what its cars said, and what it offers them."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
from ledger_nights import Cell, frozen_order
from signal_rows import signals
from turned_clock import migrate_with_turned_clock

from fleetbatch import layout
from fleetbatch.dispatcher import Dials, Dispatcher
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.planner import explain
from fleetbatch.store import Store, open_store
from fleetbatch.units import CellName, RoundId, RoundName

EU = CellName("eu-1")


class Scene:
    """A cell with a dispatcher, a store in which cars' words lie, and the clock of the wall."""

    def __init__(self, url: str, folder: Path, ledger: PostgresLedger) -> None:
        migrate_with_turned_clock(url)
        self.cell = Cell(ledger)
        ledger.turn_clock(None)
        self.url = url
        self.store: Store = open_store(folder.as_uri(), deployment_key=bytes(32))
        self.now = datetime.now(UTC)
        self.dispatcher = Dispatcher(EU, ledger, self.store, Dials())

    def say(self, *words: dict[str, object]) -> None:
        """Write what cars said, as a gateway would."""
        sink = io.BytesIO()
        pq.write_table(signals(*words), sink)
        self.store.write(layout.telemetry(EU, f"g{self.now:%S%f}", self.now), sink.getvalue())

    def round(self) -> RoundId | None:
        """Let a second pass and run a round."""
        self.now += timedelta(seconds=1)
        return self.dispatcher.run_round(now=self.now)

    def offers(self, round_id: RoundId | None) -> dict[int, list[int]]:
        """Return each car's queue as gateways see it."""
        assert round_id is not None
        offers = self.cell.ledger.offers(round_id)
        queues: dict[int, list[int]] = {}
        for car_id, shard_id in zip(offers.car_id.tolist(), offers.shard_id.tolist(), strict=True):
            queues.setdefault(car_id, []).append(shard_id)
        return queues

    def forecast(self, round_id: RoundId | None) -> tuple[dict[str, int], str]:
        """Return how many cars each level forecast in a round, and why that level, as the ledger keeps it."""
        stats = self.stats(round_id)
        return stats["forecast"], stats["forecast_reason"]

    def stats(self, round_id: RoundId | None) -> dict[str, Any]:
        """Return what the ledger keeps of a round."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT stats FROM fleetbatch.rounds WHERE round_id = %s", [round_id]).fetchone()
        assert row is not None
        found: dict[str, Any] = row[0]
        return found

    def newest_stored(self) -> RoundName:
        """Return the name of the round that was stored last."""
        return list(layout.by_round(EU, self.store.keys(layout.rounds(EU))))[-1]

    def planned(self) -> list[dict[str, Any]]:
        """Return the assignments of the newest round, as kept."""
        newest = self.newest_stored()
        assert layout.round_number(newest) == self.cell.ledger.latest_round()
        kept = self.store.read(layout.round_table(EU, newest, "assignments"))
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(kept)).to_pylist()
        return rows


def explained(scene: Scene, wanted: int) -> tuple[str, ...]:
    """Return what the newest stored round says of a shard or a car."""
    return explain(scene.store, EU, scene.newest_stored(), wanted)


def open_shards(scene: Scene, *ids: int) -> None:
    frozen = replace(frozen_order(), deadline_at=scene.now + timedelta(hours=10))
    scene.cell.open(dict.fromkeys(ids, (50, 50)), frozen)
