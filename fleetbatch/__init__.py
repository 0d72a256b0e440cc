"""Dependable batch computing on machines that belong to someone else and may leave at any moment."""

__version__ = "0.1.0"
