"""What ends a runner, and what it waits out: only a gateway's own word about the car needs a person."""

import queue
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
from builders import HARDWARE
from impostors import impostor
from parked_cars import ParkedCar, ParkedCell, parked_cell, until

from fleetbatch.car import nouns as n
from fleetbatch.car.identity import Identity, open_identity
from fleetbatch.errors import RejectedError
from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.orders import model_file
from fleetbatch.protocol import PollRequest
from fleetbatch.runner.calls import Broken, Calls, FromCalls
from fleetbatch.runner.check.network import check_network
from fleetbatch.runner.client import GatewayClient, open_http
from fleetbatch.runner.unreachable import ClockError

ASKING = PollRequest(signals={}, hardware=HARDWARE, willing=False, unwilling_reason="a test")


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[ParkedCell]:
    with fresh_database(postgres) as url, parked_cell(tmp_path_factory.mktemp("cell"), url) as cell:
        cell.start_gateway()
        yield cell


def identity(car: ParkedCar) -> Identity:
    return open_identity((car.folder / "car.pem").read_bytes())


def outcome_of_a_poll(url: str, car: ParkedCar, *, wrong_by: timedelta = timedelta(0)) -> FromCalls:
    """Poll as a runner does whose clock is wrong by so much."""
    heard: queue.SimpleQueue[FromCalls] = queue.SimpleQueue()
    with open_http() as http:
        client = GatewayClient(url, identity(car), http, clock=lambda: datetime.now(UTC) + wrong_by)
        Calls(client, identity(car), heard.put).poll(ASKING)
        return heard.get(timeout=20)


@pytest.mark.parametrize("wrong_by", [timedelta(days=-20_000), timedelta(minutes=-20), timedelta(days=365)])
def test_a_car_whose_clock_is_wrong_is_started_again_until_it_is_set_and_is_not_given_up(
    cell: ParkedCell, wrong_by: timedelta
) -> None:
    outcome = outcome_of_a_poll(cell.url, cell.park(), wrong_by=wrong_by)
    assert isinstance(outcome, Broken)
    assert isinstance(outcome.error, ClockError)
    assert not isinstance(outcome.error, RejectedError), "that would be exit 2, after which nobody starts it again"
    assert "clock is" in str(outcome.error)


def test_a_car_that_is_not_enrolled_needs_a_person_whatever_else(cell: ParkedCell) -> None:
    outcome = outcome_of_a_poll(cell.url, cell.park(enrolled=False))
    assert isinstance(outcome, Broken)
    assert isinstance(outcome.error, RejectedError)
    assert isinstance(outcome_of_a_poll(cell.url, cell.park()), n.PollAnswered)


@pytest.mark.parametrize("status", [HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND])
@pytest.mark.parametrize("body", [b"<h1>blocked</h1>", b'{"type": "about:blank", "detail": "blocked"}'])
def test_a_firewall_that_speaks_in_the_gateways_place_is_waited_out(
    cell: ParkedCell, status: HTTPStatus, body: bytes
) -> None:
    with impostor(status, body) as url:
        assert isinstance(outcome_of_a_poll(url, cell.park()), n.Unreached)


def test_a_check_of_a_car_with_a_wrong_clock_names_the_clock_and_nothing_else(cell: ParkedCell) -> None:
    car = cell.park()

    def late() -> datetime:
        return datetime.now(UTC) - timedelta(days=1)

    with open_http() as http:
        found = list(check_network(cell.url, identity(car), HARDWARE, http, clock=late))
    assert [one.check for one in found if one.outcome == "failed"] == ["clock"]
    assert {one.check: one.advice for one in found if one.outcome == "skipped"} == {"identity": "first the clock"}


def test_a_disk_that_takes_nothing_costs_a_car_no_work(cell: ParkedCell, tmp_path: Path) -> None:
    car = cell.park()
    key = cell.order("diskless", rows=8, model=model_file("road_signs"))
    cell.offer(key, car)
    (tmp_path / "file").write_text("no folder can be made beneath this")
    car.start("--threads=1", "--cache", str(tmp_path / "file" / "bundles"))
    until(lambda: cell.done_through(key) == -1, what="the shard's return")
    assert len({row["item_id"] for row in cell.answers(key)}) == 8
    assert car.events("work failed") == []
    assert car.stop() == 0
