"""What a bundle says about a model: how a picture becomes its input, and its output an answer."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import msgspec

FORMAT: Final = 1
SIDE_PIXELS: Final = 4096
"""The longest side of a model's input."""
DETECTIONS_MAX: Final = 64
"""Of one picture; the best are kept."""
PRECISIONS: Final = ("fp32", "fp16", "int8")

Layout = Literal["NCHW", "NHWC"]
Precision = Literal["fp32", "fp16", "int8"]
Dtype = Literal["fp32", "fp16", "uint8"]
Filter = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
Three = tuple[float, float, float]
Side = Annotated[int, msgspec.Meta(ge=1, le=SIDE_PIXELS)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
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
    """What the model answers: [N, classes], or [N, classes, 1, 1] or [N, 1, 1, classes], squeezed; boxes: see Boxes."""

    name: str
    kind: Literal["softmax", "logits", "boxes"]
    """logits become scores by softmax over all classes, the background class included."""
    background: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The index of a class that is no answer; it is dropped, and labels.txt does not name it."""
    top_k: Annotated[int, msgspec.Meta(ge=1, le=5)] = 5


class Boxes(_Section, frozen=True, kw_only=True):
    """How a detector's output [N, places, values] becomes boxes; a place's values are its box, then its classes.

    corners: left, top, right, bottom; centres: x and y of the middle, width, height: both in the input's pixels. yolox:
    as centres, but the middle counts from the place's cell and the sides are logarithms, in strides of its grid; the
    grids follow each other in the order of `strides`, each row by row.
    """

    form: Literal["corners", "centres", "yolox"]
    strides: tuple[Annotated[int, msgspec.Meta(ge=1, le=SIDE_PIXELS)], ...] = ()
    """yolox only: pixels of a cell, grid by grid; each divides the input's sides."""
    objectness: bool = False
    """Between box and classes stands how likely anything is there; it multiplies every class."""
    score_min: Share = 0.3
    """What scores less is no detection."""
    overlap_max: Share = 0.45
    """Of two boxes with one label whose intersection over union is larger, the one with the better score stays."""


class Manifest(_Section, frozen=True, kw_only=True):
    """Everything that turns a picture into labels and scores, besides the model itself."""

    format: int = FORMAT
    name: str
    workload: str
    input: Input
    resize: Resize
    normalise: Normalise
    output: Output
    boxes: Boxes | None = None
    """Detectors only, whose output is of kind boxes."""
    golden_tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.1)] = 0.02
    """How far a score may be from the golden's."""
    int8_tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.15
    """The same for the int8 variant, which an order must ask for."""


class GoldenAnswer(_Section, frozen=True, kw_only=True):
    """The best classes of one golden picture, best first; of a detector, all that it must find there."""

    picture: str
    classes: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    labels: tuple[str, ...]
    scores: tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], ...]
    boxes: tuple[Box, ...] = ()
    """Detectors only: one for each class, in pixels of the picture."""


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
    section = next((k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, _Section)), None)
    if section is not None and (value is not None or section is kind):
        return read_section(section, value, where, problems)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problems.append(f"`{where}` is {value!r}: {error}")
        return None
