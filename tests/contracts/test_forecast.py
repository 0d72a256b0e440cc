"""What a night's forecast is read from."""

from datetime import timedelta
from pathlib import Path

from deployments import deployed
from ledger_nights import frozen_order
from planner_tables import NOW, car, cars

from fleetbatch import layout
from fleetbatch.contracts import empty
from fleetbatch.ledger.postgres import PostgresLedger
from fleetbatch.local.postgres import Postgres
from fleetbatch.planner import keep
from fleetbatch.settings import load_settings
from fleetbatch.steps.forecast import free_hours_by_cell
from fleetbatch.store import open_store
from fleetbatch.units import CellName, RoundId

EU = CellName("eu-1")


def test_a_forecast_is_of_the_ledgers_own_newest_round_and_of_no_older_nights(
    tmp_path: Path, postgres: Postgres
) -> None:
    with deployed(tmp_path, postgres) as file:
        settings, order = load_settings(file), frozen_order().order
        store = open_store(settings.store, deployment_key=settings.deployment_key)
        eu, us = settings.cells
        with PostgresLedger.open(eu.ledger_url) as ledger, PostgresLedger.open(us.ledger_url) as other:
            ledgers = {EU: ledger, us.name: other}
            crowd = {"cars": cars(car(1), car(2), car(3))}
            keep(store, EU, layout.round_name(NOW - timedelta(days=1), RoundId(9)), crowd, rounds_kept=500)
            assert free_hours_by_cell(settings, store, ledgers, order)[EU] is None

            lock = ledger.lock_planner(EU)
            assert lock is not None
            tonight = layout.round_name(NOW, ledger.write_round(lock, empty("assignments"), {}))
            assert free_hours_by_cell(settings, store, ledgers, order)[EU] is None
            keep(store, EU, tonight, {"cars": cars()}, rounds_kept=500)
            assert free_hours_by_cell(settings, store, ledgers, order)[EU] == 0.0
