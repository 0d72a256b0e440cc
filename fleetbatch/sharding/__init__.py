"""Where to cut (pure); write shards, sources and manifest."""

from fleetbatch.sharding.cut import split_region
from fleetbatch.sharding.cut_order import Progress, cut_order
from fleetbatch.sharding.sources import Listing, list_source, open_source

__all__ = ["Listing", "Progress", "cut_order", "list_source", "open_source", "split_region"]
