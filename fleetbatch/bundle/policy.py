"""A policy bundle: a network that turns an observation into an action, and goldens that say what it must answer.

It is a zip as other bundles are, with the members manifest.json, model.onnx and goldens.json.
"""

from typing import Any, Final

import msgspec

from fleetbatch.bundle.archive import bundle_sha256, bundle_workload, unzip_members, zip_members
from fleetbatch.errors import RejectedError
from fleetbatch.units import Sha256

POLICY_FORMAT: Final = 1


class PolicyManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy takes and gives; its only input is float32 [1, values], its only output one row of values."""

    format: int = POLICY_FORMAT
    name: str
    workload: str = "scenario"
    input: str
    """Name of the network's input."""
    values: int
    """Values of an observation."""
    golden_tolerance: float = 1e-3


class PolicyGolden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An observation and what a second implementation made of it."""

    observation: tuple[float, ...]
    output: tuple[float, ...]


class PolicyBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A policy bundle whose form was verified."""

    sha256: Sha256
    manifest: PolicyManifest
    model: bytes
    goldens: tuple[PolicyGolden, ...]


def build_policy(manifest: PolicyManifest, model: bytes, goldens: tuple[PolicyGolden, ...]) -> bytes:
    """Return the zip; the same content gives the same bytes."""
    members = [
        ("manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2)),
        ("model.onnx", model),
        ("goldens.json", msgspec.json.encode(goldens)),
    ]
    return zip_members(members)


def open_policy(data: bytes) -> PolicyBundle:
    """Return a policy bundle; raise RejectedError when it is none, or has no goldens."""
    if (kind := bundle_workload(data)) != "scenario":
        summary = f"the bundle is for workload {kind!r}; a driving scenario needs a policy"
        raise RejectedError(summary)
    members = unzip_members(data)
    if members.keys() != {"manifest.json", "model.onnx", "goldens.json"}:
        summary = f"a policy bundle holds manifest.json, model.onnx and goldens.json; this one {', '.join(members)}"
        raise RejectedError(summary)
    manifest: PolicyManifest = _decode(members, "manifest.json", PolicyManifest)
    goldens: tuple[PolicyGolden, ...] = _decode(members, "goldens.json", tuple[PolicyGolden, ...])
    if manifest.format != POLICY_FORMAT or not goldens:
        summary = f"the policy bundle has format {manifest.format} and {len(goldens)} goldens; 1 and some are needed"
        raise RejectedError(summary)
    return PolicyBundle(sha256=bundle_sha256(data), manifest=manifest, model=members["model.onnx"], goldens=goldens)


def _decode(members: dict[str, bytes], name: str, kind: Any) -> Any:  # noqa: ANN401 (as msgspec.json.decode)
    try:
        return msgspec.json.decode(members.get(name, b""), type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        summary = f"{name} of the bundle cannot be read: {error}"
        raise RejectedError(summary) from error
