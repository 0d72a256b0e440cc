"""Owners read what their cars did and earned; anyone can recompute it from the leases."""

from fleetbatch.owners.archives import Archive, ArchiveFile, archive_key
from fleetbatch.owners.consents import broken_car, broken_consent, consent_entry
from fleetbatch.owners.credits import Recomputed, balances, lease_amount, recompute
from fleetbatch.owners.page import statement_page
from fleetbatch.owners.spilling import ShardRanges, Spill
from fleetbatch.owners.statement import car_statement, statement_table

__all__ = [
    "Archive",
    "ArchiveFile",
    "Recomputed",
    "ShardRanges",
    "Spill",
    "archive_key",
    "balances",
    "broken_car",
    "broken_consent",
    "car_statement",
    "consent_entry",
    "lease_amount",
    "recompute",
    "statement_page",
    "statement_table",
]
