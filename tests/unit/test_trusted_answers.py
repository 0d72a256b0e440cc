"""On a trusted machine, too, a row that hangs or ends its process costs itself and nothing else."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from builders import colour_bundle
from model_bundles import Shape, content
from PIL import Image

from fleetbatch.audit.answering import Answerer, Patience, Recipe
from fleetbatch.bundle import build_bundle
from fleetbatch.contracts import conform, contract
from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.workloads import why_ended

COLOURS = Recipe(workload="image", model_sha256="c" * 64, options=())
HANGS = Recipe(workload="image", model_sha256="d" * 64, options=())


@pytest.fixture
def answerer() -> Iterator[Answerer]:
    found = Answerer(Patience(row_s=2.5))
    yield found
    found.close()


def rows(folder: Path, count: int, *, green: int) -> pa.Table:
    """Return red pictures, and a green one."""
    items = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (16, 16), (0, 255, 0) if number == green else (255, 0, 0)).save(path)
        items.append({"item_id": f"s-{number:06d}", "bytes": path.read_bytes(), "format": "PNG"})
    return conform(pa.Table.from_pylist(items, schema=contract("shard").schema), "shard")


def test_a_row_that_hangs_is_dead_and_those_beside_it_are_answered(answerer: Answerer, tmp_path: Path) -> None:
    model = build_bundle(content(Shape(hangs=True)))
    found = answerer.answer(HANGS, lambda: model, rows(tmp_path, 4, green=2), row_group=3)
    assert found["error"].to_pylist() == [None, None, "given up: this row took more than 2.5 s", None]
    assert found["label"].to_pylist() == ["red", "red", None, "red"]
    assert found["row_group"].to_pylist() == [3] * 4


def test_a_process_that_is_ended_from_outside_says_nothing_of_a_row(answerer: Answerer, tmp_path: Path) -> None:
    asked = []
    some = rows(tmp_path, 2, green=1)
    others = psutil.Process().children()  # of tests before this one

    def model() -> bytes:
        asked.append(1)
        return colour_bundle()

    for _ in range(2):
        assert answerer.answer(COLOURS, model, some, row_group=0)["label"].to_pylist() == ["red", "green"]
    assert len(asked) == 1, "it stays open"
    mine = set(psutil.Process().children()) - set(others)
    [child] = [one for one in mine if "audit.answering" in " ".join(one.cmdline())]
    child.kill()
    with pytest.raises(TransientError, match="ended from outside"):
        answerer.answer(COLOURS, model, some, row_group=0)
    assert answerer.answer(COLOURS, model, some, row_group=0)["label"].to_pylist() == ["red", "green"]


def test_threads_that_ask_at_once_get_their_own_answers(answerer: Answerer, tmp_path: Path) -> None:
    some = [rows(tmp_path, 3, green=number) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda one: answerer.answer(COLOURS, colour_bundle, one, row_group=0), some * 4))
    labels = [table["label"].to_pylist().index("green") for table in found]
    assert labels == [0, 1, 2] * 4


def test_a_model_that_cannot_be_used_is_refused_each_time_it_is_asked_for(answerer: Answerer, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RejectedError, match="not a zip of ours"):
            answerer.answer(COLOURS, lambda: b"no bundle", rows(tmp_path, 1, green=0), row_group=0)


def test_the_end_of_a_process_blames_a_row_only_for_what_it_computed() -> None:
    assert why_ended(3) == "the worker ended with 3 at this row"
    assert why_ended(-signal.SIGSEGV) == "the worker died of SIGSEGV at this row"
    assert [why_ended(code) for code in (0, -signal.SIGKILL, -signal.SIGTERM)] == [""] * 3
