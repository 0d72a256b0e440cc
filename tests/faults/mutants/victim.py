"""`python -m faults.mutants.victim SERVER_URL SEED EVENTS`: one seed against whatever product is on the path."""

import json
import logging
import secrets
import sys
from dataclasses import replace
from datetime import timedelta

import psycopg
from faults.simulation.dials import Dials
from faults.simulation.run import simulate
from psycopg import sql
from turned_clock import migrate_with_turned_clock

HARD = Dials(
    cars=40,
    shards=30,
    overlap=0.08,
    step_back=0.05,
    step_back_s=90,
    stalled_each=13,
    distrust=0.0002,
    withdraw=0.001,
    liars=0.15,
    zombies=0.25,
    unusable=0.05,
    operator=0.02,
    tariff=0.4,
    outage=0.006,
    crash=0.02,
    short=0.5,
    short_deadline=timedelta(minutes=12),
    sound_every=6,
)
"""A worse day than any: what a guard is for happens often."""
LATE = replace(HARD, delayed=0.2, told_late=0.9, told_late_max=timedelta(minutes=10), liars=0.4)
"""A day of messages that come when everybody has gone on."""
HARD_SEEDS = 6
"""The seeds after these have the other day."""


def main(server_url: str, seed: int, events: int) -> None:
    """Print the violations as JSON."""
    logging.disable(logging.CRITICAL)
    name = f"m{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = server_url.replace("/postgres?", f"/{name}?")
            migrate_with_turned_clock(url)
            outcome = simulate(url, seed, events, HARD if seed <= HARD_SEEDS else LATE, enough=1)
            sys.stdout.write(json.dumps([one[:500] for one in outcome.violations]) + "\n")
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
