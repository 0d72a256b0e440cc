"""The gateway's decisions, apart from its sockets."""

import asyncio
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.gateway import openapi
from fleetbatch.gateway.batching import Batcher
from fleetbatch.gateway.driving import driven
from fleetbatch.gateway.hearing import Heard, Rows, Telemetry
from fleetbatch.gateway.identity import token_key
from fleetbatch.gateway.objects import byte_range
from fleetbatch.gateway.rounds import OfferBook
from fleetbatch.gateway.telemetry import _table, signals_table
from fleetbatch.ledger.messages import Offers
from fleetbatch.protocol import PollRequest
from fleetbatch.units import CarId, CellName, RoundId, ShardId

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
KEY = bytes(range(32))
CHARGING = "Vehicle.Powertrain.TractionBattery.Charging"


def held(*offers: tuple[int, int], round_id: int = 1) -> Offers:
    rows = sorted((car, seq, shard) for seq, (car, shard) in enumerate(offers))
    return Offers(
        round_id=RoundId(round_id),
        car_id=np.array([r[0] for r in rows], np.int64),
        seq=np.array([r[1] for r in rows], np.int16),
        shard_id=np.array([r[2] for r in rows], np.int64),
    )


def test_the_kept_openapi_document_is_what_the_code_says() -> None:
    assert openapi.kept().read_text() == openapi.text(), "run: python -m fleetbatch.gateway.openapi"


def test_every_reference_of_the_openapi_document_leads_somewhere() -> None:
    document = openapi.document()
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(document))):
        place = document
        for step in reference.split("/"):
            place = place[step]


@given(who=st.integers(0, (1 << 63) - 1), lasts=st.integers(1, 10_000))
def test_a_token_stands_for_its_bearer_until_it_expires(who: int, lasts: int) -> None:
    key = token_key(KEY, CellName("eu"), "car")
    token = key.token(who, expires_at=NOW + timedelta(seconds=lasts), telemetry=lasts % 2 == 0).encode()
    assert key.bearer(token, now=NOW) == (who, lasts % 2 == 0)
    assert key.bearer(token, now=NOW + timedelta(seconds=lasts)) is None
    for other in (token_key(KEY, CellName("us"), "car"), token_key(KEY, CellName("eu"), "owner")):
        assert other.bearer(token, now=NOW) is None


@given(token=st.binary(max_size=60))
def test_rubbish_is_no_token(token: bytes) -> None:
    assert token_key(KEY, CellName("eu"), "car").bearer(token, now=NOW) is None


def test_every_changed_bit_makes_a_token_worthless() -> None:
    key = token_key(KEY, CellName("eu"), "car")
    token = bytearray(key.token(7, expires_at=NOW + timedelta(minutes=1)).encode())
    for place in range(len(token)):
        changed = bytes([*token[:place], token[place] ^ 3, *token[place + 1 :]])
        assert key.bearer(changed, now=NOW) is None


def test_a_token_that_was_heard_before_is_judged_as_if_it_were_new() -> None:
    key, ends_at = token_key(KEY, CellName("eu"), "car"), NOW + timedelta(minutes=1)
    token = key.token(7, expires_at=ends_at).encode()
    forged = key.token(8, expires_at=ends_at).encode()[:24] + token[24:]
    for _ in range(2):
        assert key.bearer(token, now=NOW) == (7, False)
        assert key.bearer(forged, now=NOW) is None
    assert key.bearer(token, now=NOW, void_until={7: ends_at.timestamp()}) is None
    assert key.bearer(token, now=ends_at) is None


def test_a_car_finds_its_offers_in_the_plans_order() -> None:
    book = OfferBook()
    assert list(book.offers_for(CarId(5))) == []
    book.turn(held((5, 30), (9, 10), (5, 20), ((1 << 63) - 1, 40)))
    assert list(book.offers_for(CarId(5))) == [30, 20]
    assert list(book.offers_for(CarId((1 << 63) - 1))) == [40]
    assert list(book.offers_for(CarId(6))) == []


