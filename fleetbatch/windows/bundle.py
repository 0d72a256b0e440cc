"""The forecast's model as one file: ONNX, group curves, calibration, thresholds, a manifest. Pure: bytes in and out.

Members of the zip, in this order, stored, dated 1980-01-01, so that the same content is the same bytes:

    manifest.json   what `Manifest` declares; unknown fields are refused
    model.onnx      features and L1's log-odds in, log S at `edges_h` out
    groups.npz      L0's curves (log_survival, tail_hazard)
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
import numpy as np

from fleetbatch.errors import RejectedError
from fleetbatch.units import Sha256
from fleetbatch.windows.calibration import CONDITIONS, Calibration
from fleetbatch.windows.conformal import Thresholds
from fleetbatch.windows.features import EDGES_H, FEATURES
from fleetbatch.windows.groups import GROUPS, TICKS, GroupCurves

FORMAT: Final = 1
ZONE_RULE: Final = "wall time of each row's IANA zone at each instant; a logical day begins at 04:00"
_WIDTH: Final = 2 + len(CONDITIONS)
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MEMBERS: Final = ("manifest.json", "model.onnx", "groups.npz")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a reader must know to use the model, and what it refuses to guess."""

    format: Literal[1]
    features: list[str]
    """In the order of the input; each must be one that this release computes from what is known at the moment."""
    edges_h: list[float]
    unit: Literal["hours"]
    zone_rule: str
    trained_until: str
    """RFC 3339; no stay that ended later was learnt from."""
    stays: int
    model_sha256: str
    conditions: list[str]
    calibration: list[list[float]]
    """Per horizon: intercept, slope, and a shift per condition."""
    risk_length: list[float]
    risk_history: list[float]
    risk_day: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """A model that reproduces its reference, with the curves its features lean on."""

    model: bytes
    groups: GroupCurves
    stays: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsBundle:
    """An opened bundle."""

    sha256: Sha256
    """Of the zip."""
    manifest: Manifest
    model: bytes
    groups: GroupCurves
    calibration: Calibration
    thresholds: Thresholds


def build_bundle(learnt: Learnt, tuned: tuple[Calibration, Thresholds], *, trained_until: datetime) -> bytes:
    """Return the zip; the same arguments give the same bytes."""
    calibration, thresholds = tuned
    manifest = Manifest(
        format=FORMAT,
        features=list(FEATURES),
        edges_h=EDGES_H.tolist(),
        unit="hours",
        zone_rule=ZONE_RULE,
        trained_until=trained_until.astimezone(UTC).isoformat(),
        stays=learnt.stays,
        model_sha256=hashlib.sha256(learnt.model).hexdigest(),
        conditions=list(CONDITIONS),
        calibration=calibration.coefficients.tolist(),
        risk_length=thresholds.length.tolist(),
        risk_history=thresholds.history.tolist(),
        risk_day=thresholds.day.tolist(),
    )
    curves = io.BytesIO()
    np.savez(curves, log_survival=learnt.groups.log_survival, tail_hazard=np.array(learnt.groups.tail_hazard))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(
            _MEMBERS, (msgspec.json.encode(manifest), learnt.model, curves.getvalue()), strict=True
        ):
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return sink.getvalue()


def open_bundle(data: bytes) -> WindowsBundle:
    """Check and open a bundle; raise RejectedError naming everything that is wrong with it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            raw, model, curves = (archive.read(name) for name in _MEMBERS)
        manifest = msgspec.json.decode(raw, type=Manifest)
        with np.load(io.BytesIO(curves), allow_pickle=False) as arrays:
            groups = GroupCurves(log_survival=arrays["log_survival"], tail_hazard=float(arrays["tail_hazard"]))
    except (zipfile.BadZipFile, KeyError, ValueError, msgspec.ValidationError) as error:
        summary = "the file is not a bundle of a windows model"
        raise RejectedError(summary, [str(error)]) from error
    problems = _problems(manifest, model, groups)
    if problems:
        summary = "the windows bundle cannot be used"
        raise RejectedError(summary, problems)
    return WindowsBundle(
        sha256=Sha256(hashlib.sha256(data).hexdigest()),
        manifest=manifest,
        model=model,
        groups=groups,
        calibration=Calibration(coefficients=np.array(manifest.calibration)),
        thresholds=Thresholds(
            length=np.array(manifest.risk_length),
            history=np.array(manifest.risk_history),
            day=np.array(manifest.risk_day),
        ),
    )


def _problems(manifest: Manifest, model: bytes, groups: GroupCurves) -> list[str]:
    problems = [
        f"feature {name!r} is not known at the moment of a forecast"
        for name in manifest.features
        if name not in FEATURES
    ]
    if not problems and tuple(manifest.features) != FEATURES:
        problems.append("its features are in another order, or some are missing; train it with this release")
    if manifest.edges_h != EDGES_H.tolist():
        problems.append("its horizons are not those of this release")
    if manifest.model_sha256 != hashlib.sha256(model).hexdigest():
        problems.append("model.onnx is not what the manifest's hash says")
    if groups.log_survival.shape != (GROUPS, TICKS + 1):
        problems.append(f"its group curves are {groups.log_survival.shape}, expected {(GROUPS, TICKS + 1)}")
    widths = {len(row) for row in manifest.calibration}
    if (len(manifest.calibration), widths, tuple(manifest.conditions)) != (len(EDGES_H), {_WIDTH}, CONDITIONS):
        problems.append(f"its calibration is not {len(EDGES_H)} horizons of {_WIDTH} numbers each for {CONDITIONS}")
    return problems
