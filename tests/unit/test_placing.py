"""Items with several answers: whole in the results, or named; what a car may deliver of them."""

import pyarrow as pa
import pytest

from fleetbatch.audit.delivered import form_problem
from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.merge.placing import Placed, place
from fleetbatch.units import ShardId

NAME = "results_video"
Frames = list[tuple[str, int | None, str | None]]
WHOLE: Frames = [("a", 0, None), ("a", 10, None), ("b", 20, None)]


def sources(**answers: int | None) -> pa.Table:
    rows = [
        {"item_id": item, "shard_id": 5, "row_group": 0, "source_uri": f"file:///{item}.mp4", "answers": count}
        for item, count in answers.items()
    ]
    return conform(pa.Table.from_pylist(rows), "sources")


def answered(frames: Frames) -> pa.Table:
    schema = contract(NAME).schema
    known = {field.name: pa.scalar(0).cast(field.type) for field in schema if field.name in {"row_group", "energy_wh"}}
    rows = [{"item_id": item, "frame": frame, "error": error} for item, frame, error in frames]
    table = pa.Table.from_pylist(rows, schema=pa.schema([schema.field(n) for n in ("item_id", "frame", "error")]))
    for field in schema:
        if not field.nullable and field.name not in {"item_id", "source_uri"}:
            value = known.get(field.name, pa.scalar(0, pa.int64()).cast(field.type))
            table = table.append_column(field, pa.repeat(value, len(frames)))
    return table


def placed(frames: Frames, **items: int | None) -> Placed:
    return place(NAME, ShardId(5), answered(frames), sources(**items))


def test_an_item_counts_once_however_many_answers_it_has() -> None:
    found = placed(WHOLE, a=2, b=1, c=3)
    assert (found.items, found.dead, found.results.num_rows) == (2, 0, 3)
    assert found.results["source_uri"].to_pylist() == ["file:///a.mp4", "file:///a.mp4", "file:///b.mp4"]
    assert found.unanswered["item_id"].to_pylist() == ["c"]


def test_answers_come_out_in_the_order_of_their_items() -> None:
    found = placed([("b", 20, None), ("a", 0, None), ("a", 10, None)], a=2, b=1)
    assert found.results["frame"].to_pylist() == [0, 10, 20]


def test_one_error_stands_for_a_whole_item_and_an_error_among_answers_does_not_kill_it() -> None:
    found = placed([("a", None, "no video"), ("b", 0, None), ("b", 1, "does not decode")], a=30, b=2)
    assert (found.items, found.dead) == (2, 1)


def test_an_item_answered_in_part_is_refused_by_name() -> None:
    with pytest.raises(RejectedError, match="a has 2 answers of 3"):
        placed(WHOLE, a=3, b=1)
    assert placed(WHOLE, a=None, b=None).items == 2  # where only computing can tell, any number will do


@pytest.mark.parametrize(
    ("frames", "why"),
    [([("z", 0, None)], "row z is not in the shard"), ([WHOLE[0], *WHOLE], "1 rows are answered twice")],
)
def test_a_stranger_and_a_doubled_answer_are_refused(frames: Frames, why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        placed(frames, a=None, b=None)


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (WHOLE, ""),
        ([WHOLE[0], WHOLE[2], WHOLE[1]], "in their order"),
        (WHOLE[:2], "in their order"),
        ([WHOLE[0], WHOLE[0], WHOLE[2]], "twice"),
        ([WHOLE[0], ("c", 0, None), WHOLE[2]], "in their order"),
    ],
)
def test_a_part_has_every_item_in_order_and_no_answer_twice(frames: Frames, why: str) -> None:
    part = answered(frames).select(["item_id", "frame", "row_group", "error"])
    found = form_problem(
        part, "answers_video", sources(a=2, b=1).append_column("error", pa.nulls(2, pa.string())), [0, 0]
    )
    assert why in found
    assert bool(found) == bool(why)
