import io
import zipfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_bundles import Shape, content, manifest, plain_picture
from msgspec.structs import replace as changed

from fleetbatch.bundle import (
    Content,
    Golden,
    GoldenAnswer,
    Manifest,
    Normalise,
    Resize,
    build_bundle,
    bundle_sha256,
    open_bundle,
    read_model_file,
    read_section,
)
from fleetbatch.errors import RejectedError

GOOD = content()


def golden(name: str, scores: tuple[float, ...] = (1.0,)) -> Golden:
    answer = GoldenAnswer(picture=name, classes=(0,), labels=("red",), scores=scores)
    return Golden(answer=answer, content=plain_picture())


def test_a_bundle_opens_as_it_was_built() -> None:
    data = build_bundle(GOOD)
    bundle = open_bundle(data, expected_sha256=bundle_sha256(data))
    assert bundle.content == GOOD
    assert bundle.sha256 == bundle_sha256(data)


def test_the_same_content_gives_the_same_bytes() -> None:
    assert build_bundle(GOOD) == build_bundle(content())


def test_a_variant_is_taken_where_it_is_and_the_main_model_where_it_is_not() -> None:
    bundle = open_bundle(build_bundle(replace(GOOD, variants={"fp16": b"half"})), expected_sha256=None)
    assert bundle.model("fp16") == b"half"
    assert bundle.model("int8") == bundle.model() == GOOD.model


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=30)
def test_one_changed_bit_is_not_what_the_hash_says(at: int, bit: int) -> None:
    data = bytearray(build_bundle(GOOD))
    expected = bundle_sha256(bytes(data))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(RejectedError, match="not what its hash says"):
        open_bundle(bytes(data), expected_sha256=expected)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_bundle_are_refused_and_never_crash(data: bytes) -> None:
    with pytest.raises(RejectedError):
        open_bundle(data, expected_sha256=None)


@given(st.dictionaries(st.sampled_from(["manifest.json", "model.onnx", "labels.txt", "goldens/answers.json"]),
                       st.binary(max_size=40), min_size=4))  # fmt: skip
@settings(max_examples=50)
def test_a_zip_with_nonsense_inside_is_refused_and_never_crashes(members: dict[str, bytes]) -> None:
    with pytest.raises(RejectedError):
        open_bundle(zipped(members), expected_sha256=None)


def test_compressed_double_or_foreign_members_are_refused() -> None:
    good = build_bundle(GOOD)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with pytest.raises(RejectedError, match="compressed"):
        open_bundle(zipped(members, compression=zipfile.ZIP_DEFLATED), expected_sha256=None)
    with pytest.raises(RejectedError, match=r"run\.sh does not belong"):
        open_bundle(zipped(members | {"run.sh": b"#!"}), expected_sha256=None)
    with pytest.raises(RejectedError, match=r"red\.png is missing"):
        open_bundle(zipped({n: d for n, d in members.items() if n != "goldens/red.png"}), expected_sha256=None)


def test_a_bundle_without_goldens_is_refused() -> None:
    with pytest.raises(RejectedError, match="no goldens"):
        build_bundle(replace(GOOD, goldens=()))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (replace(GOOD, model=b""), "empty"),
        (replace(GOOD, labels=("red",)), "at least two classes"),
        (replace(GOOD, labels=("red", " ", "blue")), "no empty line"),
        (replace(GOOD, labels=("red", "gr\nun", "blue")), "no empty line"),
        (replace(GOOD, labels=("red", "blue", "green")), "do not stand at its classes"),
        (replace(GOOD, manifest=changed(GOOD.manifest, format=2)), "format 2 is not known"),
        (replace(GOOD, manifest=changed(GOOD.manifest, resize=Resize(mode="crop", shorter_side=4))), "fall outside"),
        (replace(GOOD, manifest=changed(GOOD.manifest, resize=Resize(mode="squash", shorter_side=9))), "means nothing"),
        (replace(GOOD, manifest=changed(GOOD.manifest, normalise=Normalise(scale=1e-12))), "black"),
        (replace(GOOD, goldens=(golden("../red.png"),)), "plain file name"),
        (replace(GOOD, goldens=(golden("red.png", scores=(0.5, 0.5)),)), "equally many"),
    ],
)  # fmt: skip
def test_a_bundle_that_cannot_work_is_refused_with_its_reason(wrong: Content, why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        build_bundle(wrong)


def test_every_mistake_in_a_manifest_is_named_at_once() -> None:
    problems: list[str] = []
    raw = {
        "name": "m",
        "workload": "image",
        "input": {"name": "x", "layout": "CHW", "dtype": "fp32", "batch": 0, "width": 0, "height": 8, "colour": "RGB"},
        "resize": {"mode": "stretch", "filtre": "box"},
        "normalise": {"std": [1, 0, 1]},
    }
    assert read_section(Manifest, raw, "m", problems) is None
    named = "\n".join(problems)
    for word in ("`m.input.layout`", "`m.input.width`", "`m.resize.filtre`", "`m.resize.mode`", "`m.normalise.std`",
                 "`m.output` is missing"):  # fmt: skip
        assert word in named
    assert len(problems) == 6


def test_what_a_manifest_does_not_say_has_its_default() -> None:
    told = msgspec.to_builtins(manifest(Shape()))
    del told["golden_tolerance"], told["format"], told["resize"]["anchor"]
    assert read_section(Manifest, told, "m", []) == manifest(Shape())


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_file_that_no_car_could_hold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.zip"
    with huge.open("wb") as file:
        file.truncate(256 << 30)
    with pytest.raises(RejectedError, match="more than 268435456 bytes"):
        read_model_file(huge)
    with pytest.raises(RejectedError, match=r"cannot read .*absent.zip: No such file"):
        read_model_file(tmp_path / "absent.zip")
