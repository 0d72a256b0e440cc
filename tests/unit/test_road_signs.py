import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fleetbatch.bundle import Bundle, open_bundle
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.orders import model_file
from fleetbatch.picture_heads import Header
from fleetbatch.pixels import Unreadable, decode, look, prepare
from fleetbatch.sharding.road_signs import LABELS, SIZE_BYTES_MAX, Drawing, drawing, label_of, picture_file, uris
from fleetbatch.units import MIB

numbers = st.integers(0, 2**40)


def pixels(uri: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(picture_file(uri))))


@given(numbers, st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_seed_and_index_say_everything_about_a_picture(seed: int, index: int) -> None:
    uri = f"road-signs://{seed}/{index}#stop"
    file = picture_file(uri)
    assert file == picture_file(uri)
    assert len(file) <= SIZE_BYTES_MAX
    header = look(file)
    assert isinstance(header, Header)
    assert header.format == "JPEG"
    assert 48 <= header.width == header.height <= 80


def test_other_indexes_and_other_seeds_are_other_pictures() -> None:
    files = [picture_file(f"road-signs://{seed}/{index}#stop") for seed in range(3) for index in range(20)]
    assert len(set(files)) == 60


@given(numbers, st.integers(1, 60), st.integers(0, 60))
def test_uris_name_every_index_once_with_its_label(seed: int, count: int, broken: int) -> None:
    named = list(uris(Drawing(count=count, seed=seed, broken=min(broken, count))))
    assert len(set(named)) == count
    assert all(label_of(uri) in LABELS for uri in named)
    assert sum("spoiled" in uri for uri in named) == min(broken, count)


def test_every_class_is_drawn_about_as_often() -> None:
    counts = Counter(label_of(uri) for uri in uris(Drawing(count=17_000, seed=3)))
    assert set(counts) == set(LABELS)
    assert len(LABELS) >= 12
    assert 850 < min(counts.values()) <= max(counts.values()) < 1150


def test_a_spoiled_picture_is_found_when_it_is_cut_or_when_it_is_decoded() -> None:
    def found(how: str) -> tuple[bool, bool]:
        file = picture_file(f"road-signs://1/2?spoiled={how}#stop")
        return isinstance(look(file), Unreadable), isinstance(decode(file), Unreadable)

    assert [found(how) for how in ("empty", "text", "header", "half")] == [(True, True)] * 3 + [(False, True)]


def test_a_picture_is_not_only_noise_and_not_one_colour() -> None:
    for index in range(20):
        assert 8 < pixels(f"road-signs://9/{index}#x").std() < 120


def test_dials_from_text_have_bounds() -> None:
    assert drawing({"count": "5", "seed": "0"}) == Drawing(count=5, seed=0)
    for wrong in ({"count": "0"}, {"count": "five"}, {"seed": "-1"}, {"size": "3"}, {"count": "\u0665"}):
        with pytest.raises(RejectedError):
            drawing(wrong)


def test_only_a_drawn_sign_has_a_known_label() -> None:
    assert label_of("road-signs://1/2?spoiled=half#speed_limit_30") == "speed_limit_30"
    for other in ("file:///a.jpg#stop", "road-signs://1/2#unicorn", ""):
        with pytest.raises(RejectedError):
            label_of(other)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(model_file("road-signs").read_bytes(), expected_sha256=None)


def test_the_packages_model_is_small_and_gives_the_answers_of_its_second_implementation(bundle: Bundle) -> None:
    assert len(bundle.content.model) < MIB
    assert bundle.labels == LABELS
    check_goldens(bundle, open_inference(bundle, provider="CPUExecutionProvider", threads=1))


def test_the_packages_model_is_right_on_pictures_it_never_saw(bundle: Bundle) -> None:
    inference = open_inference(bundle, provider="CPUExecutionProvider", threads=1)
    names = list(uris(Drawing(count=300, seed=424242)))
    pictures = [decode(picture_file(uri)) for uri in names]
    inputs = [prepare(p, bundle.manifest) for p in pictures if not isinstance(p, Unreadable)]
    best = inference(np.stack(inputs)).argmax(axis=1)
    right = sum(bundle.labels[found] == label_of(uri) for found, uri in zip(best, names, strict=True))
    assert right / len(names) >= 0.95
