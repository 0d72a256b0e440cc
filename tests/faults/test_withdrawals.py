"""A withdrawal commits once, and from that commit no lease is granted, however fast gateways are."""

import threading

import psycopg
from ledger_nights import Cell, no, open_cell, request, yes
from proofs import Count
from turned_clock import migrate_with_turned_clock

from fleetbatch.ledger.messages import Granted
from fleetbatch.units import CarId


def test_no_lease_is_granted_after_a_withdrawal_has_committed(database_url: str, count: Count) -> None:
    """Four gateways grant as fast as they can while owners withdraw; each withdrawal's answer is the border."""
    migrate_with_turned_clock(database_url)
    cars, rounds, shards = range(1, 5), 25, range(101, 141)
    with open_cell(database_url) as owner:
        owner.enrol(*cars)
        owner.open(dict.fromkeys(shards, (1,) * 3))
        stop, after, grants = threading.Event(), [], []
        withdrawn: dict[int, bool] = dict.fromkeys(cars, False)

        def ask(cell: Cell, first: int) -> None:
            turn = first
            while not stop.is_set():
                turn += 1
                car = cars[turn % len(cars)]
                before = withdrawn[car]  # set after the commit, cleared before the next consent is asked for
                [answer] = cell.ledger.grant([request(car, shards[turn % len(shards)])])
                if isinstance(answer, Granted):
                    grants.append(answer)
                    if before and withdrawn[car]:
                        after.append(answer)

        with open_cell(database_url) as one, open_cell(database_url) as two:
            asking = enumerate((one, one, two, two))
            lanes = [threading.Thread(target=ask, args=(cell, n), daemon=True) for n, cell in asking]
            for lane in lanes:
                lane.start()
            try:
                turns = [CarId(cars[turn % len(cars)]) for turn in range(rounds)]
                held = sum(withdrawn_once(owner, car, withdrawn, database_url) for car in turns)
            finally:
                stop.set()
                for lane in lanes:
                    lane.join(30)
    count(grants=len(grants), withdrawals=rounds, granted_after_a_commit=len(after), open_after_a_commit=held)
    assert held == 0, "a lease is open after the withdrawal's commit"
    assert grants, "nobody was granted anything: the race did not happen"
    assert after == []


def withdrawn_once(owner: Cell, car: CarId, withdrawn: dict[int, bool], url: str) -> int:
    """Withdraw and consent again; return how many leases of the car were open after the withdrawal's commit."""
    owner.ledger.set_consent(no(car))
    withdrawn[car] = True
    held = open_leases(url, car)
    withdrawn[car] = False
    owner.ledger.set_consent(yes(car))
    return held


def open_leases(url: str, car: CarId) -> int:
    with psycopg.connect(url) as observer:
        row = observer.execute("SELECT count(*) FROM fleetbatch.open_leases WHERE car_id = %s", [car]).fetchone()
    assert row is not None
    return int(row[0])
