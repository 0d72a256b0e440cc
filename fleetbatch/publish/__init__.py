"""A night becomes one version of a table that anyone can read."""

from fleetbatch.publish.keeping import keep_table
from fleetbatch.publish.publishing import Published, publish_order
from fleetbatch.publish.reading import how_to_open, published_files

__all__ = ["Published", "how_to_open", "keep_table", "publish_order", "published_files"]
