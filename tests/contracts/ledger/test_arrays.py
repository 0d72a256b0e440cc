"""Rows come out of PostgreSQL as they went in: any number of them, in the statement's order, and none left out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fleetbatch.ledger.arrays import copy_in, copy_out
from fleetbatch.ledger.messages import LedgerDials
from fleetbatch.ledger.pool import Connection, Pool

IN = {"day": "i4", "round_id": "i8", "car_id": "i8", "shard_id": "i8", "seq": "i2"}
OUT = {"car_id": "i8", "shard_id": "i8", "seq": "i2"}
ROUND = {"day": "2000-01-10", "round_id": 1}


@pytest.fixture
def connection(ledger_database: str) -> Iterator[Connection]:
    """Give a connection that has a table of offers of its own, without constraints."""
    connection = Pool(ledger_database, LedgerDials()).connect()
    connection.execute(
        "CREATE TEMPORARY TABLE offers (day date, round_id bigint, car_id bigint, shard_id bigint, seq smallint)"
    )
    yield connection
    connection.close()


def offer(connection: Connection, rows: int) -> dict[str, npt.NDArray[Any]]:
    ids = np.arange(rows, dtype="i8")
    offers = {"car_id": rows // 2 - ids, "shard_id": ids << 40, "seq": (ids % 3 - 1).astype("i2")}
    copy_in(connection, "copy_offers", {"day": np.full(rows, 9), "round_id": np.ones(rows, "i8"), **offers}, IN)
    return offers


@pytest.mark.parametrize("rows", [0, 1, 65_536, 65_537, 150_000])
def test_a_round_of_any_size_comes_back_in_its_order(connection: Connection, rows: int) -> None:
    written = offer(connection, rows)
    read = copy_out(connection, "offers", ROUND, OUT)
    assert [str(values.dtype) for values in read.values()] == ["int64", "int64", "int16"]
    assert all(np.array_equal(read[name], values) for name, values in written.items())


def test_a_row_that_holds_a_null_is_not_left_out_in_silence(connection: Connection) -> None:
    offer(connection, 3)
    connection.execute("UPDATE offers SET seq = NULL WHERE car_id = 0")
    with pytest.raises(AssertionError, match="holds a null"):
        copy_out(connection, "offers", ROUND, OUT)
