"""A shard can be followed with grep through the logs of every process that had to do with it."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from parked_cars import CELL, parked_cell, until

from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.logs import JsonLines
from fleetbatch.nouns import OrderKey
from fleetbatch.orders import model_file
from fleetbatch.units import ShardId, shard_hex


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def written(level: int = logging.INFO, **facts: Any) -> dict[str, Any]:
    """Return what a line of ours holds; a library's record with the same facts must look the same."""
    line, libraries = (JsonLines({"process": "gateway", "cell": "eu-1"}) for _ in range(2))
    record = logging.makeLogRecord({"name": "fleetbatch", "levelno": level, "levelname": "INFO", "msg": "granted"})
    record.facts = dict(facts)
    for _ in range(2):  # the second time the beginning is known
        ours = line.line("granted", dict(facts), level=level, at_ms=int(record.created * 1000))
        assert ours == libraries.format(record).encode() + b"\n"
    found: dict[str, Any] = json.loads(ours)
    return found


def test_a_line_says_when_which_process_what_and_the_ids_as_people_meet_them() -> None:
    line = written(shard=255, car=1, lease="20261122-00000000000000ff-1", round=7)

    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "granted",
        "process": "gateway",
        "cell": "eu-1",
        "shard": "00000000000000ff",
        "car": "0000000000000001",
        "lease": "20261122-00000000000000ff-1",
        "round": 7,
    }
    assert written().keys() == {"ts", "level", "event", "process", "cell"}
    assert written(cell="eu-2")["cell"] == "eu-2", "an event may be about another cell than its process"


def test_an_id_that_is_text_already_and_a_fact_that_json_does_not_know_are_kept() -> None:
    line = written(shard="00000000000000ff", path=Path("/a/b"), half="\ud800", much=1 << 70)
    assert (line["shard"], line["path"]) == ("00000000000000ff", "/a/b")
    assert (line["half"], line["much"]) == ("\ud800", 1 << 70)


SAID = """
import logging, os, signal
from fleetbatch.logs import gathered, log_to_stderr, say, write_out
log_to_stderr("gateway", cell="eu-1")
say("one")
with gathered():
    say("two", shard=2)
    write_out()
    say("three")
    if os.fork() == 0:
        say("child")
        os._exit(0)
    os.wait()
    logging.getLogger("library").info("four")
    say("five")
    say("six", level=logging.WARNING, error=ValueError("why"))
    say("seven")
    END
"""


def said(end: str) -> list[str]:
    """Return the events in the log of a process that ended so."""
    done = subprocess.run(
        [sys.executable, "-c", SAID.replace("END", end)], stderr=subprocess.PIPE, text=True, check=False
    )
    return [line["event"] for line in lines(done.stderr)]


def test_lines_that_are_gathered_keep_their_order_and_all_are_written_at_the_end() -> None:
    whole = ["one", "two", "child", "three", "four", "five", "six", "seven"]
    assert said("pass") == whole
    assert said("raise SystemExit(1)") == whole


def test_a_process_that_is_killed_has_written_all_before_its_last_warning() -> None:
    assert said("os.kill(os.getpid(), signal.SIGKILL)") == ["one", "two", "child", "three", "four", "five", "six"]


def merged(settings: Path, key: OrderKey, answer: Path) -> str:
    """Run the step that merges an order's night; return its log."""
    words = {"settings": str(settings), "key": str(key), "now": datetime.now(UTC).isoformat()}
    merge = [sys.executable, "-m", "fleetbatch.steps", "merge", json.dumps(words), str(answer)]
    with subprocess.Popen(merge, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as step:
        assert step.stderr is not None
        return step.stderr.read()  # its input stays open meanwhile, as a task's does


def audited(settings: Path, done: Callable[[], bool]) -> str:
    """Run an auditor until that is so; return its log."""
    command = [
        sys.executable,
        "-m",
        "fleetbatch.auditor",
        "--settings",
        str(settings),
        "--cell",
        CELL,
        "--workers",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as auditor:
        try:
            until(done, what="the verdict")
        finally:
            auditor.send_signal(signal.SIGTERM)
            _, log = auditor.communicate(timeout=20)
    return log


@pytest.mark.timeout(120)
def test_one_search_for_a_shard_tells_its_life_in_the_words_of_car_gateway_auditor_and_merge(
    tmp_path: Path, postgres: Postgres
) -> None:
    with fresh_database(postgres) as url, parked_cell(tmp_path, url) as cell:
        cell.start_gateway(lease=5.0, beat_every=0.5, part_every=0.2, poll_every=0.3, sweep_every=0.5)
        key = cell.order("followed", model=model_file("road_signs"), source="generator:road-signs?count=12&seed=3")
        car = cell.park()
        cell.offer(key, car)
        car.start()
        until(lambda: cell.ledger.counts(key).returned == 1, what="the shard's return")
        assert car.stop() == 0
        audited_log = audited(cell.home / "settings.toml", lambda: cell.ledger.counts(key).valid == 1)
        logs = {
            "step": lines(merged(cell.home / "settings.toml", key, tmp_path / "answer")),
            "runner": lines((car.folder / "log").read_text()),
            "gateway": lines((cell.home / "gateway.log").read_text()),
            "auditor": lines(audited_log),
        }
        [number] = cell.ledger.valid_parts(key)["shard_id"].unique().to_pylist()

    assert number is not None
    shard = shard_hex(ShardId(number))
    assert all({"ts", "level", "event"} <= line.keys() for log in logs.values() for line in log)
    assert {line["process"] for log in logs.values() for line in log} == set(logs)
    told = {name: [line for line in log if shard in json.dumps(line)] for name, log in logs.items()}
    assert {"work starts", "part delivered"} <= {line["event"] for line in told["runner"]}
    assert {"granted", "delivered"} <= {line["event"] for line in told["gateway"]}
    assert [line["event"] for line in told["auditor"]] == ["audit passed"]
    [last] = told["step"]
    assert (last["event"], last["rows"]) == ("shard merged", 12)
    assert set(last["leases"]) == {line["lease"] for line in told["gateway"]}
    named = [line["shard"] for log in told.values() for line in log if "shard" in line]
    assert set(named) == {shard}
    assert (
        {line["car"] for line in told["gateway"]} == {f"{car.car_id:016x}"} == {line["car"] for line in logs["runner"]}
    )
    assert {line["order"] for line in told["gateway"] if "order" in line} == {str(key)}

    [lease] = {line["lease"] for line in told["gateway"]}
    of_lease = {name: {line["event"] for line in log if lease in json.dumps(line)} for name, log in logs.items()}
    assert {"work starts", "first answers", "part delivered"} <= of_lease["runner"]
    assert {"granted", "delivered"} <= of_lease["gateway"]
    assert (of_lease["auditor"], of_lease["step"]) == ({"audit passed"}, {"shard merged"})
