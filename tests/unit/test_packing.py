import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_bundles import Shape, colour_model, plain_picture
from onnx import helper

from fleetbatch.bundle import open_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.orders import model_file
from fleetbatch.packing import PackRequest, pack_bundle
from fleetbatch.packing.half import to_half

DESCRIBED = """
[input]
colour = "RGB"
[resize]
mode = "squash"
[normalise]
scale = 0.0392156862745098
[output]
kind = "logits"
top_k = 3
"""


@pytest.fixture
def request_(tmp_path: Path) -> PackRequest:
    (tmp_path / "colours.onnx").write_bytes(colour_model(Shape()))
    (tmp_path / "preprocessing.toml").write_text(DESCRIBED)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    goldens = tmp_path / "goldens"
    goldens.mkdir()
    (goldens / "a.png").write_bytes(plain_picture())
    (goldens / "b.png").write_bytes(plain_picture((10, 20, 90)))
    return PackRequest(
        model=tmp_path / "colours.onnx",
        preprocessing=tmp_path / "preprocessing.toml",
        labels=tmp_path / "labels.txt",
        goldens=(goldens,),
    )


def test_what_the_model_says_of_itself_need_not_be_written_down(request_: PackRequest) -> None:
    bundle = open_bundle(pack_bundle(request_), expected_sha256=None)
    told = bundle.manifest
    assert (told.name, told.input.name, told.input.layout, told.input.dtype) == ("colours", "picture", "NCHW", "fp32")
    assert (told.input.batch, told.input.width, told.input.height, told.output.name) == (0, 8, 8, "scores")
    assert [golden.answer.picture for golden in bundle.content.goldens] == ["a.png", "b.png"]
    assert bundle.content.goldens[1].answer.labels == ("blue", "green", "red")


def test_packing_twice_gives_the_same_bundle(request_: PackRequest) -> None:
    assert pack_bundle(request_) == pack_bundle(request_)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(layout="NHWC", dtype="fp16", batch=2, output="NC11", background=True),
        Shape(kind="softmax", background=True, output="N11C"),
        Shape(batch=1),
    ],
    ids=str,
)
def test_the_second_implementation_answers_every_dress_of_a_model(request_: PackRequest, shape: Shape) -> None:
    request_.model.write_bytes(colour_model(shape))
    text = DESCRIBED.replace('"logits"', f'"{shape.kind}"') + ("background = 0\n" if shape.background else "")
    request_.preprocessing.write_text(text)
    bundle = open_bundle(pack_bundle(request_), expected_sha256=None)
    assert bundle.manifest.input.layout == shape.layout
    assert bundle.content.goldens[0].answer.labels[0] == "red"


def test_a_variant_travels_along_when_it_reproduces_the_goldens(request_: PackRequest, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(colour_model(Shape(dtype="fp16")))
    bundle = open_bundle(pack_bundle(replace(request_, variants={"fp16": half})), expected_sha256=None)
    assert bundle.model("fp16") == half.read_bytes()
    half.write_bytes(colour_model(Shape(dtype="fp16", kind="softmax")))
    with pytest.raises(RejectedError, match="does not reproduce its goldens"):
        pack_bundle(replace(request_, variants={"fp16": half}))


def test_answers_of_another_implementation_are_taken_and_must_come_out(request_: PackRequest, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    told: dict[str, Any] = {"a.png": [["red", 0.6], [1, 0.2256]], "b.png": [["blue", 0.903]]}
    answers.write_text(json.dumps(told))
    bundle = open_bundle(pack_bundle(replace(request_, answers=answers)), expected_sha256=None)
    assert bundle.content.goldens[0].answer.classes == (0, 1)
    told["a.png"][0][1] = 0.7
    answers.write_text(json.dumps(told))
    with pytest.raises(RejectedError, match=r"a\.png: 'red' scores 0\.6"):
        pack_bundle(replace(request_, answers=answers))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"a.png": [["red", 0.6]]}, r"b\.png: expected"),
        ({"a.png": [["rot", 0.6]], "b.png": [["blue", 0.9]]}, "'rot' is no label"),
        ({"a.png": [[7, 0.6]], "b.png": [["blue", 0.9]]}, "7 is no label"),
        ({"a.png": [["red", 6]], "b.png": [["blue", 0.9]]}, "from 0 to 1"),
        ([], "expected"),
    ],
)
def test_answers_that_cannot_be_meant_are_refused(
    request_: PackRequest, tmp_path: Path, told: object, why: str
) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(told))
    with pytest.raises(RejectedError, match=why):
        pack_bundle(replace(request_, answers=answers))


