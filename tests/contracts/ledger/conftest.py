"""Each test finds an empty cell, and what must never be is looked for after each."""

from collections.abc import Iterator

import pytest
from ledger_nights import Cell, open_cell
from ledger_sound import assert_sound, wipe
from turned_clock import migrate_with_turned_clock

from fleetbatch.local.postgres import Postgres, fresh_database


@pytest.fixture(scope="session")
def ledger_database(postgres: Postgres) -> Iterator[str]:
    with fresh_database(postgres) as url:
        migrate_with_turned_clock(url)
        yield url


@pytest.fixture
def cell_url(ledger_database: str) -> str:
    wipe(ledger_database)
    return ledger_database


@pytest.fixture
def cell(cell_url: str) -> Iterator[Cell]:
    with open_cell(cell_url) as cell:
        yield cell
    assert_sound(cell_url)
