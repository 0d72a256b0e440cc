"""Valid things to build tests on; a test changes one word."""

import io

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from fleetbatch.bundle import Content, Golden, GoldenAnswer, Input, Manifest, Normalise, Output, Resize, build_bundle
from fleetbatch.protocol import Hardware

COLOURS = ("red", "green", "blue")
SIDE = 8
HARDWARE = Hardware(
    hardware_class="standard",
    provider="CPUExecutionProvider",
    threads=1,
    memory_bytes=1 << 30,
    runner_version="1",
    power_w=60.0,
)


def colour_bundle() -> bytes:
    """A bundle that says which of red, green and blue a picture has most of; and is tiny."""
    manifest = Manifest(
        name="colours",
        workload="image",
        input=Input(name="picture", layout="NCHW", dtype="fp32", batch=0, width=SIDE, height=SIDE, colour="RGB"),
        resize=Resize(mode="squash"),
        normalise=Normalise(scale=1 / 25.5),
        output=Output(name="scores", kind="logits", top_k=3),
    )
    picture = Image.new("RGB", (SIDE, SIDE), (255, 102, 51))
    file = io.BytesIO()
    picture.save(file, "PNG")
    means = np.exp(np.array([10.0, 4.0, 2.0]))
    scores = tuple(float(score) for score in means / means.sum())
    answer = GoldenAnswer(picture="red.png", classes=(0, 1, 2), labels=COLOURS, scores=scores)
    golden = Golden(answer=answer, content=file.getvalue())
    return build_bundle(Content(manifest=manifest, model=_average(), labels=COLOURS, goldens=(golden,), variants={}))


def _average() -> bytes:
    """An ONNX model that averages each channel."""
    taken = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    given = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3, 1, 1])
    node = helper.make_node("GlobalAveragePool", ["picture"], ["scores"])
    graph = helper.make_graph([node], "colours", [taken], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
