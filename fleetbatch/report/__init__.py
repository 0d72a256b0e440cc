"""The morning's page and its numbers: what came in, what came out, what is missing and why."""

from fleetbatch.report.page import write_report
from fleetbatch.report.tally import Tally, summarise, tally_night

__all__ = ["Tally", "summarise", "tally_night", "write_report"]
