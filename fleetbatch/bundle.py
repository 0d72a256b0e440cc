"""A model bundle is one zip: an ONNX file, its preprocessing, its labels and goldens; its hash is the zip's sha256.

Members, in this order, stored and never compressed (so the size of the file is the size in memory), dated 1980-01-01,
so that the same content is the same bytes:

    manifest.json         what this module's `Manifest` declares; unknown fields are refused
    model.onnx            no external tensors
    model.fp16.onnx       optional: the same model in another precision, for hardware classes that ask for it
    labels.txt            one class a line, in the order of the output (background class left out)
    goldens/answers.json  what a second implementation answered, best class first
    goldens/<picture>     the pictures, as files
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from fleetbatch.errors import RejectedError
from fleetbatch.units import MIB, Sha256

FORMAT: Final = 1
BUNDLE_BYTES: Final = 256 * MIB
"""A bundle larger than this is refused: a car holds it in memory."""
SIDE_PIXELS: Final = 4096
"""The longest side of a model's input."""
PRECISIONS: Final = ("fp32", "fp16", "int8")

Layout = Literal["NCHW", "NHWC"]
Precision = Literal["fp32", "fp16", "int8"]
Dtype = Literal["fp32", "fp16", "uint8"]
Filter = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
Three = tuple[float, float, float]
Side = Annotated[int, msgspec.Meta(ge=1, le=SIDE_PIXELS)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mistyped field is refused: preprocessing that is quietly ignored gives quietly wrong answers."""


AnySection = TypeVar("AnySection", bound=_Section)


class Input(_Section, frozen=True, kw_only=True):
    """What the model is fed."""

    name: str
    layout: Layout
    dtype: Dtype
    batch: Annotated[int, msgspec.Meta(ge=0, le=1024)]
    """Pictures a run takes: exactly this many, or any number when 0."""
    width: Side
    height: Side
    colour: Literal["RGB", "BGR"]


class Resize(_Section, frozen=True, kw_only=True):
    """How a picture gets the input's size.

    squash: straight to width x height. crop: the shorter side to `shorter_side`, then the centre width x height.
    letterbox: the largest size that fits, the rest filled with `padding`.
    """

    mode: Literal["squash", "crop", "letterbox"]
    filter: Filter = "bilinear"
    shorter_side: Annotated[int, msgspec.Meta(ge=0, le=SIDE_PIXELS)] = 0
    """crop only."""
    padding: Byte = 0
    """letterbox only."""
    anchor: Literal["centre", "top_left"] = "centre"
    """letterbox only: where the picture lies."""


class Normalise(_Section, frozen=True, kw_only=True):
    """value = (pixel * scale - mean) / std, pixel 0 to 255, channels in the order of the input's colour."""

    scale: Positive = 1.0
    mean: Three = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)


class Output(_Section, frozen=True, kw_only=True):
    """What the model answers: [N, classes], or [N, classes, 1, 1] or [N, 1, 1, classes], squeezed."""

    name: str
    kind: Literal["softmax", "logits"]
    """logits become scores by softmax over all classes, the background class included."""
    background: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The index of a class that is no answer; it is dropped, and labels.txt does not name it."""
    top_k: Annotated[int, msgspec.Meta(ge=1, le=5)] = 5


class Manifest(_Section, frozen=True, kw_only=True):
    """Everything that turns a picture into labels and scores, besides the model itself."""

    format: int = FORMAT
    name: str
    workload: str
    input: Input
    resize: Resize
    normalise: Normalise
    output: Output
    golden_tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.1)] = 0.02
    """How far a score may be from the golden's."""


