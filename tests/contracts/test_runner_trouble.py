"""What a runner does when uploads are lost on their way, and when what its workers are forked from dies."""

import http.client
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
import pytest
from model_bundles import Shape, content
from parked_cars import ParkedCar, ParkedCell, alive, parked_cell, until

from fleetbatch.bundle import build_bundle
from fleetbatch.local.postgres import Postgres, fresh_database

TIMES = {"lease": 8.0, "beat_every": 0.5, "part_every": 0.2, "poll_every": 0.3, "sweep_every": 0.5}
Fault = Literal["swallowed", "cut", "refused"]


class Proxy(ThreadingHTTPServer):
    """Stands before the gateway, under its address; does one wrong to each of so many uploads, and then none."""

    daemon_threads = True

    def __init__(self, port: int, gateway_port: int) -> None:
        self.gateway_port = gateway_port
        self.faults: list[Fault] = []
        self.uploads = 0
        super().__init__(("127.0.0.1", port), Passing)


class Passing(BaseHTTPRequestHandler):
    """One connection through the proxy."""

    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.pass_on(b"")

    def do_POST(self) -> None:
        self.pass_on(self.body())

    def do_PUT(self) -> None:
        self.server.uploads += 1
        fault = self.server.faults.pop(0) if self.server.faults else None
        match fault:
            case None:
                self.pass_on(self.body())
            case "swallowed":
                self.body()
                self.answer(HTTPStatus.OK, {}, b"")
            case "refused":
                self.body()
                self.answer(HTTPStatus.BAD_GATEWAY, {"content-type": "text/html"}, b"<h1>no</h1>")
            case "cut":
                self.rfile.read(10)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def pass_on(self, body: bytes) -> None:
        onward = http.client.HTTPConnection("127.0.0.1", self.server.gateway_port, timeout=10)
        onward.request(self.command, self.path, body, dict(self.headers))
        answered = onward.getresponse()
        self.answer(answered.status, dict(answered.getheaders()), answered.read())
        onward.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # its name in the standard library
        """Say nothing: the runner's own log is what is looked at."""


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[ParkedCell]:
    """A cell whose gateway is reached through the proxy only."""
    with fresh_database(postgres) as url, parked_cell(tmp_path_factory.mktemp("cell"), url) as cell:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cell.port = probe.getsockname()[1]
        yield cell


@pytest.fixture(scope="module")
def proxy(cell: ParkedCell) -> Iterator[Proxy]:
    with Proxy(urlsplit(cell.url).port or 0, cell.port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        cell.start_gateway(**TIMES)
        yield proxy
        proxy.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that needs more than a tenth of a second for a row group."""
    path = tmp_path_factory.mktemp("slow") / "slow.zip"
    path.write_bytes(build_bundle(content(Shape(slowness=4))))
    return path


@pytest.fixture
def car(cell: ParkedCell, proxy: Proxy) -> Iterator[ParkedCar]:
    proxy.uploads, proxy.faults = 0, []
    car = cell.park()
    yield car
    if car.process is not None and car.process.poll() is None:
        car.process.kill()
        car.process.wait()


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        pytest.param(["swallowed", "swallowed"], ["uploaded again", "uploaded again"], id="swallowed"),
        pytest.param(["cut"], ["not reached"], id="cut"),
        pytest.param(["refused"], ["not reached"], id="refused"),
    ],
)
def test_an_upload_that_is_lost_on_its_way_is_sent_again_and_every_row_arrives_once(
    cell: ParkedCell, proxy: Proxy, car: ParkedCar, model: Path, faults: list[Fault], said: list[str]
) -> None:
    proxy.faults = list(faults)
    key = cell.order(f"lost-{faults[0]}", rows=8, model=model)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.done_through(key) == -1, what="the shard's return")
    assert [line["event"] for line in car.log() if line["level"] == "warning"] == said
    assert proxy.uploads == len(faults) + len(cell.parts(key))
    assert len({row["item_id"] for row in cell.answers(key)}) == len(cell.answers(key)) == 8
    assert cell.ledger.night_stats(key).leases == 1
    assert car.stop() == 0


def test_a_store_that_keeps_nothing_loses_the_lease_to_another_car(
    cell: ParkedCell, proxy: Proxy, car: ParkedCar, model: Path
) -> None:
    proxy.faults = ["swallowed"] * 3
    key = cell.order("nothing-kept", rows=8, model=model)
    cell.offer(key, car)
    car.start("--threads=1")
    until(lambda: cell.ledger.night_stats(key).released == 1, what="the release")
    assert "uploaded 3 times" in car.events("refused")[0]["detail"]
    assert cell.answers(key) == []
    other = cell.park()
    cell.offer(key, other)
    other.start("--threads=1")
    until(lambda: cell.done_through(key) == -1, what="the shard's return")
    assert len(cell.answers(key)) == 8
    assert other.stop() == car.stop() == 0


def test_a_runner_whose_fork_server_dies_ends_with_a_code_that_starts_it_again_and_leaves_nobody(
    cell: ParkedCell, car: ParkedCar, model: Path
) -> None:
    key = cell.order("forkless", model=model)
    cell.offer(key, car)
    car.start("--threads=2")
    until(lambda: cell.done_through(key) >= 1, what="a row group")
    workers = car.workers()
    assert car.process is not None
    [forks] = psutil.Process(car.process.pid).children()
    forks.kill()
    assert car.process.wait(timeout=20) == 1
    assert not any(alive(worker.pid) for worker in workers)
    [line] = [line for line in (car.folder / "log").read_text().splitlines() if not line.startswith("{")]
    assert line == "fleetbatch.runner: the process that workers are forked from has ended"
    car.start("--threads=2")  # what a supervisor does
    until(lambda: cell.done_through(key) == -1, what="the shard's return", seconds=60)
    assert len({row["item_id"] for row in cell.answers(key)}) == len(cell.answers(key)) == 48
    assert car.stop() == 0
