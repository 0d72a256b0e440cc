"""A ledger whose clock tests may turn: nothing in the product can, so the owner of a test's database replaces it."""

import psycopg

from fleetbatch.ledger.postgres import migrate

_TURNED = b"""
    CREATE OR REPLACE FUNCTION fleetbatch.now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS
    $$SELECT coalesce(nullif(current_setting('fleetbatch.now', true), '')::timestamptz, clock_timestamp())$$"""


def migrate_with_turned_clock(url: str) -> None:
    """Bring a database up to date; from then on the setting `fleetbatch.now` is its clock."""
    migrate(url)
    with psycopg.connect(url) as owner:
        owner.execute(_TURNED)