def test_a_taken_shard_is_offered_to_nobody_and_a_refused_one_not_to_this_car() -> None:
    book = OfferBook()
    book.turn(held((1, 10), (2, 10), (1, 20), (2, 20)))
    book.refused(CarId(1), ShardId(10))
    book.took(ShardId(20))
    assert list(book.offers_for(CarId(1))) == []
    assert list(book.offers_for(CarId(2))) == [10]
    book.freed(ShardId(20))
    assert list(book.offers_for(CarId(1))) == [20]
    book.turn(held((1, 10), round_id=2))
    assert list(book.offers_for(CarId(1))) == [10]


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_a_range_lies_inside_the_object_or_is_refused(size: int, first: int, last: int) -> None:
    data = bytes(size)
    wanted = data[first : last + 1] if first <= last else b""
    span = byte_range(f"bytes={first}-{last}", size)
    assert (len(wanted) == span[1] - span[0]) if span else not wanted


class Counted:
    """A call that answers each question with its double, and remembers its batches."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.error = error or ValueError("unlucky")

    def __call__(self, questions: list[int]) -> Sequence[int]:
        self.batches.append(questions)
        if 13 in questions:
            raise self.error
        return [2 * q for q in questions]


async def ask(batcher: Batcher[int, int], question: int) -> int:
    """Ask as an endpoint does."""

    async def endpoint() -> int:
        return await batcher.ask(question)

    return await driven(endpoint())


def asked(questions: Sequence[int], call: Counted, *, about: int = 1000) -> list[object]:
    async def ask_all() -> list[object]:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(
                call, lambda q: q % about, executor=executor, gather_s=lambda: 0.001, batch_max=50
            )
            return await asyncio.gather(*(ask(batcher, q) for q in questions), return_exceptions=True)

    return asyncio.run(ask_all())


def test_questions_of_one_moment_share_a_call_and_each_gets_its_own_answer() -> None:
    call = Counted()
    assert asked(range(14, 114), call) == [2 * q for q in range(14, 114)]
    assert [len(batch) for batch in call.batches] == [50, 50]


def test_two_questions_about_one_thing_never_share_a_call_and_keep_their_order() -> None:
    call = Counted()
    asked([1, 11, 21, 2, 3], call, about=10)
    assert call.batches == [[1, 2, 3], [11], [21]]


@pytest.mark.parametrize("error", [TransientError("away"), RejectedError("set up wrongly"), psycopg.InternalError()])
def test_an_error_of_the_ledger_is_the_answer_to_all_in_the_call_and_the_next_call_is_made(error: Exception) -> None:
    call = Counted(error)
    assert asked([13, 1, 11], call, about=10) == [error, error, 22]
    assert call.batches == [[13, 1], [11]]


@pytest.mark.parametrize("error", [ValueError("unlucky"), psycopg.DataError(), psycopg.IntegrityError()])
def test_a_question_that_spoils_a_call_is_answered_alone_and_those_beside_it_as_ever(error: Exception) -> None:
    call = Counted(error)
    assert asked(range(50), call) == [error if q == 13 else 2 * q for q in range(50)]
    assert len(call.batches) <= 2 * 6 + 1, "as many as it takes to find it"


def test_an_answer_or_an_error_is_handed_on_without_anybody_waiting() -> None:
    told: list[object] = []

    async def put_all() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(
                Counted(), lambda q: q % 10, executor=executor, gather_s=lambda: 0.0, batch_max=50
            )
            for question in (1, 2, 13, 3):
                batcher.put(question, told.append)
            await ask(batcher, 33)  # about the same as 3 and 13, and so after both

    asyncio.run(put_all())
    assert [type(one) for one in told] == [int, int, ValueError, int]
    assert told[3] == 6


def test_a_caller_that_left_does_not_disturb_the_others() -> None:
    gate = threading.Event()

    def slow(questions: list[int]) -> list[int]:
        gate.wait(5)
        return questions

    async def ask_both() -> int:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(
                slow, lambda q: q, executor=executor, gather_s=lambda: 0.0, batch_max=50
            )
            gone, stays = asyncio.create_task(ask(batcher, 1)), asyncio.create_task(ask(batcher, 2))
            await asyncio.sleep(0.02)
            gone.cancel()
            gate.set()
            return await stays

    assert asyncio.run(ask_both()) == 2


@pytest.mark.parametrize("text", ["", "bytes", "bytes=", "bytes=a-b", "items=0-1", "bytes=1-2-3", "bytes=" + "9" * 30])
def test_what_is_not_a_range_is_refused(text: str) -> None:
    assert byte_range(text, 10) is None


# -- what cars say

HARDWARE = {
    "hardware_class": "orin",
    "provider": "CPUExecutionProvider",
    "threads": 2,
    "memory_bytes": 1 << 30,
    "runner_version": "0.1.0",
    "power_w": 60,
}
SAID = st.fixed_dictionaries(
    {
        "signals": st.dictionaries(
            st.sampled_from(["Vehicle.Speed", f"{CHARGING}.IsCharging", "Vehicle.Unknown"]),
            st.one_of(st.none(), st.booleans(), st.floats(-1e9, 1e9), st.integers(0, 9), st.sampled_from(["", "fast"])),
        ),
        "hardware": st.just(HARDWARE),
        "willing": st.booleans(),
    },
    optional={
        "unwilling_reason": st.sampled_from(["", "too_hot"]),
        "cached_models": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "reserve_soc": st.floats(0, 1),
        "departure_at": st.sampled_from([None, "tomorrow", "2026-11-23T07:00:00+01:00"]),
        "mood": st.just("good"),
    },
)


def kept(heard: Sequence[Heard]) -> Rows:
    telemetry = Telemetry(1 << 20)
    for row in heard:
        telemetry.hear(*row)
    return telemetry.take()


@settings(max_examples=100, deadline=None)
@given(said=st.lists(SAID, min_size=1, max_size=4))
def test_a_row_of_telemetry_is_the_same_whoever_says_nonsense_beside_it(said: list[dict[str, Any]]) -> None:
    heard = [Heard(CarId(n), NOW, json.dumps(one).encode()) for n, one in enumerate(said)]
    table = signals_table(kept(heard))
    assert table.equals(pa.concat_tables([signals_table(kept([one])) for one in heard]))
    for row, one in zip(table.to_pylist(), said, strict=True):
        meant = msgspec.convert(one, PollRequest, strict=False)
        assert (row["willing"], row["reserve_soc"]) == (meant.willing, meant.reserve_soc)
        assert (row["unwilling_reason"] or "", row["cached_models"]) == (meant.unwilling_reason, meant.cached_models)
        speed, charging = one["signals"].get("Vehicle.Speed"), one["signals"].get(f"{CHARGING}.IsCharging")
        assert row["Vehicle.Speed"] == (speed if type(speed) in {int, float} else None)
        assert row[f"{CHARGING}.IsCharging"] == (charging if isinstance(charging, bool) else None)


def test_a_row_that_no_table_can_hold_costs_only_itself() -> None:
    said = [json.dumps({"signals": {}, "hardware": HARDWARE, "willing": True}).encode()] * 5
    said[3] = b"{"
    table = signals_table(kept([Heard(CarId(n), NOW, one) for n, one in enumerate(said)]))
    assert table["car_id"].to_pylist() == [0, 1, 2, 4]


def test_a_car_that_leaves_out_what_has_a_usual_value_is_read_without_mending_all_beside_it() -> None:
    line = json.dumps({"signals": {}, "hardware": HARDWARE, "willing": True}).encode()
    [row] = _table([1], [NOW], line).to_pylist()
    assert (row["reserve_soc"], row["link_down_bytes_per_s"]) == (0.2, 0)
    assert (row["cached_models"], row["workloads"]) == ([], [])
