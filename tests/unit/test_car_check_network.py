"""Whatever answers in a gateway's place is told from one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fleetbatch.car.identity import make_key, open_identity
from fleetbatch.protocol import Hardware
from fleetbatch.runner.check.network import check_network
from fleetbatch.runner.client import open_http

HARDWARE = Hardware(
    hardware_class="standard",
    provider="CPUExecutionProvider",
    threads=1,
    memory_bytes=1 << 30,
    runner_version="1",
    power_w=60.0,
)


class _Website(BaseHTTPRequestHandler):
    """Says hello to everything."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    do_POST = do_GET  # noqa: N815 (the same)


@pytest.fixture
def website() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Website)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_website_that_answers_everything_is_not_taken_for_a_busy_gateway(website: str) -> None:
    with open_http() as http:
        [poll] = [
            one for one in check_network(website, open_identity(make_key()), HARDWARE, http) if one.check == "poll"
        ]
    assert poll.outcome == "failed"
    assert poll.advice.startswith("something else than a gateway answers there")
