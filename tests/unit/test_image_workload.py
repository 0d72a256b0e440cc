from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_bundles import COLOURS, Shape, colour_bundle, colour_scores, plain_picture

from fleetbatch.bundle import Bundle
from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError
from fleetbatch.inference import open_inference
from fleetbatch.workloads import answer_rows, workload
from fleetbatch.workloads.image import ImageWorkload, classifier

IMAGE = ImageWorkload()
TOLERANCE = IMAGE.score_tolerance


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return colour_bundle()


def rows(*items: tuple[bytes | None, str | None]) -> pa.Table:
    columns = [{"item_id": f"s-{n:06d}", "bytes": data, "error": error} for n, (data, error) in enumerate(items)]
    return conform(pa.Table.from_pylist(columns, schema=contract("shard").schema), "shard")


def answered(bundle: Bundle, table: pa.Table) -> list[dict[str, Any]]:
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1)
    answers = answer_rows(IMAGE, classifier(bundle, inference), table, row_group=3)
    assert answers.schema == contract("answers_image").schema
    return answers.to_pylist()


def test_every_row_is_answered_in_order_dead_ones_with_their_reason(bundle: Bundle) -> None:
    blue, red = plain_picture((0, 0, 255)), plain_picture((255, 0, 0))
    answers = answered(
        bundle, rows((blue, None), (b"nonsense", None), (None, "gone when cut"), (None, None), (red, None))
    )
    assert [row["item_id"] for row in answers] == [f"s-{n:06d}" for n in range(5)]
    assert [row["label"] for row in answers] == ["blue", None, None, None, "red"]
    assert [bool(row["error"]) for row in answers] == [False, True, True, True, False]
    assert answers[2]["error"] == "gone when cut"
    assert {row["row_group"] for row in answers} == {3}
    assert answers[0]["score"] == pytest.approx(colour_scores((0, 0, 255), Shape())[2], abs=1e-4)
    assert answers[0]["labels"] == ["blue", "red", "green"]  # equal scores in the order of the classes


@given(st.lists(st.sampled_from(["red", "green", "dead"]), max_size=40))
@settings(max_examples=20, deadline=None)
def test_a_row_is_answered_alike_whoever_stands_beside_it(bundle: Bundle, kinds: list[str]) -> None:
    files = {"red": plain_picture((200, 0, 0)), "green": plain_picture((0, 200, 0)), "dead": b"?"}
    answers = answered(bundle, rows(*((files[kind], None) for kind in kinds)))
    assert [row["label"] for row in answers] == [None if kind == "dead" else kind for kind in kinds]


def test_a_model_that_gives_no_number_is_an_error_of_the_row(bundle: Bundle) -> None:
    table = rows((plain_picture(), None))
    nothing = classifier(bundle, lambda inputs: np.full((len(inputs), 3), np.nan, np.float32))
    answers = answer_rows(IMAGE, nothing, table, row_group=0)
    assert answers["error"].to_pylist() == ["the model gave no number"]


# --- comparing ----------------------------------------------------------------------------------------------------


def answer(*pairs: tuple[str, float], item: str = "s-000000", error: str | None = None) -> dict[str, Any]:
    labels, scores = [label for label, _ in pairs] or None, [score for _, score in pairs] or None
    best = {"label": labels[0], "score": scores[0]} if labels and scores else {"label": None, "score": None}
    return {"item_id": item, "row_group": 0, **best, "labels": labels, "scores": scores, "error": error}


def table(*answers: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(answers), schema=contract("answers_image").schema)


def why(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    found = IMAGE.compare(table(ours), table(theirs))
    assert found.rows == 1
    return found.disagreements[0][1] if found.disagreements else ""


OURS = answer(("cat", 0.6), ("dog", 0.3), ("cow", 0.05))


@pytest.mark.parametrize(
    "theirs",
    [
        OURS,
        answer(("cat", 0.61), ("dog", 0.29), ("cow", 0.05)),
        answer(("cat", 0.6), ("dog", 0.3), ("owl", 0.04)),  # the third place is close between two
    ],
)
def test_answers_within_the_tolerance_agree(theirs: dict[str, Any]) -> None:
    assert why(OURS, theirs) == ""


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (answer(("cat", 0.65), ("dog", 0.3), ("cow", 0.05)), "'cat' scores"),
        (answer(("dog", 0.6), ("cat", 0.3), ("cow", 0.05)), "scores"),
        (answer(("owl", 0.6), ("dog", 0.3), ("cow", 0.05)), "scores"),
        (answer(("cat", 0.6)), "1 labels, ours has 3"),
        (answer(("cat", float("nan")), ("dog", 0.3), ("cow", 0.05)), "outside 0 to 1"),
        (answer(("cat", 0.6), ("cow", 0.05), ("dog", 0.3)), "not the first"),
        ({**OURS, "label": "dog"}, "not the first"),
        ({**OURS, "score": 0.61}, "not the first"),
        (answer(("cat", 1.6), ("dog", 0.3), ("cow", 0.05)), "outside 0 to 1"),
        (answer(error="cannot be decoded"), "error is"),
        ({**OURS, "item_id": "s-000001"}, "no answer"),
        ({**OURS, "decode": "reduced"}, "decode is 'reduced'"),
        ({**OURS, "precision": "int8"}, "precision is 'int8'"),
    ],
)
def test_answers_that_differ_disagree_and_say_how(theirs: dict[str, Any], reason: str) -> None:
    assert reason in why(OURS, theirs)


def test_two_errors_agree_whatever_their_words() -> None:
    assert why(answer(error="truncated"), answer(error="cannot be decoded: broken")) == ""
    assert why(answer(error="truncated"), OURS)


def test_two_classes_with_one_name_are_compared_by_the_better() -> None:
    crane = answer(("crane", 0.6), ("crane", 0.3))
    assert why(crane, crane) == ""
    assert why(crane, answer(("crane", 0.5), ("crane", 0.3)))


scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5).map(lambda found: sorted(found, reverse=True))


@given(scores)
def test_an_answer_always_agrees_with_itself(found: list[float]) -> None:
    one = answer(*zip("abcde", found, strict=False))
    assert why(one, one) == ""


@given(scores, st.integers(0), st.floats(TOLERANCE * 1.5, 1))
def test_a_score_moved_beyond_the_tolerance_is_always_found(found: list[float], at: int, by: float) -> None:
    moved = list(found)
    moved[at % len(found)] += by if moved[at % len(found)] + by <= 1 else -by
    theirs = answer(*zip("abcde", moved, strict=False))
    assert why(answer(*zip("abcde", found, strict=False)), theirs)


def test_an_unknown_workload_is_refused_with_the_known_ones() -> None:
    assert isinstance(workload("image"), ImageWorkload)
    with pytest.raises(RejectedError, match="'vidoe' is not known; known are image"):
        workload("vidoe")
    assert COLOURS
