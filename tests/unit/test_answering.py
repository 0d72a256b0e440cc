"""Whatever a workload does, every item of a row group is answered once, in order, or its code is refused."""

import math
import sys
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from fleetbatch.audit.delivered import Limits, open_part
from fleetbatch.contracts import conform, contract, parquet_bytes
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.workloads import Answer, AnswerRow, Device, Workload, answer_rows, rows_at_once
from fleetbatch.workloads.bounds import unsound


class Echo(Workload):
    """Says what a file holds; borrows the contracts of pictures."""

    name = "image"

    def open(self, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:  # noqa: ARG002
        def answer(rows: pa.Table) -> pa.Table:
            said = [str(content, "utf-8") for content in rows["bytes"].to_pylist() if content is not None]
            return pa.table({"item_id": rows["item_id"], "label": said})

        return answer


ECHO = Echo()
TWICE = pa.table([["s-000000"], ["s-000000"]], names=["item_id", "item_id"])
ANSWER = ECHO.open(None, Device(provider="CPUExecutionProvider"), {})


def ids(table: pa.Table) -> list[Any]:
    return table["item_id"].to_pylist()


def rows(*items: tuple[bytes | None, str | None]) -> pa.Table:
    columns = [{"item_id": f"s-{n:06d}", "bytes": data, "error": error} for n, (data, error) in enumerate(items)]
    return conform(pa.Table.from_pylist(columns, schema=contract("shard").schema), "shard")


def test_a_row_that_breaks_the_workload_is_dead_alone_and_says_what_broke() -> None:
    found = answer_rows(ECHO, ANSWER, rows((b"a", None), (b"\xff", None), (b"c", None)), row_group=4)
    assert found["label"].to_pylist() == ["a", None, "c"]
    assert found["error"].to_pylist()[::2] == [None, None]
    assert found["error"][1].as_py().startswith("UnicodeDecodeError: 'utf-8' codec")
    assert found["row_group"].to_pylist() == [4, 4, 4]


def test_rows_that_were_dead_when_cut_never_meet_the_workload_and_keep_their_place() -> None:
    found = answer_rows(ECHO, ANSWER, rows((None, "torn"), (b"b", None), (None, None)), row_group=0)
    assert found["item_id"].to_pylist() == ["s-000000", "s-000001", "s-000002"]
    assert found["error"].to_pylist() == ["torn", None, "the row has no bytes"]
    assert answer_rows(ECHO, ANSWER, rows((None, "torn")), row_group=0)["error"].to_pylist() == ["torn"]
    assert answer_rows(ECHO, ANSWER, rows(), row_group=0).schema == contract("answers_image").schema


def test_an_item_left_out_doubled_or_out_of_order_is_the_workloads_mistake() -> None:
    two = rows((b"a", None), (b"b", None))
    for places in ([0], [0, 0], [1, 0], [0, 1, 1]):
        with pytest.raises(RejectedError, match=r"answered \d items of 2, or not in their order"):
            answer_rows(ECHO, lambda given, places=places: ANSWER(given).take(places), two, row_group=0)  # type: ignore[misc]


@pytest.mark.parametrize("given", [None, [1, 2], {"item_id": ["s-000000"]}, pa.table({"label": ["a"]}), TWICE], ids=str)
def test_what_is_no_table_of_answers_is_the_workloads_mistake(given: object) -> None:
    with pytest.raises(RejectedError, match="expected an Arrow table with item_id"):
        answer_rows(ECHO, lambda _: given, rows((b"a", None)), row_group=0)  # type: ignore[arg-type,return-value]


def test_a_text_that_is_none_is_dead_alone_as_no_reader_could_take_the_part() -> None:
    def answer(given: pa.Table) -> pa.Table:
        texts = pa.array([data + b"\xff" if data == b"b" else data for data in given["bytes"].to_pylist()])
        labels = pa.StringArray.from_buffers(len(texts), texts.buffers()[1], texts.buffers()[2])
        return pa.table({"item_id": given["item_id"], "label": labels})

    found = answer_rows(ECHO, answer, rows((b"a", None), (b"b", None)), row_group=0)
    assert found["label"].to_pylist() == ["a", None]
    assert "Invalid UTF8" in found["error"][1].as_py()


def test_beside_an_error_nothing_is_said_and_one_without_a_word_is_given_some() -> None:
    two = rows((b"a", None), (b"b", None))
    found = answer_rows(ECHO, lambda given: ANSWER(given).append_column("error", [["", None]]), two, row_group=0)
    assert found["label"].to_pylist() == [None, "b"]
    assert found["error"].to_pylist() == [
        "the workload gave an error without a word; the error of an answer is null",
        None,
    ]
    assert found.schema == contract("answers_image").schema


def test_a_row_at_which_the_workload_ends_the_process_is_dead() -> None:
    assert (
        answer_rows(ECHO, lambda _: sys.exit(3), rows((b"a", None)), row_group=0)["error"][0].as_py() == "SystemExit: 3"
    )


def test_what_says_that_the_world_was_not_ready_is_not_taken_for_a_broken_row() -> None:
    def unready(_: pa.Table) -> pa.Table:
        message = "no licence server"
        raise TransientError(message)

    with pytest.raises(TransientError):
        answer_rows(ECHO, unready, rows((b"a", None)), row_group=0)


@pytest.mark.parametrize(("row_s", "rows"), [(math.inf, 1), (0.0, 16), (0.9, 16), (1.0, 15), (8.0, 1), (500.0, 1)])
def test_rows_that_are_asked_for_at_once_have_time_enough_within_the_limit_of_one(row_s: float, rows: int) -> None:
    assert rows_at_once(row_s, 120.0) == rows


def test_answers_are_equal_to_the_bit_unless_a_workload_says_otherwise() -> None:
    ours = answer_rows(ECHO, ANSWER, rows((b"a", None), (b"b", None)), row_group=0)
    theirs = answer_rows(ECHO, ANSWER, rows((b"a", None), (b"B", None)), row_group=0)
    assert ECHO.compare(ours, ours).disagreements == ()
    assert ECHO.compare(ours, theirs).disagreements == (("s-000001", "label is 'B', ours is 'b'"),)
    assert ECHO.compare(ours, theirs.slice(0, 1)).disagreements == (("s-000001", "no answer"),)


def with_one_answer(told: dict[str, Any]) -> pa.Table:
    """Return the answers of three rows, of which the one in the middle says this, too."""

    def answer(asked: pa.Table) -> pa.Table:
        said = [{"item_id": item, "label": "fine"} | (told if item == "s-000001" else {}) for item in ids(asked)]
        return pa.Table.from_pylist(said, schema=ECHO.answer_schema)

    return answer_rows(ECHO, answer, rows(*[(b"a", None)] * 3), row_group=0)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"label": "x" * 9000}, "column 'label' has a text of 9000 bytes; 8192 are allowed"),
        ({"labels": ["x"] * 3000}, "column 'labels' has a list of 3000 items; 2048 are allowed"),
        ({"labels": ["x" * 9000]}, "column 'labels' has a text of 9000 bytes; 8192 are allowed"),
        ({"labels": ["x" * 1000] * 17}, "bytes; 16384 are allowed"),
        ({"scores": [0.5] * 2000, "label": "x" * 8000}, None),
        ({"error": "\u00e9" * 900}, "\u00e9" * 500),
    ],
)
def test_an_answer_larger_than_an_audit_takes_is_dead_alone_and_one_that_is_not_is_taken(
    told: dict[str, Any], why: str | None
) -> None:
    found = with_one_answer(told)
    errors = found["error"].to_pylist()
    assert (errors[0], errors[2]) == (None, None)
    assert (errors[1] is None) if why is None else (why in str(errors[1]))
    assert ids(found) == ["s-000000", "s-000001", "s-000002"]
    data = parquet_bytes(found)
    assert open_part(data, "answers_image", 3, Limits()) == found, "what an honest car delivers is a part"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"score": math.nan}, "column 'score' is nan; expected a number 0 to 1"),
        ({"score": math.inf}, "column 'score' is inf; expected a number 0 to 1"),
        ({"score": 1.5}, "column 'score' is 1.5; expected a number 0 to 1"),
        ({"label": None}, "it has neither 'label' nor a reason why not"),
        ({"score": 1.0}, None),
        ({"score": None}, None),
        ({"label": None, "error": "no label fits"}, "no label fits"),
    ],
)
def test_an_answer_that_the_mornings_checks_would_not_publish_is_dead_alone(
    told: dict[str, Any], why: str | None
) -> None:
    found = with_one_answer(told)
    assert found["error"].to_pylist() == [None, why, None]
    assert ECHO.compare(found, found).disagreements == ()


