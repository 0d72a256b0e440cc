"""What a batch says arrives in PostgreSQL as it was said."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.ledger.literals import array_literal, with_literals

TYPES: dict[str, st.SearchStrategy[Any]] = {
    "bigint": st.integers(-(1 << 63), (1 << 63) - 1),
    "double precision": st.floats(allow_nan=False),
    "text": st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    "bytea": st.binary(),
    "interval": st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    "date": st.dates(date(1, 1, 1)),
    "timestamptz": st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 # hypothesis wants bounds without a zone
}


@pytest.fixture(scope="module")
def connection(ledger_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(ledger_database, autocommit=True) as one:
        yield one


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_value_comes_back(connection: psycopg.Connection[Any], kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(TYPES[kind], min_size=1, max_size=8))
    literal = array_literal(values)
    assert literal is not None
    row = connection.execute(f"SELECT %s::{kind}[]", [literal]).fetchone()
    assert row is not None
    assert row[0] == values


@pytest.mark.parametrize("values", [[], [1, None], [1, 1.0], [True], [object()]])
def test_what_is_not_plain_is_left_to_the_driver(values: list[Any]) -> None:
    assert array_literal(values) is None
    assert with_literals({"x": values, "y": 1}) == {"x": values, "y": 1}
