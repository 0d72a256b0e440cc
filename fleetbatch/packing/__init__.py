"""A model, its preprocessing, its labels and some pictures become a bundle; only a trusted machine packs.

What the ONNX file says (names, layout, type, batch, size) is read from it and need not be written down; what it cannot
say (colour, resize, normalisation, softmax or logits) must be. The goldens' answers come from a second implementation
that shares no code with the car's: onnx's reference evaluator behind a preprocessing of its own, or a user's answers.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fleetbatch.bundle import (
    Content,
    Golden,
    GoldenAnswer,
    Manifest,
    Precision,
    build_bundle,
    open_bundle,
    read_model_file,
    read_section,
)
from fleetbatch.errors import RejectedError
from fleetbatch.inference import check_goldens, open_inference
from fleetbatch.packing.admission import Signature, admit
from fleetbatch.packing.answers import reference_answers, told_answers
from fleetbatch.pixels import Unreadable, look
from fleetbatch.units import MIB

GOLDENS_MAX: Final = 16
GOLDENS_BYTES: Final = 16 * MIB
SURE: Final = 0.2
"""At least one golden must have an answer above this score: unsure goldens tell nothing apart."""
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRequest:
    """Where the pieces of a bundle are."""

    model: Path
    preprocessing: Path
    """TOML: name, [input] colour, [resize], [normalise], [output] kind, for a detector [boxes]; see README."""
    labels: Path
    """One class a line, in the order of the output; `0,tench, Tinca tinca` (numbered, with synonyms) is understood."""
    goldens: tuple[Path, ...]
    """Pictures, or folders of them."""
    answers: Path | None = None
    """JSON {picture: [[label or class, score], ...]}, from a second implementation of the user's; None: ours.

    A detector's boxes follow each score: left, top, right, bottom in pixels of the picture.
    """
    variants: Mapping[Precision, Path] = field(default_factory=dict)


def pack_bundle(request: PackRequest) -> bytes:
    """Return the bundle, already checked as a car will check it; raise RejectedError naming every problem found."""
    problems: list[str] = []
    model = _read(request.model, problems)
    described = _toml(request.preprocessing, problems)
    labels = _labels(request.labels, problems)
    pictures = _pictures(request.goldens, problems)
    signature = admit(model, request.model.name, problems) if model else None
    variants = {name: _read(path, problems) for name, path in request.variants.items()}
    for name, data in variants.items():
        admit(data, request.variants[name].name, problems) if data else None
    manifest = _manifest(described, signature, request.model, problems) if signature is not None else None
    if problems or manifest is None:
        summary = f"no bundle can be made of {request.model}"
        raise RejectedError(summary, problems)
    if request.answers is None:
        answers = reference_answers(model, manifest, labels, pictures)
    else:
        answers = told_answers(request.answers, labels, list(pictures), boxes=manifest.boxes is not None)
    return _finish(
        Content(manifest=manifest, model=model, labels=labels, goldens=_goldens(answers, pictures), variants=variants)
    )


def _finish(content: Content) -> bytes:
    """Build the bundle and refuse it where a car would."""
    if max((score for golden in content.goldens for score in golden.answer.scores), default=0.0) < SURE:
        summary = f"no golden has a score of {SURE} or more; pictures that the model is sure of tell right from wrong"
        raise RejectedError(summary)
    data = build_bundle(content)
    bundle = open_bundle(data, expected_sha256=None)
    for precision in ("", *content.variants):
        check_goldens(bundle, open_inference(bundle, provider="CPUExecutionProvider", threads=1, precision=precision))
    return data


def _goldens(answers: Mapping[str, GoldenAnswer], pictures: Mapping[str, bytes]) -> tuple[Golden, ...]:
    return tuple(Golden(answer=answers[name], content=pictures[name]) for name in sorted(answers))


def _manifest(described: Mapping[str, Any], signature: Signature, model: Path, problems: list[str]) -> Manifest | None:
    """Join what is described with what the ONNX file says; where both speak they must agree."""
    says = {"input": signature.input_fields(), "output": signature.output_fields()}
    workload = "video" if "boxes" in described else "image"
    raw: dict[str, Any] = {"name": model.stem, "workload": workload, "normalise": {}, **described}
    for section, fields in says.items():
        given = raw.get(section, {})
        if not isinstance(given, Mapping):
            continue  # read_section says so
        problems += [
            f"`{section}.{name}` is {given[name]!r}, but {model.name} says {value!r}"
            for name, value in fields.items()
            if name in given and given[name] != value
        ]
        raw[section] = {**fields, **given}
    return read_section(Manifest, raw, model.name, problems)


def _read(path: Path, problems: list[str]) -> bytes:
    try:
        data = read_model_file(path)
    except RejectedError as error:
        problems.append(error.summary)
        return b""
    if not data:
        problems.append(f"{path.name} is empty")
    return data


def _toml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path, problems).decode())
    except ValueError as error:  # also what is not UTF-8
        problems.append(f"{path} is not TOML: {error}")
        return {}


def _labels(path: Path, problems: list[str]) -> tuple[str, ...]:
    lines = [line.strip() for line in _read(path, problems).decode(errors="replace").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    numbered = bool(lines) and all(line.partition(",")[0] == str(number) for number, line in enumerate(lines))
    if not numbered:
        return tuple(lines)
    return tuple(line.split(",")[1].strip() if "," in line else "" for line in lines)


def _in_folder(folder: Path) -> list[Path]:
    """Return the pictures of a folder by their names; other files may lie beside them."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)


def _pictures(places: tuple[Path, ...], problems: list[str]) -> dict[str, bytes]:
    """Return file name to content; a golden that cannot be decoded is a problem, not a dead letter."""
    chosen = [file for place in places for file in (_in_folder(place) if place.is_dir() else [place])]
    if not chosen:
        problems.append("there are no golden pictures; a car could not tell a right answer from a wrong one")
    if len(chosen) > GOLDENS_MAX:
        problems.append(f"{len(chosen)} golden pictures; at most {GOLDENS_MAX} are taken")
        return {}
    pictures = {file.name: _read(file, problems) for file in chosen}
    if len(pictures) < len(chosen):
        problems.append("two golden pictures have the same file name")
    if sum(map(len, pictures.values())) > GOLDENS_BYTES:
        problems.append(f"the golden pictures are larger than {GOLDENS_BYTES} bytes together")
    for name, content in pictures.items():
        seen = look(content)
        if isinstance(seen, Unreadable):
            problems.append(f"golden {name}: {seen.reason}")
    return pictures