def test_a_reason_is_cut_short_whatever_it_is_made_of() -> None:
    found = answer_rows(ECHO, ANSWER, rows((None, "\u00e9" * 900)), row_group=0)
    assert found["error"].to_pylist() == ["\u00e9" * 500]

    def odd(_: pa.Table) -> pa.Table:
        name = "\udcff.txt"  # as names of files that are no text
        raise ValueError(name)

    [reason] = answer_rows(ECHO, odd, rows((b"a", None)), row_group=0)["error"].to_pylist()
    assert reason == "ValueError: ?.txt"


class Picky(Echo):
    """Compares only what it likes."""

    def differs(self, ours: AnswerRow, theirs: AnswerRow) -> str:
        return "" if ours["label"].strip() == theirs["label"].strip() else "another"


def test_an_answer_at_which_a_comparison_breaks_is_wrong_and_one_that_breaks_at_our_own_is_the_workloads_mistake() -> (
    None
):
    ours = answer_rows(ECHO, ANSWER, rows((b"a", None)), row_group=0)
    without = ours.set_column(ours.schema.get_field_index("label"), "label", pa.nulls(1, pa.string()))
    [(_, why)] = Picky().compare(ours, without).disagreements
    assert why.startswith("it cannot be compared: AttributeError")
    with pytest.raises(AttributeError):
        Picky().compare(without, ours)


def test_a_column_of_numbers_that_only_the_results_have_is_no_fault_of_an_answer() -> None:
    answers = pa.table({"label": ["stop", None], "error": pa.nulls(2, pa.string())})
    assert unsound(answers, contract("results_image")) == {1: "it has neither 'label' nor a reason why not"}
