"""A model bundle is one zip: an ONNX file, its preprocessing, its labels and goldens; its hash is the zip's sha256.

Members, in this order, stored and never compressed (so the size of the file is the size in memory), dated 1980-01-01,
so that the same content is the same bytes:

    manifest.json         what `Manifest` declares; unknown fields are refused
    model.onnx            no external tensors
    model.fp16.onnx       optional: the same model in another precision, for hardware classes that ask for it
    labels.txt            one class a line, in the order of the output (background class left out)
    goldens/answers.json  what a second implementation answered, best class first
    goldens/<picture>     the pictures, as files
"""

from fleetbatch.bundle.archive import (
    BUNDLE_BYTES,
    build_bundle,
    bundle_sha256,
    bundle_workload,
    open_bundle,
    read_model_file,
)
from fleetbatch.bundle.boxes import Found, difference, found_in, golden_found, overlap, places_of
from fleetbatch.bundle.content import Bundle, Content, Golden
from fleetbatch.bundle.manifest import (
    DETECTIONS_MAX,
    FORMAT,
    PRECISIONS,
    Box,
    Boxes,
    Dtype,
    Filter,
    GoldenAnswer,
    Input,
    Layout,
    Manifest,
    Normalise,
    Output,
    Precision,
    Resize,
    read_section,
)
from fleetbatch.bundle.placing import Placement, placement

__all__ = [
    "BUNDLE_BYTES",
    "DETECTIONS_MAX",
    "FORMAT",
    "PRECISIONS",
    "Box",
    "Boxes",
    "Bundle",
    "Content",
    "Dtype",
    "Filter",
    "Found",
    "Golden",
    "GoldenAnswer",
    "Input",
    "Layout",
    "Manifest",
    "Normalise",
    "Output",
    "Placement",
    "Precision",
    "Resize",
    "build_bundle",
    "bundle_sha256",
    "bundle_workload",
    "difference",
    "found_in",
    "golden_found",
    "open_bundle",
    "overlap",
    "placement",
    "places_of",
    "read_model_file",
    "read_section",
]