class GoldenAnswer(_Section, frozen=True, kw_only=True):
    """The best classes of one golden picture, best first."""

    picture: str
    classes: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    labels: tuple[str, ...]
    scores: tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A picture and what a second implementation answered."""

    answer: GoldenAnswer
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What goes into a bundle."""

    manifest: Manifest
    model: bytes
    labels: tuple[str, ...]
    goldens: tuple[Golden, ...]
    variants: Mapping[Precision, bytes]
    """The same model in other precisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose hash and form were verified; the goldens are the business of `inference.check_goldens`."""

    sha256: Sha256
    content: Content

    @property
    def manifest(self) -> Manifest:
        """Return preprocessing and output."""
        return self.content.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the classes in the order of the scores."""
        return self.content.labels

    def model(self, precision: str = "") -> bytes:
        """Return the ONNX file of that precision, or the main one where the bundle has no such variant."""
        return next((data for name, data in self.content.variants.items() if name == precision), self.content.model)


def build_bundle(content: Content) -> bytes:
    """Return the zip; raise RejectedError listing everything that `open_bundle` would refuse.

    Deterministic: the same content gives the same bytes and so the same hash.
    """
    _refuse("the bundle cannot be built", _problems(content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _members(content):
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
    if len(data) > BUNDLE_BYTES:
        summary = f"the bundle has {len(data)} bytes; at most {BUNDLE_BYTES} are taken"
        raise RejectedError(summary)
    try:
        content = _content(_unzip(data))
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        summary = f"the bundle is not a zip of ours ({error}); make it with `fleetbatch model pack`"
        raise RejectedError(summary) from error
    _refuse("the bundle cannot be used", _problems(content))
    return Bundle(sha256=found, content=content)


def read_section(kind: type[AnySection], raw: Any, where: str, problems: list[str]) -> AnySection | None:  # noqa: ANN401 (parsed TOML or JSON)
    """Return one checked section, or None with every mistake in it appended to `problems`."""
    if not isinstance(raw, Mapping):
        problems.append(f"`{where}` must be a table of {', '.join(kind.__struct_fields__)}")
        return None
    before = len(problems)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    problems += [f"`{where}.{name}` is not known; known are {', '.join(fields)}" for name in raw if name not in fields]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                problems.append(f"`{where}.{name}` is missing")
            continue
        values[name] = _read_field(field.type, raw[name], f"{where}.{name}", problems)
    return kind(**values) if len(problems) == before else None


def _read_field(kind: Any, value: Any, where: str, problems: list[str]) -> Any:  # noqa: ANN401 (any field's type)
    if isinstance(kind, type) and issubclass(kind, _Section):
        return read_section(kind, value, where, problems)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problems.append(f"`{where}` is {value!r}: {error}")
        return None


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


def _problems(content: Content) -> list[str]:
    manifest, labels = content.manifest, content.labels
    resize = manifest.resize
    problems = []
    if manifest.format != FORMAT:
        problems.append(f"format {manifest.format} is not known; this version reads {FORMAT}")
    if not content.model:
        problems.append("model.onnx is empty")
    if resize.mode == "crop" and resize.shorter_side < max(manifest.input.width, manifest.input.height):
        problems.append(
            f"`resize.shorter_side` {resize.shorter_side} is smaller than the input; crop would fall outside"
        )
    if resize.mode != "crop" and resize.shorter_side:
        problems.append(f"`resize.shorter_side` means nothing with mode {resize.mode}")
    if manifest.normalise.scale * 255 < 1e-6:  # noqa: PLR2004 (every picture would be black)
        problems.append(f"`normalise.scale` {manifest.normalise.scale} makes every picture black")
    if len(labels) < 2 or any(not label.strip() or "\n" in label for label in labels):  # noqa: PLR2004 (a choice needs two)
        problems.append("labels.txt needs at least two classes and no empty line")
    if not content.goldens:
        problems.append("the bundle has no goldens; a car could not tell a right answer from a wrong one: add pictures")
    return problems + [problem for golden in content.goldens for problem in _golden_problems(golden, labels)]


def _golden_problems(golden: Golden, labels: Sequence[str]) -> list[str]:
    answer = golden.answer
    where = f"golden {answer.picture}"
    if "/" in answer.picture or answer.picture in {"", "answers.json"}:
        return [f"{where}: a picture's name is a plain file name"]
    if not len(answer.classes) == len(answer.labels) == len(answer.scores) > 0:
        return [f"{where}: classes, labels and scores must be equally many and not empty"]
    if max(answer.classes) >= len(labels) or any(
        labels[c] != name for c, name in zip(answer.classes, answer.labels, strict=True)
    ):
        return [f"{where}: its labels do not stand at its classes in labels.txt"]
    return []


def _refuse(summary: str, problems: Sequence[str]) -> None:
    if problems:
        raise RejectedError(summary, problems)
