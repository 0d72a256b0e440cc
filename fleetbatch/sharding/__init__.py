"""Input becomes sealed shards, a manifest and a table of sources."""

from fleetbatch.sharding.cut import split_region
from fleetbatch.sharding.cut_order import Progress, cut_order
from fleetbatch.sharding.openers import Input, Listing, list_input, open_input, some_rows, usable_row
from fleetbatch.sharding.sources import GENERATORS, dials_of

__all__ = [
    "GENERATORS",
    "Input",
    "Listing",
    "Progress",
    "cut_order",
    "dials_of",
    "list_input",
    "open_input",
    "some_rows",
    "split_region",
    "usable_row",
]
