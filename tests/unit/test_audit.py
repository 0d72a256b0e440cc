"""Which rows are computed again, when trusted machines take over, and how a stranger's file is opened."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetbatch.audit.choice import audit_seed, choose_rows, judge, refuse
from fleetbatch.audit.delivered import Limits, NotAPart, PartReader, form_problem
from fleetbatch.audit.lane import Lane, due_before
from fleetbatch.contracts import contract
from fleetbatch.nouns import Auditing
from fleetbatch.sealing import shard_key
from fleetbatch.units import MIB, LeaseId, ShardId

SECRET = bytes(range(32))
NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
SEED = audit_seed(SECRET, ShardId(5), LeaseId("lease"))


@given(rows=st.sets(st.integers(0, 10**6), max_size=300), share=st.integers(0, 100), least=st.integers(0, 9))
def test_chosen_rows_are_rows_of_the_lease_and_at_least_as_many_as_wanted(
    rows: set[int], share: int, least: int
) -> None:
    chosen = choose_rows(SEED, sorted(rows), Auditing(rows_per_1000=share, rows_min=least))
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= rows
    assert len(chosen) == min(len(rows), max(least, -(-len(rows) * share // 1000)))


def test_the_same_lease_is_audited_by_the_same_rows_whatever_their_order() -> None:
    assert choose_rows(SEED, range(1000), Auditing()) == choose_rows(SEED, range(999, -1, -1), Auditing())


def test_another_lease_another_shard_or_another_secret_chooses_other_rows() -> None:
    seeds = [
        SEED,
        audit_seed(SECRET, ShardId(5), LeaseId("another")),
        audit_seed(SECRET, ShardId(6), LeaseId("lease")),
        audit_seed(bytes(32), ShardId(5), LeaseId("lease")),
    ]
    assert len({choose_rows(seed, range(1000), Auditing()) for seed in seeds}) == 4


def test_the_key_that_a_car_is_given_says_nothing_of_the_seed() -> None:
    assert shard_key(SECRET, ShardId(5)) not in SEED
    assert choose_rows(shard_key(SECRET, ShardId(5)), range(1000), Auditing()) != choose_rows(
        SEED, range(1000), Auditing()
    )


def test_every_row_is_as_likely_as_any_other() -> None:
    hits = [0] * 20
    for number in range(3000):
        seed = hashlib.sha256(b"%d" % number).digest()
        for row in choose_rows(seed, range(20), Auditing(rows_per_1000=0, rows_min=2)):
            hits[row] += 1
    assert all(240 < count < 360 for count in hits)  # 300 expected, 17 is a standard deviation


def test_one_disagreement_refuses_and_says_which_row_and_why() -> None:
    assert judge(["a", "b"], []).passed
    judged = judge(["a", "b"], [("b", "'red' scores 0.9, ours 0.2")])
    assert not judged.passed
    assert judged.detail == "b: 'red' scores 0.9, ours 0.2"


def test_a_row_that_is_answered_otherwise_each_time_confirms_nothing_and_refuses_nobody() -> None:
    moody = ("b", "share is 0.1, ours is 0.2")
    excused = judge(["a", "b"], [moody], [moody])
    assert (excused.passed, excused.audited_items, excused.disagreements) == (True, ("a",), 0)
    assert excused.detail == "b is answered otherwise each time: share is 0.1, ours is 0.2"
    wrong = judge(["a", "b"], [("a", "words is 7, ours is 2"), moody], [moody])
    assert (wrong.passed, wrong.disagreements) == (False, 1)
    assert wrong.detail.startswith("a: words is 7, ours is 2; b is answered otherwise")


def test_a_file_that_is_no_part_disagrees_in_every_row_that_was_to_be_confirmed() -> None:
    judged = refuse([f"problem {number}" for number in range(7)], ["a", "b"])
    assert (judged.passed, judged.disagreements) == (False, 2)
    assert judged.detail.endswith("and 2 more")
    assert refuse(["broken"]).disagreements == 1


def open_shards(*shards: tuple[float, int, int]) -> pa.Table:
    """Shards of 100 rows in 10 row groups: hours until the deadline, row groups delivered, how many of them."""
    rows = [
        {
            "deadline_at": NOW + timedelta(hours=hours),
            "workload": "image",
            "rows": 100,
            "row_groups": 10,
            "done_through": done,
        }
        for hours, done, count in shards
        for _ in range(count)
    ]
    types = {
        "deadline_at": pa.timestamp("us", tz="UTC"),
        "workload": pa.string(),
        "rows": pa.int32(),
        "row_groups": pa.int16(),
        "done_through": pa.int16(),
    }
    return pa.Table.from_pylist(rows, pa.schema([pa.field(name, kind) for name, kind in types.items()]))


LANE = Lane(safety=1.5, margin=timedelta(minutes=5), rows_per_s_unmeasured=1.0)


def test_nothing_is_due_while_trusted_machines_could_still_do_it_all_in_time() -> None:
    assert due_before(open_shards((1, 0, 10)), {"image": 1.0}, 1, LANE, now=NOW) == NOW
    assert due_before(open_shards(), {}, 1, LANE, now=NOW) == NOW


def test_an_order_is_due_when_the_time_that_is_left_is_the_time_it_takes() -> None:
    deadline = NOW + timedelta(hours=1)
    assert due_before(open_shards((1, 0, 22)), {"image": 1.0}, 1, LANE, now=NOW) == deadline
    assert due_before(open_shards((1, 0, 22)), {"image": 1.0}, 2, LANE, now=NOW) == NOW
    assert due_before(open_shards((1, 0, 22)), {"image": 2.0}, 1, LANE, now=NOW) == NOW
    assert due_before(open_shards((1, 0, 22)), {}, 1, LANE, now=NOW) == deadline


def test_what_cars_have_delivered_needs_no_trusted_machine() -> None:
    assert due_before(open_shards((1, 5, 22)), {"image": 1.0}, 1, LANE, now=NOW) == NOW


def test_a_later_order_is_due_too_when_the_earlier_one_takes_its_time() -> None:
    both = open_shards((2, 0, 20), (4, 0, 75))
    assert due_before(both, {"image": 1.0}, 1, LANE, now=NOW) == NOW + timedelta(hours=4)
    assert due_before(open_shards((4, 0, 75)), {"image": 1.0}, 1, LANE, now=NOW) == NOW


def test_a_lane_of_the_last_hour_leaves_the_night_to_the_cars() -> None:
    last = replace(LANE, last=timedelta(hours=1))
    for hours in (1, 2):
        due = due_before(open_shards((hours, 0, 1000)), {"image": 1.0}, 1, last, now=NOW)
        assert due == (NOW + timedelta(hours=1) if hours == 1 else NOW)


@pytest.fixture(scope="module")
def reader() -> Iterator[PartReader]:
    reader = PartReader(Limits(memory_bytes=768 * MIB, seconds=20))
    yield reader
    reader.close()


def answers(rows: int = 4, **changed: Any) -> list[dict[str, Any]]:
    row = {"row_group": 0, "label": "red", "score": 0.5, "labels": ["red"], "scores": [0.5], "error": None}
    return [{"item_id": f"item-{number}"} | row | changed for number in range(rows)]


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def as_contract(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=contract("answers_image").schema)


def problems(found: pa.Table | NotAPart) -> str:
    assert isinstance(found, NotAPart)
    return "; ".join(found.problems)


def test_an_honest_part_comes_out_as_it_went_in(reader: PartReader) -> None:
    table = as_contract(answers())
    assert reader.read(parquet(table), "answers_image", 4) == table


@pytest.mark.parametrize(
    ("rows", "said", "why"),
    [
        (answers(), 5, "holds 4 rows, 5 were said"),
        (answers(label="x" * 9000), 4, "text of 9000 bytes"),
        (answers(labels=["x"] * 3000), 4, "list of 3000 items"),
        (answers(labels=["x" * 9000]), 4, "text of 9000 bytes"),
        (answers(x=1), 4, "column 'x' is not in contract"),
        (answers(score="much"), 4, "'score' is string"),
        (answers(row_group=None), 4, "4 nulls"),
    ],
)
def test_a_part_that_breaks_the_contract_is_none(
    reader: PartReader, rows: list[dict[str, Any]], said: int, why: str
) -> None:
    assert why in problems(reader.read(parquet(pa.Table.from_pylist(rows)), "answers_image", said))


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", bytes(100_000), b"PAR1" + b"\x15" * 99 + b"PAR1"]
)
def test_bytes_that_are_no_parquet_file_are_no_part(reader: PartReader, data: bytes) -> None:
    assert problems(reader.read(data, "answers_image", 4))


def test_text_that_is_not_utf_8_is_no_part(reader: PartReader) -> None:
    _, offsets, data = pa.array([b"\xff\xfe"], pa.binary()).buffers()
    assert offsets
    assert data
    text = pa.StringArray.from_buffers(1, offsets, data)
    forged = pa.table({"item_id": text, "row_group": pa.array([0], pa.int32())})
    assert "UTF" in problems(reader.read(parquet(forged), "answers_image", 1)).upper()


def test_a_small_file_that_decodes_to_gigabytes_is_refused_and_the_reader_goes_on(reader: PartReader) -> None:
    rows = 2_000
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * (8 * MIB)]))
    bomb = as_contract(answers(rows)).set_column(2, "label", huge)
    data = parquet(bomb, compression="zstd")
    assert len(data) < 200_000
    assert problems(reader.read(data, "answers_image", rows))
    honest = as_contract(answers())
    assert reader.read(parquet(honest), "answers_image", 4) == honest


def test_a_part_must_hold_the_shards_rows_in_their_order_and_row_groups() -> None:
    shard = pa.table({"item_id": ["a", "b"], "error": pa.array([None, "broken"])})
    good = pa.table({"item_id": ["a", "b"], "row_group": [0, 1], "error": pa.array([None, "unreadable"])})
    assert not form_problem(good, "answers_image", shard, [0, 1])
    assert "ids" in form_problem(good.take([1, 0]), "answers_image", shard, [0, 1])
    assert "row groups" in form_problem(good, "answers_image", shard, [0, 0])
    silent = good.set_column(2, "error", pa.array([None, None], pa.string()))
    assert "nothing to compute" in form_problem(silent, "answers_image", shard, [0, 1])
