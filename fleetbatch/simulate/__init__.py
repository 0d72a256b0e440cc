"""A fleet in virtual time that drives the real rooms: one command, one seed, one answer."""

from fleetbatch.simulate.night import Night, simulate
from fleetbatch.simulate.page import night_page
from fleetbatch.simulate.scenario import Scenario
from fleetbatch.simulate.tally import summary

__all__ = ["Night", "Scenario", "night_page", "simulate", "summary"]