def test_every_missing_piece_is_named_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is no model")
    with pytest.raises(RejectedError) as refused:
        pack_bundle(
            PackRequest(model=bad, preprocessing=tmp_path / "no.toml", labels=tmp_path / "no.txt", goldens=(tmp_path,))
        )
    named = str(refused.value)
    for word in ("bad.onnx is not an ONNX file", "no.toml", "no.txt", "no golden pictures"):
        assert word in named


def test_an_empty_file_is_named_and_never_left_out(request_: PackRequest, tmp_path: Path) -> None:
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for asked in (replace(request_, model=empty), replace(request_, variants={"fp16": empty})):
        with pytest.raises(RejectedError, match=r"empty\.onnx is empty"):
            pack_bundle(asked)


def test_a_golden_that_is_named_is_taken_or_refused_whatever_its_ending(request_: PackRequest, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    named = replace(request_, goldens=(*request_.goldens, tmp_path / "notes.txt"))
    with pytest.raises(RejectedError, match="no bundle can be made") as refused:
        pack_bundle(named)
    assert "golden notes.txt" in str(refused.value)


def test_preprocessing_that_contradicts_the_model_is_refused(request_: PackRequest) -> None:
    request_.preprocessing.write_text(DESCRIBED.replace('"RGB"', '"RGB"\nwidth = 224\nlayout = "NHWC"'))
    with pytest.raises(RejectedError) as refused:
        pack_bundle(request_)
    assert "`input.width` is 224, but colours.onnx says 8" in str(refused.value)
    assert "`input.layout` is 'NHWC', but colours.onnx says 'NCHW'" in str(refused.value)


def test_what_only_the_user_can_know_must_be_said(request_: PackRequest) -> None:
    request_.preprocessing.write_text("")
    with pytest.raises(RejectedError) as refused:
        pack_bundle(request_)
    for word in ("input.colour` is missing", "resize` is missing", "output.kind` is missing"):
        assert word in str(refused.value)


def test_numbered_labels_with_synonyms_give_their_first_name(request_: PackRequest) -> None:
    request_.labels.write_text("0,red, crimson\r\n1,green, verdant\r\n2,blue\r\n")
    assert open_bundle(pack_bundle(request_), expected_sha256=None).labels == ("red", "green", "blue")


def test_labels_that_do_not_count_as_the_model_does_are_refused(request_: PackRequest) -> None:
    request_.labels.write_text("red\ngreen\n")
    with pytest.raises(RejectedError, match=r"answers 3 classes .* has 2"):
        pack_bundle(request_)


def test_a_model_with_weights_in_other_files_or_foreign_operators_is_not_admitted(request_: PackRequest) -> None:
    model = onnx.load_model_from_string(colour_model(Shape()))
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.node.append(helper.make_node("Odd", ["means"], ["odd"], domain="com.example"))
    request_.model.write_bytes(model.SerializeToString())
    with pytest.raises(RejectedError) as refused:
        pack_bundle(request_)
    assert "keeps tensors in other files" in str(refused.value)
    assert "domain 'com.example'" in str(refused.value)


def test_a_model_without_input_is_not_admitted(request_: PackRequest) -> None:
    model = onnx.load_model_from_string(colour_model(Shape()))
    del model.graph.input[:]
    request_.model.write_bytes(model.SerializeToString())
    with pytest.raises(RejectedError, match="takes one input"):
        pack_bundle(request_)


def test_a_picture_of_which_no_class_is_sure_cannot_be_the_only_golden(request_: PackRequest, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"a.png": [["blue", 0.15]], "b.png": [["red", 0.01]]}))
    with pytest.raises(RejectedError, match="sure of tell right from wrong"):
        pack_bundle(replace(request_, answers=answers))


def test_a_model_is_halved_and_the_variant_reproduces_the_goldens(request_: PackRequest, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(to_half(request_.model.read_bytes()))
    bundle = open_bundle(pack_bundle(replace(request_, variants={"fp16": half})), expected_sha256=None)
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1, precision="fp16")
    assert inference.dtype == np.float16


def test_the_shipped_model_has_a_half_precision_variant_that_is_its_own_half() -> None:
    shipped = open_bundle(model_file("road_signs").read_bytes(), expected_sha256=None)
    assert shipped.model("fp16") == to_half(shipped.model())
    check_goldens(shipped, open_inference(shipped, provider="CPUExecutionProvider", threads=1, precision="fp16"))


def test_a_model_with_a_loop_is_not_halved() -> None:
    with pytest.raises(RejectedError, match="Loop is not turned into half precision"):
        to_half(colour_model(Shape(slowness=1)))
