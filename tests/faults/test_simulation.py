"""Whatever goes wrong in a cell, nothing acknowledged is lost and nothing counts twice: the ledger in virtual time."""

import pytest
from faults.simulation.dials import Dials
from faults.simulation.run import Outcome, simulate
from proofs import Count
from turned_clock import migrate_with_turned_clock

from fleetbatch.local.postgres import Postgres, fresh_database, restart_postgres

SMALL = Dials()
LARGE = Dials(
    cars=1500,
    shards=600,
    overlap=0.01,
    restarts=2,
    withdraw=0.0002,
    distrust=0.000002,
    night_every=3,
    operator=0.004,
    stalled_each=400,
)
"""Many messages a statement, as a gateway collects them."""
BAD_DAY = 175_000
"""Events before the calm evening, which brings it to more than 200,000."""


def run(postgres: Postgres, seed: int, events: int, dials: Dials) -> Outcome:
    with fresh_database(postgres) as url:
        migrate_with_turned_clock(url)
        outcome = simulate(url, seed, events, dials, restart=lambda: restart_postgres(postgres), data=postgres.data)
    print(outcome.line())
    return outcome


def say(outcome: Outcome, count: Count) -> None:
    count(
        events=outcome.events,
        violations=len(outcome.violations),
        checks=outcome.checks,
        rows_published_once=outcome.rows,
    )


@pytest.mark.timeout(900)
def test_nothing_is_lost_in_a_large_cell_on_a_bad_day(rough_postgres: Postgres, count: Count) -> None:
    outcome = run(rough_postgres, 1, BAD_DAY, LARGE)
    say(outcome, count)
    count(events_per_cpu_s=round(outcome.events / outcome.cpu_s))
    assert outcome.violations == ()
    assert outcome.events >= 200_000
    assert outcome.rows > 1000


@pytest.mark.timeout(300)
def test_a_seed_reproduces_a_run(rough_postgres: Postgres, count: Count) -> None:
    first, again, other = (run(rough_postgres, seed, 1200, SMALL) for seed in (7, 7, 8))
    for outcome in (first, again, other):
        say(outcome, count)
    assert first.violations == again.violations == other.violations == ()
    assert (first.events, first.story) == (again.events, again.story)
    assert first.story != other.story


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_nothing_is_lost_in_ten_million_events(rough_postgres: Postgres, count: Count) -> None:
    events, cpu_s, seed = 0, 0.0, 100
    while events < 10_000_000:
        outcome = run(rough_postgres, seed, 250_000, LARGE)
        say(outcome, count)
        assert outcome.violations == (), outcome.line()
        events, cpu_s, seed = events + outcome.events, cpu_s + outcome.cpu_s, seed + 1
    count(events_per_cpu_s=round(events / cpu_s))
