"""Photographs and a model that nobody here made get the answers of a plain reference program."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fleetbatch.bundle import Bundle, open_bundle
from fleetbatch.contracts import conform, contract
from fleetbatch.inference import open_inference
from fleetbatch.packing import PackRequest, pack_bundle
from fleetbatch.workloads import answer_rows, workload
from fleetbatch.workloads.image import classifier

TURNED = "azure__japanese_cherry_8.jpg"
"""The one photograph whose EXIF says that it lies on its head; the reference program did not turn it."""
TURNED_ANSWER = {"squash": ("cock", 0.409), "crop": ("monarch", 0.787)}
DESCRIBED = """
[input]
colour = "BGR"
width = 224
height = 224
[resize]
mode = "{mode}"
{more}
[normalise]
mean = [104, 117, 123]
[output]
kind = "softmax"
"""


def squeezenet(shared_data: Path, folder: Path, mode: str) -> Bundle:
    """The bundle; its golden's answer is our second implementation's for squash, the reference program's for crop."""
    answers = None
    if mode == "crop":
        told = json.loads((shared_data / "golden_images.json").read_text())
        [(number, _, score)] = [p["squeezenet_crop"] for p in told if p["image"] == "pets__Beagle_01125.jpg"]
        answers = folder / "answers.json"
        answers.write_text(json.dumps({"pets__Beagle_01125.jpg": [[number, score]]}))
    described = folder / "preprocessing.toml"
    described.write_text(DESCRIBED.format(mode=mode, more="shorter_side = 256" if mode == "crop" else ""))
    request = PackRequest(
        model=shared_data / "models" / "squeezenet_fp32_dyn.onnx",
        preprocessing=described,
        labels=shared_data / "models" / "imagenet_labels_winml.txt",
        goldens=(shared_data / "photos" / "pets__Beagle_01125.jpg",),
        answers=answers,
        variants={"fp16": shared_data / "models" / "squeezenet_fp16.onnx"},
    )
    return open_bundle(pack_bundle(request), expected_sha256=None)


def answers(bundle: Bundle, photos: list[Path], precision: str = "") -> dict[str, dict[str, Any]]:
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1, precision=precision)
    rows = [{"item_id": photo.name, "bytes": photo.read_bytes()} for photo in photos]
    table = conform(pa.Table.from_pylist(rows, schema=contract("shard").schema), "shard")
    found = answer_rows(workload("image"), classifier(bundle, inference), table, row_group=0)
    return {row["item_id"]: row for row in found.to_pylist()}


@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_126_photographs_get_the_reference_programs_labels_and_scores(
    shared_data: Path, tmp_path: Path, mode: str
) -> None:
    told = json.loads((shared_data / "golden_images.json").read_text())
    bundle = squeezenet(shared_data, tmp_path, mode)
    found = answers(bundle, [shared_data / "photos" / photo["image"] for photo in told])
    assert len(found) == len(told) == 126
    for photo in told:
        _, label, score = photo[f"squeezenet_{mode}"]
        if photo["image"] == TURNED:
            label, score = TURNED_ANSWER[mode]
        answer = found[photo["image"]]
        assert answer["error"] is None
        assert (photo["image"], answer["label"]) == (photo["image"], label)
        assert answer["score"] == pytest.approx(score, abs=0.02)


def test_a_car_without_vector_instructions_agrees_far_within_the_tolerance(shared_data: Path, tmp_path: Path) -> None:
    """Else honest cars of two makes would be taken for dishonest ones."""
    photos = sorted((shared_data / "photos").iterdir())[::3]
    bundle = squeezenet(shared_data, tmp_path, "squash")
    plain = """
import json, sys
from pathlib import Path
sys.modules["cykooz_resizer"] = None  # then importing it raises ImportError, as where there is no wheel of it
from test_photographs import answers, squeezenet
photos = [Path(photo) for photo in sys.argv[3:]]
found = answers(squeezenet(Path(sys.argv[1]), Path(sys.argv[2]), "squash"), photos)
print(json.dumps({name: row["score"] for name, row in found.items()}))
"""
    command = [sys.executable, "-c", plain, *map(str, (shared_data, tmp_path, *photos))]
    told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    theirs, ours = json.loads(told.stdout), answers(bundle, photos)
    apart = [abs(row["score"] - theirs[name]) for name, row in ours.items() if row["error"] is None]
    assert len(apart) > 30
    assert max(apart) < 0.01
    assert (max(apart) > 0) == bool(find_spec("cykooz_resizer"))


def test_half_precision_answers_agree_with_full_ones(shared_data: Path, tmp_path: Path) -> None:
    photos = sorted((shared_data / "photos").glob("pets__*"))[:8]
    bundle = squeezenet(shared_data, tmp_path, "crop")
    full, half = (
        pa.Table.from_pylist(list(answers(bundle, photos, precision).values()), schema=contract("answers_image").schema)
        for precision in ("", "fp16")
    )
    assert full["score"].to_pylist() != half["score"].to_pylist()
    assert workload("image").compare(full, half).disagreements == ()
