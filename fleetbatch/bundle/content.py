"""What is in a bundle, and what is wrong with it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fleetbatch.bundle.manifest import FORMAT, GoldenAnswer, Manifest, Precision
from fleetbatch.units import Sha256


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

    def without_model(self) -> "Bundle":
        """Return what is still needed once the model is open and checked, so that the rest can be let go."""
        return replace(self, content=replace(self.content, model=b"", variants={}, goldens=()))

    def model(self, precision: str = "") -> bytes:
        """Return the ONNX file of that precision, or the main one where the bundle has no such variant."""
        return next((data for name, data in self.content.variants.items() if name == precision), self.content.model)


def content_problems(content: Content) -> list[str]:
    """Return everything that would make a car or a person stumble."""
    manifest, labels = content.manifest, content.labels
    problems = []
    if manifest.format != FORMAT:
        problems.append(f"format {manifest.format} is not known; this version reads {FORMAT}")
    if not content.model:
        problems.append("model.onnx is empty")
    if manifest.normalise.scale * 255 < 1e-6:  # noqa: PLR2004 (every picture would be black)
        problems.append(f"`normalise.scale` {manifest.normalise.scale} makes every picture black")
    if len(labels) < 2 or any(not label.strip() or "\n" in label for label in labels):  # noqa: PLR2004 (a choice needs two)
        problems.append("labels.txt needs at least two classes and no empty line")
    problems += _resize_problems(manifest)
    problems += _boxes_problems(manifest)
    if not content.goldens:
        problems.append("the bundle has no goldens; a car could not tell a right answer from a wrong one: add pictures")
    elif manifest.boxes is not None and not any(golden.answer.boxes for golden in content.goldens):
        problems.append("no golden has anything to find in it; add a picture in which the model finds something")
    return problems + [problem for golden in content.goldens for problem in _golden_problems(golden, content)]


def _resize_problems(manifest: Manifest) -> list[str]:
    resize = manifest.resize
    if resize.mode == "crop" and resize.shorter_side < max(manifest.input.width, manifest.input.height):
        return [f"`resize.shorter_side` {resize.shorter_side} is smaller than the input; crop would fall outside"]
    if resize.mode != "crop" and resize.shorter_side:
        return [f"`resize.shorter_side` means nothing with mode {resize.mode}"]
    return []


def _boxes_problems(manifest: Manifest) -> list[str]:
    boxes = manifest.boxes
    if (boxes is not None) != (manifest.output.kind == "boxes"):
        return ["a detector says both `output.kind` = boxes and a `boxes` section; other models say neither"]
    if boxes is None:
        return []
    problems = []
    sides = (manifest.input.width, manifest.input.height)
    if (boxes.form == "yolox") != bool(boxes.strides):
        problems.append("`boxes.strides` names the grids of form yolox, and of no other")
    if any(side % stride for stride in boxes.strides for side in sides):
        problems.append(
            f"`boxes.strides` {list(boxes.strides)} do not divide the input's {sides[0]} x {sides[1]} pixels"
        )
    if manifest.output.background is not None:
        problems.append("`output.background` means nothing with kind boxes")
    if manifest.resize.mode == "crop":
        problems.append("a detector looks at whole pictures: `resize.mode` is letterbox or squash")
    return problems


def _golden_problems(golden: Golden, content: Content) -> list[str]:
    answer, labels = golden.answer, content.labels
    where = f"golden {answer.picture}"
    if "/" in answer.picture or answer.picture in {"", "answers.json"}:
        return [f"{where}: a picture's name is a plain file name"]
    detector = content.manifest.boxes is not None
    if not len(answer.classes) == len(answer.labels) == len(answer.scores) or not (answer.classes or detector):
        return [f"{where}: classes, labels and scores must be equally many and not empty"]
    if len(answer.boxes) != (len(answer.classes) if detector else 0):
        return [f"{where}: a detector's golden has a box for each class, another model's none"]
    if any(c >= len(labels) or labels[c] != name for c, name in zip(answer.classes, answer.labels, strict=True)):
        return [f"{where}: its labels do not stand at its classes in labels.txt"]
    return []
