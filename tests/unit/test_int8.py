from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fleetbatch.bundle import open_bundle
from fleetbatch.contracts import contract
from fleetbatch.errors import RejectedError
from fleetbatch.orders import model_file
from fleetbatch.packing.int8 import with_int8
from fleetbatch.sharding.road_signs import Drawing, label_of, picture_file, uris
from fleetbatch.workloads import Device, answer_rows, workload

CPU = Device(provider="CPUExecutionProvider")


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("signs")
    drawn = []
    for number, uri in enumerate(uris(Drawing(count=24, seed=77))):
        (folder / f"{number:02}.jpg").write_bytes(picture_file(uri))
        drawn.append((folder / f"{number:02}.jpg", label_of(uri)))
    return drawn


def test_an_int8_variant_answers_only_when_an_order_asks_and_its_rows_say_so(signs: list[tuple[Path, str]]) -> None:
    bundle = open_bundle(model_file("road-signs").read_bytes(), expected_sha256=None)
    data = with_int8(bundle, [path for path, _ in signs])
    rows = [{"item_id": path.name, "bytes": path.read_bytes()} for path, _ in signs]
    table = pa.Table.from_pylist(rows, schema=contract("shard").schema)
    found = {}
    for precision in ("", "int8"):
        answer = workload("image").open(data, CPU, {"precision": precision} if precision else {})
        found[precision] = answer_rows(workload("image"), answer, table, row_group=0)
    assert set(found[""]["precision"].to_pylist()) == {"fp32"}
    assert set(found["int8"]["precision"].to_pylist()) == {"int8"}
    assert found[""]["score"].to_pylist() != found["int8"]["score"].to_pylist()
    right = np.array(found["int8"]["label"].to_pylist()) == np.array([label for _, label in signs])
    assert right.mean() > 0.8


def test_too_few_pictures_make_no_int8_variant(signs: list[tuple[Path, str]]) -> None:
    bundle = open_bundle(model_file("road-signs").read_bytes(), expected_sha256=None)
    with pytest.raises(RejectedError, match="at least 8"):
        with_int8(bundle, [path for path, _ in signs[:3]])


def test_an_option_that_nobody_knows_is_refused() -> None:
    data = model_file("road-signs").read_bytes()
    with pytest.raises(RejectedError, match="`decode` is 'fast'"):
        workload("image").open(data, CPU, {"decode": "fast"})
