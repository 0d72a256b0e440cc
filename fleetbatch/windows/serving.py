"""What a cell's forecasts are made with: its past stays, the level that serves, and why it is that one.

The doing part for whoever forecasts round after round: it reads, and reads again when a day has gone by or the store
holds other stays, states or models. Nothing wrong with a model ends a round: then L1 forecasts, and says why.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from fleetbatch import layout
from fleetbatch.contracts import empty
from fleetbatch.errors import RejectedError
from fleetbatch.store import Store
from fleetbatch.units import CellName
from fleetbatch.windows.calibration import no_calibration
from fleetbatch.windows.clock import EPOCH
from fleetbatch.windows.forecast import Forecaster, open_forecaster
from fleetbatch.windows.shadow import model_of
from fleetbatch.windows.state import Tuned
from fleetbatch.windows.stays import Stays, read_stays
from fleetbatch.windows.stored import latest_state, open_model, read_history

UNWATCHED: Final = timedelta(days=7)
"""A model that nobody has judged for so long steps aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tonight:
    """Who forecasts on a day, and why."""

    forecaster: Forecaster | None
    """None means L1."""
    reason: str
    state: Tuned | None
    """None when no day has been tuned yet."""

    @property
    def level(self) -> Literal["L1", "L2"]:
        """The level that serves; a car without a past stay gets L0 from L1."""
        return "L1" if self.forecaster is None else "L2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves until a day has gone by or the store holds something else."""

    tonight: Tonight
    past: Stays
    day: date
    keys: frozenset[str]


def nothing_served() -> Serving:
    """Return what serves before anything was read: the group's curve of a fleet without a past."""
    unread = Tonight(forecaster=None, reason="nothing has been read yet", state=None)
    return Serving(tonight=unread, past=read_stays(empty("stays"), EPOCH), day=date.min, keys=frozenset())


def serve(store: Store, cell: CellName, before: Serving, *, now: datetime) -> Serving:
    """Return what forecasts are made with now: what served before, unless that has changed."""
    day = now.astimezone(UTC).date()
    keys = frozenset(key for prefix in layout.windows_inputs(cell) for key in store.keys(prefix))
    if (before.day, before.keys) == (day, keys):
        return before
    past = read_stays(read_history(store, cell, day), now)
    return Serving(tonight=tonight(store, cell, day), past=past, day=day, keys=keys)


def tonight(store: Store, cell: CellName, day: date) -> Tonight:
    """Return who forecasts on a day, by the newest state of that day or before it."""
    state = latest_state(store, cell, before=day + timedelta(days=1))
    if state is None:
        return Tonight(forecaster=None, reason="nothing has been tuned yet", state=None)
    if state.level == "L1":
        return Tonight(forecaster=None, reason=state.reason, state=state)
    if day - state.day() > UNWATCHED:
        return Tonight(forecaster=None, reason=f"nobody has judged the model since {state.day()}", state=state)
    try:
        return Tonight(forecaster=_opened(store, cell, state), reason=state.reason, state=state)
    except RejectedError as error:
        return Tonight(forecaster=None, reason=str(error), state=state)


def _opened(store: Store, cell: CellName, state: Tuned) -> Forecaster:
    calibration = state.calibration()
    if calibration.coefficients.shape != no_calibration().coefficients.shape:
        summary = f"the state of {state.day()} was made by another release"
        raise RejectedError(summary)
    for model in map(model_of, store.keys(layout.windows_models(cell))):
        if model.sha256 == state.model_sha256:
            return open_forecaster(open_model(store, model), calibration)
    summary = f"model {state.model_sha256[:12]} is not in the store"
    raise RejectedError(summary)
