from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from model_bundles import COLOURS, Shape, colour_bundle, colour_model, colour_scores, content, manifest
from msgspec.structs import replace as changed

from fleetbatch.bundle import Bundle, Input, Manifest, Normalise, Output, build_bundle, open_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.inference import Inference, check_goldens, open_inference, wants_arena

CPU = "CPUExecutionProvider"
SHAPES = [
    Shape(),
    Shape(layout="NHWC"),
    Shape(dtype="fp16"),
    Shape(dtype="uint8"),
    Shape(batch=1),
    Shape(batch=4),
    Shape(output="NC11"),
    Shape(output="N11C"),
    Shape(kind="softmax"),
    Shape(background=True),
    Shape(background=True, kind="softmax", output="NC11", batch=4, layout="NHWC", dtype="fp16"),
]


def opened(bundle: Bundle, precision: str = "") -> Inference:
    return open_inference(bundle, provider=CPU, threads=1, precision=precision)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dress_of_a_model_reproduces_its_golden_and_answers_any_number_of_pictures(shape: Shape) -> None:
    bundle = colour_bundle(shape)
    inference = opened(bundle)
    check_goldens(bundle, inference)
    for count in (0, 1, 3, 4, 11):
        pictures = np.zeros((count, 8, 8, 3), np.float32)
        pictures[:, :, :, 1] = 255 if shape.dtype == "uint8" else 10
        inputs = pictures if shape.layout == "NHWC" else pictures.transpose(0, 3, 1, 2)
        scores = inference(inputs)
        assert scores.shape == (count, 3)
        assert scores.dtype == np.float32
        expected = colour_scores((0, 255, 0), shape)
        assert np.abs(scores - np.array(expected)).max(initial=0) < 2e-3


@pytest.mark.parametrize(
    ("side", "batch", "arena"), [(224, 0, False), (224, 1, False), (416, 1, False), (640, 0, True), (224, 8, True)]
)
def test_what_does_not_fit_into_the_heap_of_a_worker_is_kept_by_the_runtime(
    side: int,
    batch: int,
    arena: bool,  # noqa: FBT001 # pytest's way
) -> None:
    assert wants_arena(changed(manifest(Shape()).input, width=side, height=side, batch=batch)) is arena


def test_a_small_models_runs_take_their_memory_from_the_heap() -> None:
    assert not opened(colour_bundle()).session.get_session_options().enable_cpu_mem_arena


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (changed(manifest(Shape()), output=Output(name="other", kind="logits")), "gives"),
        (changed(manifest(Shape()), output=Output(name="scores", kind="logits", background=0)), "4 classes"),
        (changed(manifest(Shape()), output=Output(name="scores", kind="logits", background=9)), "outside"),
        (manifest(Shape(dtype="fp16")), "is fp32, the manifest says fp16"),
        (manifest(Shape(batch=4)), "manifest says"),
        (manifest(Shape(layout="NHWC")), "manifest says"),
        (
            changed(
                manifest(Shape()),
                input=Input(name="x", layout="NCHW", dtype="fp32", batch=0, width=8, height=8, colour="RGB"),
            ),
            "takes",
        ),
    ],
)
def test_a_model_that_is_not_what_its_manifest_says_is_refused(wrong: Manifest, why: str) -> None:
    bundle = colour_bundle()
    lying = replace(bundle, content=replace(bundle.content, manifest=wrong))
    with pytest.raises(RejectedError, match=why):
        opened(lying)


def test_a_file_that_is_no_model_is_refused() -> None:
    bundle = open_bundle(build_bundle(replace(content(), model=b"not a model")), expected_sha256=None)
    with pytest.raises(RejectedError, match="not a model that onnxruntime can run"):
        opened(bundle)


def test_a_provider_that_is_not_here_is_named_beside_those_that_are() -> None:
    with pytest.raises(RejectedError, match=r"TensorrtExecutionProvider is not here; .*CPUExecutionProvider"):
        open_inference(colour_bundle(), provider="TensorrtExecutionProvider", threads=1)


def test_goldens_that_do_not_come_out_are_named_with_both_scores() -> None:
    bundle = open_bundle(build_bundle(content(wrong=True)), expected_sha256=None)
    with pytest.raises(RejectedError, match=r"red\.png: 'blue' scores 0\.15\d+, the golden says 0\.6"):
        check_goldens(bundle, opened(bundle))


@pytest.mark.parametrize(
    "change",
    [
        {"normalise": Normalise()},
        {"normalise": Normalise(scale=1 / 25.5, mean=(0, 5, 9), std=(2, 2, 2))},
        {"input": changed(manifest(Shape()).input, colour="BGR")},
    ],
    ids=["scale", "mean and std", "colour"],
)
def test_wrong_preprocessing_does_not_reproduce_the_goldens(change: dict[str, Any]) -> None:
    bundle = colour_bundle(**change)
    with pytest.raises(RejectedError, match="does not reproduce its goldens"):
        check_goldens(bundle, opened(bundle))


def test_a_hardware_class_takes_its_precision_and_must_reproduce_the_same_goldens() -> None:
    half = colour_model(Shape(dtype="fp16", batch=4))
    bundle = open_bundle(build_bundle(replace(content(), variants={"fp16": half})), expected_sha256=None)
    inference = opened(bundle, "fp16")
    assert inference.precision == "fp16"
    assert inference.batch == 4
    check_goldens(bundle, inference)
    assert opened(bundle, "int8").precision == ""
    assert len(COLOURS) == inference.classes
