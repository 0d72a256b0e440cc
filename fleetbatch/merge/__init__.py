"""Parts become result files; no row is lost or doubled."""

from fleetbatch.merge.merging import Merging, load_merged, merge_order, parts_token

__all__ = ["Merging", "load_merged", "merge_order", "parts_token"]
