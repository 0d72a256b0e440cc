"""Trusted machines compute secretly chosen rows again, and whole shards when no car will.

Nothing is imported here: the child that opens strangers' files must stay small.
"""
