"""Trusted machines compute secretly chosen rows again, and whole shards when no car will."""
