"""Lays out what every subject of the runner's bench reads: pictures, the model, its int8 form, and its bundle."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.run import ROOT
from benchmarks.runner import FEW, INPUT, PICTURES
from fleetbatch.bundle import Bundle, build_bundle, open_bundle
from fleetbatch.orders import model_file
from fleetbatch.packing import PackRequest, pack_bundle
from fleetbatch.packing.int8 import to_int8
from fleetbatch.pixels import Unreadable, decode, prepare
from fleetbatch.sharding.road_signs import Drawing, picture_file, uris

SHARED = ROOT.parent / "shared" / "data"
DESCRIBED = """
[input]
colour = "BGR"
width = 224
height = 224
[resize]
mode = "squash"
[normalise]
mean = [104, 117, 123]
[output]
kind = "softmax"
"""
CALIBRATION = 32


def main() -> None:
    if (INPUT / "whole").exists():
        return
    shutil.rmtree(INPUT, ignore_errors=True)
    (INPUT / "pictures").mkdir(parents=True)
    (INPUT / "few").mkdir()
    for number, (suffix, content) in zip(range(PICTURES), itertools.cycle(_pictures()), strict=False):
        file = INPUT / "pictures" / f"{number:05}{suffix}"
        file.write_bytes(content)
        if number < FEW:
            os.link(file, INPUT / "few" / file.name)
    _lay_out(open_bundle(_bundle(), expected_sha256=None))
    (INPUT / "whole").touch()


def _pictures() -> Iterator[tuple[str, bytes]]:
    if SHARED.is_dir():
        for photo in sorted((SHARED / "photos").iterdir()):
            yield photo.suffix, photo.read_bytes()
        return
    for uri in uris(Drawing(count=FEW, seed=3)):
        yield ".jpg", picture_file(uri)


def _bundle() -> bytes:
    if not SHARED.is_dir():
        return model_file("road-signs").read_bytes()
    (INPUT / "squash.toml").write_text(DESCRIBED)
    models = SHARED / "models"
    golden = SHARED / "photos" / "pets__Beagle_01125.jpg"
    return pack_bundle(
        PackRequest(
            model=models / "squeezenet_fp32_dyn.onnx",
            preprocessing=INPUT / "squash.toml",
            labels=models / "imagenet_labels_winml.txt",
            goldens=(golden,),
        )
    )


def _lay_out(bundle: Bundle) -> None:
    """Write the bundle with an int8 variant, both models, and what a peer must know of a picture."""
    manifest = bundle.manifest
    pictures = [decode(path.read_bytes()) for path in sorted((INPUT / "few").iterdir())[:CALIBRATION]]
    inputs = [prepare(picture, manifest) for picture in pictures if not isinstance(picture, Unreadable)]
    model = bundle.model()
    int8 = to_int8(model, manifest.input.name, inputs)
    variants = {**bundle.content.variants, "int8": int8}
    (INPUT / "bundle.zip").write_bytes(build_bundle(replace(bundle.content, variants=variants)))
    (INPUT / "model.onnx").write_bytes(model)
    (INPUT / "int8.onnx").write_bytes(int8)
    means = [mean / std for mean, std in zip(manifest.normalise.mean, manifest.normalise.std, strict=True)]
    wanted = {
        "side": manifest.input.width,
        "scale": manifest.normalise.scale / manifest.normalise.std[0],
        "mean": means,
        "colour": manifest.input.colour,
    }
    (INPUT / "prepare.json").write_text(json.dumps(wanted))


if __name__ == "__main__":
    main()
