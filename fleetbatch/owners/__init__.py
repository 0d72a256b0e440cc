"""Owners read what their cars did and earned; anyone can recompute it from the leases."""

from fleetbatch.owners.archives import Archive
from fleetbatch.owners.credits import Recomputed, lease_amount, recompute
from fleetbatch.owners.page import statement_page
from fleetbatch.owners.statement import car_statement, statement_table

__all__ = ["Archive", "Recomputed", "car_statement", "lease_amount", "recompute", "statement_page", "statement_table"]
