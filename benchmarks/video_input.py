"""Lays out what both subjects of the video bench read: a folder of films and a detector, as bundle and in the open."""

import json
import os
import shutil
from pathlib import Path

import msgspec

from benchmarks.run import ROOT
from fleetbatch.bundle import open_bundle
from fleetbatch.orders import model_file
from fleetbatch.packing import PackRequest, pack_bundle
from fleetbatch.sharding.drive import encode

INPUT = ROOT / ".bench" / "video-input"
SHARED = ROOT.parent / "shared" / "data"
EVERY = 5
COPIES = 24
DESCRIBED = """
[input]
colour = "BGR"
[resize]
mode = "letterbox"
padding = 114
anchor = "top_left"
[output]
kind = "boxes"
[boxes]
form = "yolox"
strides = [8, 16, 32]
objectness = true
"""


def lay_out() -> None:
    """Make the input, unless it is there."""
    if (INPUT / "whole").exists():
        return
    shutil.rmtree(INPUT, ignore_errors=True)
    (INPUT / "pictures").mkdir(parents=True)
    film, data = _real() if SHARED.is_dir() else _drawn()
    (INPUT / "film").write_bytes(film)
    for number in range(COPIES):
        os.link(INPUT / "film", INPUT / "pictures" / f"{number:02}.mp4")
    bundle = open_bundle(data, expected_sha256=None)
    (INPUT / "bundle.zip").write_bytes(data)
    (INPUT / "model.onnx").write_bytes(bundle.model())
    (INPUT / "manifest.json").write_bytes(msgspec.json.encode(bundle.manifest))
    (INPUT / "labels.json").write_text(json.dumps(bundle.labels))
    (INPUT / "frames").write_text(str(COPIES * -(-_frames(INPUT / "film") // EVERY)))
    (INPUT / "whole").touch()


def frames_wanted() -> int:
    """Return how many frames are to be looked at, in all films together."""
    return int((INPUT / "frames").read_text())


def _real() -> tuple[bytes, bytes]:
    film = next((SHARED / "video").glob("*.mp4"))
    described, golden = INPUT / "detector.toml", INPUT / "golden.png"
    described.write_text(DESCRIBED)
    import av

    with av.open(str(film), "r") as container:
        next(container.decode(video=0)).save(str(golden))
    request = PackRequest(
        model=SHARED / "models" / "yolox_nano_dyn.onnx",
        preprocessing=described,
        labels=SHARED / "models" / "coco_classes.txt",
        goldens=(golden,),
    )
    return film.read_bytes(), pack_bundle(request)


def _drawn() -> tuple[bytes, bytes]:
    return encode(1, 1, 750), model_file("drive").read_bytes()


def _frames(film: Path) -> int:
    import av

    with av.open(str(film), "r") as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)
