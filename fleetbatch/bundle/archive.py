"""A bundle's content to one deterministic zip, and back."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from fleetbatch.bundle.content import Bundle, Content, Golden, content_problems
from fleetbatch.bundle.manifest import GoldenAnswer, Manifest, Precision, read_section
from fleetbatch.errors import RejectedError
from fleetbatch.units import MIB, Sha256

BUNDLE_BYTES: Final = 256 * MIB
"""A bundle larger than this is refused: a car holds it in memory."""


def read_model_file(path: Path) -> bytes:
    """Return the bytes of a bundle or of what goes into one; raise RejectedError when they are no file's, or too many.

    No more is read than may be there: a file of 256 GiB would not fit into memory only to be refused.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BUNDLE_BYTES + 1)
    except OSError as error:
        summary = f"cannot read {path}: {error.strerror}"
        raise RejectedError(summary) from error
    if len(data) > BUNDLE_BYTES:
        summary = f"{path} has more than {BUNDLE_BYTES} bytes, the most that a car holds in memory"
        raise RejectedError(summary)
    return data


def build_bundle(content: Content) -> bytes:
    """Return the zip; raise RejectedError listing everything that `open_bundle` would refuse.

    Deterministic: the same content gives the same bytes and so the same hash.
    """
    _refuse("the bundle cannot be built", content_problems(content))
    return zip_members(_members(content))


def bundle_workload(data: bytes) -> str:
    """Return the workload that a bundle of any kind says it is for; raise RejectedError when it is no bundle."""

    class Named(msgspec.Struct):
        workload: str

    try:
        return msgspec.json.decode(unzip_members(data).get("manifest.json", b""), type=Named).workload
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        summary = f"manifest.json in the bundle names no workload: {error}"
        raise RejectedError(summary) from error


def zip_members(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a zip of members in this order, stored and dated alike: the same members give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(_entry(name), data)
    return buffer.getvalue()


def bundle_sha256(data: bytes) -> Sha256:
    """Return the hash under which a bundle is named."""
    return Sha256(hashlib.sha256(data).hexdigest())


def open_bundle(data: bytes, *, expected_sha256: str | None) -> Bundle:
    """Return a verified bundle; raise RejectedError when it is not what its hash says, or not a bundle."""
    found = bundle_sha256(data)
    if expected_sha256 is not None and found != expected_sha256:
        summary = f"the bundle is not what its hash says: expected {expected_sha256}, found {found}"
        raise RejectedError(summary)
    content = _content(unzip_members(data))
    _refuse("the bundle cannot be used", content_problems(content))
    return Bundle(sha256=found, content=content)


def _members(content: Content) -> list[tuple[str, bytes]]:
    answers = [golden.answer for golden in content.goldens]
    return [
        ("manifest.json", msgspec.json.format(msgspec.json.encode(content.manifest), indent=2)),
        ("model.onnx", content.model),
        *((f"model.{name}.onnx", content.variants[name]) for name in sorted(content.variants)),
        ("labels.txt", "".join(f"{label}\n" for label in content.labels).encode()),
        ("goldens/answers.json", msgspec.json.format(msgspec.json.encode(answers), indent=2)),
        *((f"goldens/{golden.answer.picture}", golden.content) for golden in content.goldens),
    ]


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix everywhere, or the platform would change the hash
    entry.external_attr = 0o644 << 16
    return entry


def unzip_members(data: bytes) -> dict[str, bytes]:
    """Return name to content of a zip that `zip_members` made; raise RejectedError for any other."""
    if len(data) > BUNDLE_BYTES:
        summary = f"the bundle has {len(data)} bytes; at most {BUNDLE_BYTES} are taken"
        raise RejectedError(summary)
    try:
        return _unzip(data)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        summary = f"the bundle is not a zip of ours ({error}); make it with `fleetbatch model pack`"
        raise RejectedError(summary) from error


def _unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        total = sum(entry.file_size for entry in entries)
        if packed or total > len(data) or len(entries) != len(set(archive.namelist())):
            summary = "the bundle has compressed or double members; make it with `fleetbatch model pack`"
            raise RejectedError(summary, packed)
        return {entry.filename: archive.read(entry) for entry in entries}


def _content(members: dict[str, bytes]) -> Content:
    needed = ("manifest.json", "model.onnx", "labels.txt", "goldens/answers.json")
    _refuse("the bundle is not complete", [f"{name} is missing" for name in needed if name not in members])
    problems: list[str] = []
    manifest = read_section(Manifest, _json(members["manifest.json"], "manifest.json"), "manifest", problems)
    listed = _json(members["goldens/answers.json"], "goldens/answers.json")
    answers = [
        read_section(GoldenAnswer, raw, f"goldens[{number}]", problems)
        for number, raw in enumerate(listed if isinstance(listed, list) else [listed])
    ]
    names = {f"goldens/{answer.picture}" for answer in answers if answer is not None}
    variants: dict[Precision, bytes] = {
        p: members[f"model.{p}.onnx"] for p in ("fp32", "fp16", "int8") if f"model.{p}.onnx" in members
    }
    known = {*needed, *names, *(f"model.{p}.onnx" for p in variants)}
    problems += [f"{name} does not belong into a bundle" for name in sorted(members.keys() - known)]
    problems += [f"{name} is missing" for name in sorted(names - members.keys())]
    if problems or manifest is None:
        summary = "the bundle cannot be used"
        raise RejectedError(summary, problems)
    return Content(
        manifest=manifest,
        model=members["model.onnx"],
        labels=tuple(members["labels.txt"].decode(errors="replace").removesuffix("\n").split("\n")),
        goldens=tuple(Golden(answer=a, content=members[f"goldens/{a.picture}"]) for a in answers if a is not None),
        variants=variants,
    )


def _json(data: bytes, name: str) -> Any:  # noqa: ANN401 (parsed JSON)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        summary = f"{name} in the bundle is not JSON: {error}"
        raise RejectedError(summary) from error


def _refuse(summary: str, problems: Sequence[str]) -> None:
    if problems:
        raise RejectedError(summary, problems)
