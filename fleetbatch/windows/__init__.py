"""How long will this car stay plugged in? Histories to survival curves, and were the promises kept."""

from fleetbatch.windows.forecast import Forecaster, as_bytes, bookable, open_forecaster, predict, promised_risk
from fleetbatch.windows.presence import plugged_since
from fleetbatch.windows.serving import Serving, nothing_served, serve
from fleetbatch.windows.stays import read_stays

__all__ = [
    "Forecaster",
    "Serving",
    "as_bytes",
    "bookable",
    "nothing_served",
    "open_forecaster",
    "plugged_since",
    "predict",
    "promised_risk",
    "read_stays",
    "serve",
]
