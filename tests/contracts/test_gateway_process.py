"""The gateway as a process: says when it is ready, stops when told, and names what it cannot use."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from s3_servers import free_port, moto
from surroundings import environment

from fleetbatch.gateway.dials import Dials
from fleetbatch.ledger.postgres import migrate

KEY = bytes(range(32)).hex()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Path:
    migrate(database_url)
    (tmp_path / "deployment.key").write_text(KEY)
    path = tmp_path / "settings.toml"
    path.write_text(
        f"""
        store = "file://{tmp_path}/store"
        deployment_key_file = "deployment.key"

        [[cells]]
        name = "eu-1"
        region = "eu"
        ledger_url = "{database_url}"
        gateway_ledger_url = "{database_url.replace("postgres:@", "fleetbatch_gateway:@")}"
        gateway_url = "http://127.0.0.1:1"
        """
    )
    return path


@contextmanager
def started(settings: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "fleetbatch.gateway", "--settings", str(settings), "--cell", "eu-1", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def refusal(settings: Path, *words: str, code: int = 2) -> str:
    with started(settings, *words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "", "it is ready instead"
        _, complaint = process.communicate(timeout=30)
        assert process.returncode == code
        return complaint


def test_it_says_that_it_is_ready_and_stops_cleanly_when_told(settings: Path) -> None:
    with started(settings, "--port", "0", "--poll-every-s", "1") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["event"], ready["cell"], ready["pid"]) == ("ready", "eu-1", process.pid)
        health = httpx.get(f"{ready['url']}/healthz", trust_env=False).json()
        assert (health["status"], health["cell"]) == ("ok", "eu-1")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=5)
        assert process.returncode == 0
        assert [json.loads(line)["event"] for line in log.splitlines()] == ["started", "stopped"]


def test_gateways_of_one_machine_share_a_port_and_one_that_stops_leaves_it_to_the_others(settings: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with (
        started(settings, "--port", port, "--share-port") as first,
        started(settings, "--port", port, "--share-port") as second,
    ):
        urls = [json.loads(one.stdout.readline())["url"] for one in (first, second) if one.stdout is not None]
        assert urls == [f"http://127.0.0.1:{port}"] * 2
        assert f"port {port} of 127.0.0.1 is taken" in refusal(settings, "--port", port)
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=10) == 0
        for _ in range(10):
            assert httpx.get(f"{urls[1]}/healthz", trust_env=False).json()["status"] == "ok"


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("127.0.0.1", True), ("127.0.0.1", False), ("::ffff:127.0.0.1", True)],
    ids=["named", "not named", "named, and seen by a socket for both kinds of addresses"],
)
def test_where_a_call_comes_from_is_what_a_named_proxy_says_and_nobody_else(
    settings: Path, host: str, *, trusted: bool
) -> None:
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    words = ("--proxy", "10.0.0.0/8", "--proxy", "127.0.0.1") if trusted else ("--proxy", "10.0.0.0/8")
    with started(settings, "--host", host, "--port", "0", *words) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"] + "/v1/token"
        with httpx.Client(trust_env=False) as http:
            for _ in range(Dials().failures_per_window + 40):
                http.post(url, headers={"x-forwarded-for": "192.0.2.1"})
            others = [http.post(url, headers={"x-forwarded-for": f"198.51.100.{n}"}).status_code for n in range(12)]
    assert (httpx.codes.TOO_MANY_REQUESTS in others) is not trusted


def test_a_proxy_that_is_no_address_is_refused(settings: Path) -> None:
    assert "'everybody' does not appear to be an IPv4 or IPv6 address" in refusal(
        settings, "--port", "0", "--proxy", "everybody"
    )


def test_a_taken_port_is_named(settings: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is taken" in refusal(settings, "--port", str(port))


def test_a_database_that_is_down_is_named(settings: Path) -> None:
    settings.write_text(settings.read_text().replace("/t", "/no_such_"))
    assert "database does not answer" in refusal(settings, "--port", "0", code=75)


def on_store(settings: Path, url: str) -> Path:
    """The same deployment on another store."""
    lines = [
        f'store = "{url}"' if line.strip().startswith("store =") else line for line in settings.read_text().split("\n")
    ]
    settings.write_text("\n".join(lines))
    return settings


def test_a_store_that_lacks_something_is_refused_at_the_start_with_what_to_do(settings: Path) -> None:
    """moto takes a URL that somebody has signed with another key: anybody could read what cars are given."""
    with moto() as server, environment(server.environment()):
        said = refusal(on_store(settings, server.bucket_url()), "--port", "0")
    assert "a forged signature was accepted" in said
    assert "an S3 server that has what is missing here" in said


def test_a_store_that_is_away_at_the_start_keeps_no_gateway_from_hearing_beats_and_owners(settings: Path) -> None:
    with environment({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}):
        away = on_store(settings, "s3://bucket/cell?endpoint=http://127.0.0.1:9")
        with started(away, "--port", "0") as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "ready"
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=10)
    assert json.loads(log.splitlines()[0])["event"] == "store not tried"


def test_a_store_that_was_away_at_the_start_is_tried_when_it_is_back_and_the_log_says_what_it_lacks(
    settings: Path,
) -> None:
    port = free_port()
    with environment({"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}):
        away = on_store(settings, f"s3://late/a/cell?endpoint=http://127.0.0.1:{port}")
        with started(away, "--port", "0") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["event"] == "ready"
            with moto(port) as server:
                server.bucket_url("late")
                said = next(line for line in map(json.loads, process.stderr) if line["event"].startswith("store lacks"))
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=10)
    assert "a forged signature was accepted" in said["detail"]


def test_an_unknown_cell_is_told_the_known_ones(settings: Path) -> None:
    assert "the settings know eu-1" in refusal(settings, "--port", "0", "--cell", "mars")
