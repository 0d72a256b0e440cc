"""A model from past stays: learn, export, check the export against the reference. Pure and seeded."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleetbatch.contracts import conform
from fleetbatch.errors import RejectedError
from fleetbatch.inference import open_network
from fleetbatch.windows.bundle import Learnt
from fleetbatch.windows.clock import EPOCH, FloatArray
from fleetbatch.windows.export import as_onnx
from fleetbatch.windows.features import EDGES_H, Seen, see
from fleetbatch.windows.groups import GroupCurves, GroupDials, fit_groups
from fleetbatch.windows.landmarks import landmarks, thinned
from fleetbatch.windows.network import Float32, NetworkDials, lessons, log_survival, train
from fleetbatch.windows.shrink import ShrinkDials
from fleetbatch.windows.stays import Moments, Stays, read_stays

PARITY: Final = 1e-5
"""How far the ONNX file's survival may be from the reference."""
PARITY_ROWS: Final = 2_000
CHUNK: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningDials:
    """What learning needs; chosen on sessions before the scored ones."""

    group: GroupDials
    shrink: ShrinkDials
    network: NetworkDials
    seed: int = 0
    stays_min: int = 200
    landmarks_max: int = 1_000_000
    """More than this and whole cars are left out: a cell's whole past neither fits memory nor teaches more."""


def default_learning() -> LearningDials:
    """Return the dials as measured."""
    return LearningDials(group=GroupDials(), shrink=ShrinkDials(), network=NetworkDials())


def learn_model(stays: pa.Table, until: datetime, dials: LearningDials) -> Learnt:
    """Learn from what was known of the stays at `until`; raise RejectedError with too few, or when parity fails."""
    begun = conform(stays, "stays").filter(pc.field("plugged_in_at") <= until)
    known = read_stays(thinned(begun, EPOCH, dials.landmarks_max), until)
    if len(known.closed) < dials.stays_min:
        summary = f"{len(known.closed)} closed stays before {until:%Y-%m-%d} are too few to learn from"
        raise RejectedError(summary, [f"at least {dials.stays_min} are needed; until then L1 forecasts"])
    groups = fit_groups(known, dials.group)
    taught = landmarks(known)
    seen = see_all(known, taught.moments, groups, dials.shrink)
    outcome = (taught.remaining_h, taught.ended)
    ensemble = train(lessons(seen.features, seen.base, outcome, EDGES_H), dials.network, dials.seed)
    model = as_onnx(ensemble)
    rows = np.linspace(0, len(taught) - 1, min(PARITY_ROWS, len(taught))).astype(np.int64)
    features, base = seen.features[rows], seen.base[rows]
    check_parity(model, (features, base), log_survival(ensemble, features, base))
    return Learnt(model=model, groups=groups, stays=len(known.closed))


def check_parity(model: bytes, inputs: tuple[Float32, Float32], reference: Float32) -> None:
    """Return when the ONNX file's survival is the reference's within 1e-5; else raise RejectedError."""
    answer = open_network(model, threads=1)({"features": inputs[0], "base": inputs[1]})
    apart = float(np.abs(np.exp(answer) - np.exp(reference)).max())
    if not apart <= PARITY:
        summary = f"the exported model is {apart:.1e} from its reference; at most {PARITY:.0e} is allowed"
        raise RejectedError(summary)


def see_all(stays: Stays, moments: Moments, groups: GroupCurves, dials: ShrinkDials) -> Seen:
    """See many moments in pieces that bound memory."""
    pieces = [
        see(stays, moments.take(np.arange(start, min(start + CHUNK, len(moments)))), groups, dials)
        for start in range(0, max(len(moments), 1), CHUNK)
    ]
    return Seen(
        features=np.concatenate([piece.features for piece in pieces]),
        base=np.concatenate([piece.base for piece in pieces]),
        stays_used=np.concatenate([piece.stays_used for piece in pieces]),
    )


def raw_forecast(model: bytes, seen: Seen) -> FloatArray:
    """Return log S at EDGES_H as the model gives it, before calibration."""
    run = open_network(model, threads=1)
    return np.asarray(run({"features": seen.features, "base": seen.base}), dtype=np.float64)
