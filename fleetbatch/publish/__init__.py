"""A night becomes one version of a table that anyone can read."""

from fleetbatch.publish.publishing import Published, publish_order
from fleetbatch.publish.reading import how_to_open, published_files

__all__ = ["Published", "how_to_open", "publish_order", "published_files"]
