"""The drawn drive: seed, clip and frame say everything about it, and its detector sees what is there."""

import io
from collections import Counter

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fleetbatch.bundle import found_in, open_bundle, overlap
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.orders import model_file
from fleetbatch.pixels import prepare
from fleetbatch.sharding.drive import SPOILED, Driving, clip_file, driving, encode, uris
from fleetbatch.sharding.drive_scene import HEIGHT, LABELS, SEEN_PIXELS, WIDTH, draw, named, things
from fleetbatch.sharding.openers import list_input, open_input

numbers = st.integers(0, 2**40)
ORDER = "generator:drive?clips=6&frames=26&seed=5&broken=5"


@given(seed=numbers, clip=st.integers(0, 99), frame=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_what_is_named_is_in_the_picture_and_large_enough(seed: int, clip: int, frame: int) -> None:
    there = Counter(thing.label for thing in things(seed, clip, frame))
    for label, (left, top, right, bottom) in named(seed, clip, frame):
        assert 0 <= left < right <= WIDTH
        assert 0 <= top < bottom <= HEIGHT
        assert min(right - left, bottom - top) >= SEEN_PIXELS
        there[label] -= 1
    assert min(there.values(), default=0) >= 0
    assert draw(seed, clip, frame).shape == (HEIGHT, WIDTH, 3)


def test_the_same_clip_is_the_same_file_and_another_is_another() -> None:
    assert encode(1, 2, 10) == encode(1, 2, 10)
    assert len({encode(seed, clip, 3) for seed in range(3) for clip in range(3)}) == 9


def test_things_move_from_frame_to_frame() -> None:
    near = [[thing.ahead for thing in things(4, 4, frame) if thing.label == "sign"] for frame in (0, 5)]
    assert near[0] != near[1]
    assert {label for clip in range(20) for label, _ in named(1, clip, 0)} == set(LABELS)


def test_every_way_to_spoil_a_clip_becomes_a_dead_letter_of_its_own_and_the_rest_is_cut() -> None:
    given = open_input("video", ORDER, {"every_frames": "5", "segment_s": "1"})
    rows = [(entry.uri, given.row(entry, bytes_max=1 << 24)) for entry in given.entries()]
    dead = {uri.partition("spoiled=")[2]: row.error for uri, row in rows if row.error is not None}
    assert set(dead) == set(SPOILED)
    assert dead["hevc"] is not None
    assert "hevc" in dead["hevc"]
    assert dead["sound"] == "holds no video stream, only audio"
    assert [row.answers for uri, row in rows if row.error is None] == [5, 1]
    assert list_input(given).items == 7


def test_dials_are_refused_all_at_once() -> None:
    with pytest.raises(RejectedError) as caught:
        driving({"clips": "0", "frames": "many", "speed": "9"})
    for word in ("clips", "frames", "speed"):
        assert word in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(seed=numbers, clips=st.integers(1, 60), broken=st.integers(0, 60))
def test_uris_name_every_clip_once(seed: int, clips: int, broken: int) -> None:
    dials = Driving(clips=clips, seed=seed, broken=min(broken, clips))
    assert len(set(uris(dials))) == clips
    assert sum("spoiled" in uri for uri in uris(dials)) == dials.broken


def test_its_detector_finds_nine_of_ten_boxes_in_encoded_clips_that_it_never_saw() -> None:
    bundle = open_bundle(model_file("drive").read_bytes(), expected_sha256=None)
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1)
    check_goldens(bundle, inference)
    hits, there, told = 0, 0, 0
    for clip in range(12):
        uri = next(uri for number, uri in enumerate(uris(Driving(clips=12, frames=60, seed=77))) if number == clip)
        with av.open(io.BytesIO(clip_file(uri)), "r") as container:
            frames = dict(enumerate(container.decode(video=0)))
        for number in range(0, 60, 12):
            picture = Image.fromarray(np.asarray(frames[number].to_ndarray(format="rgb24"), np.uint8))
            [raw] = inference(prepare(picture, bundle.manifest)[np.newaxis])
            found = found_in(raw, bundle.manifest, bundle.labels, picture.size)
            wanted = named(77, clip, number)
            there, told = there + len(wanted), told + len(found)
            for label in LABELS:
                ours = [one.box for one in wanted if one.label == label]
                theirs = [one.box for one in found if one.label == label]
                if ours and theirs:
                    hits += int((overlap(ours, theirs).max(axis=1) >= 0.5).sum())
    assert there > 100
    assert hits / there > 0.85
    assert hits / told > 0.85
