"""Vehicle signals become one snapshot: which cars may work now, and of every other car why not."""

from fleetbatch.fleet.frame import Frame, frame
from fleetbatch.fleet.leases import as_held
from fleetbatch.fleet.newest import fold, nothing_heard
from fleetbatch.fleet.snapshot import Dials, Snapshot, plugged, snapshot
from fleetbatch.fleet.telemetry import Heard, hear

__all__ = [
    "Dials",
    "Frame",
    "Heard",
    "Snapshot",
    "as_held",
    "fold",
    "frame",
    "hear",
    "nothing_heard",
    "plugged",
    "snapshot",
]
