"""How long will this car stay plugged in? Histories to survival curves, and were the promises kept."""

from fleetbatch.windows.forecast import as_bytes, bookable, predict

__all__ = ["as_bytes", "bookable", "predict"]
