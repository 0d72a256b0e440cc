"""A folder with one film, cut as an order cuts it, and what a car would look at."""

import random
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from videos import Film

from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.openers import open_input
from fleetbatch.sharding.shard_rows import Row
from fleetbatch.workloads.segments import Segment, wanted_frames

ALL = {"every_frames": "1", "segment_s": "0.5"}
CHANCE = random.Random(20261122)
UNEVEN = tuple(np.cumsum([0, *(CHANCE.randint(1, 5) for _ in range(49))]).tolist())
FILMS = {
    "plain": Film(),
    "B frames": Film(between=3, settings={"b_strategy": "0"}),
    "open GOP": Film(between=3, settings={"b_strategy": "0", "x264-params": "open-gop=1:scenecut=0"}),
    "every frame an IDR frame": Film(group=1, frames=20),
    "variable frame rate": Film(pts=UNEVEN, between=2),
    "with sound": Film(sound=True),
    "MPEG-TS, so Annex B": Film(container="mpegts", between=2),
    "Matroska": Film(container="matroska", between=2),
    "AVI": Film(container="avi"),
    "fragmented MP4": Film(muxing={"movflags": "frag_keyframe+empty_moov"}),
    "interlaced": Film(settings={"x264-params": "interlaced=1"}),
}


def cut(folder: Path, content: bytes, options: Mapping[str, str] = ALL) -> tuple[list[Entry], list[Row]]:
    """Cut a folder with one file as an order does."""
    (folder / "film").write_bytes(content)
    given = open_input("video", str(folder), options)
    entries = list(given.entries())
    return entries, [given.row(entry, bytes_max=1 << 25) for entry in entries]


def segment_of(row: Row) -> Segment:
    assert row.attributes is not None, row.error
    return msgspec.json.decode(row.attributes, type=Segment)


def decoded(rows: list[Row]) -> dict[int, tuple[int, np.ndarray]]:
    """Return number to (pts, RGB) of all that a car would look at."""
    found = {}
    for row in rows:
        if row.content is not None:
            segment = segment_of(row)
            for offset, (pts, frame) in zip(segment.wanted, wanted_frames(bytes(row.content), segment), strict=True):
                assert pts.denominator == 1
                found[segment.frame_start + offset] = (int(pts), frame.to_ndarray(format="rgb24"))
    return found
