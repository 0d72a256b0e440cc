"""What one empty poll costs: `ledger_poll.py ours|uvicorn|fastapi`.

The same request goes to all three: our gateway with a million offers for other cars, uvicorn's bare answer, and FastAPI
with a pydantic model of the same message and a bearer token that is looked up.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.ledger_load import Scale, line_to, request, side_by_side, wait_for_port
from benchmarks.run import tell

POLLS = 100_000
LINES = 64
CARS = 10_000
OFFERS = 1_000_000
FIRST_OTHER = 1_000_000_000
"""Cars from here on have the offers; those that poll have none."""
_BATTERY = "Vehicle.Powertrain.TractionBattery"
POLL: dict[str, Any] = {
    "protocol": 1,
    "signals": {
        f"{_BATTERY}.Charging.IsChargingCableConnected": True,
        f"{_BATTERY}.Charging.IsCharging": True,
        f"{_BATTERY}.Charging.TimeToComplete": 9121.5,
        f"{_BATTERY}.Charging.ChargeVoltage.Phase1": 230.0,
        f"{_BATTERY}.Charging.ChargeCurrent.Phase1": 41.7,
        f"{_BATTERY}.Charging.MaximumChargingCurrent.Phase1": 47.8,
        f"{_BATTERY}.StateOfCharge.Current": 54.25,
        f"{_BATTERY}.Temperature.Average": 24.0,
        f"{_BATTERY}.CurrentPower": 8640.0,
        "Vehicle.Speed": 0.0,
    },
    "hardware": {
        "hardware_class": "standard",
        "provider": "CPUExecutionProvider",
        "threads": 4,
        "memory_bytes": 4 << 30,
        "runner_version": "0.1.0",
        "power_w": 65.0,
    },
    "willing": True,
    "unwilling_reason": "",
    "cached_models": ["0" * 64],
    "link_down_bytes_per_s": 2.5e6,
    "reserve_soc": 0.2,
    "departure_at": None,
}
"""What a charging car says."""
BODY = json.dumps(POLL).encode()


async def poll_all(url: str, tokens: list[str]) -> None:
    """Poll POLLS times over LINES connections, cars in turn."""
    kind = "content-type: application/json\r\n"
    asked = [request("POST", "/v1/poll", BODY, headers=f"{kind}authorization: Bearer {t}\r\n") for t in tokens]
    left = iter(range(POLLS))

    async def one(_: int) -> None:
        line = await line_to(url)
        for number in left:
            status, body = await line.ask(asked[number % len(asked)])
            assert status == 200, (status, body)  # noqa: PLR2004 # OK
        line.close()

    await side_by_side(LINES, one)


def weigh(url: str, tokens: list[str], scale: Scale) -> dict[str, float]:
    """Return the CPU seconds of POLLS polls, after a tenth as warming up."""
    uvloop.run(poll_all(url, tokens))
    scale.start()
    uvloop.run(poll_all(url, tokens))
    found = scale.read()
    tell("poll_cpu_us", sum(found[name] for name in scale.groups) / POLLS * 1e6, "us")
    tell("driver_poll_cpu_us", found["driver"] / POLLS * 1e6, "us")
    return found


def ours() -> None:
    """Weigh our gateway; what the polls said is written as telemetry, weighed apart."""
    import numpy as np

    from benchmarks.ledger_cell import Serving, bench_cell

    with tempfile.TemporaryDirectory(prefix="fleetbatch-bench-") as home:
        rarely = Serving(dials=("--telemetry-every-s", "600"))
        with bench_cell(Path(home), cars=CARS, shards=1, serving=rarely) as cell:
            cell.offer(np.arange(OFFERS) + FIRST_OTHER, np.arange(OFFERS) + 1)
            time.sleep(6)
            weigh(cell.url, [cell.token(car + 1) for car in range(CARS)], cell.scale())
    weigh_telemetry()


def weigh_telemetry() -> None:
    """Tell what writing a poll's signals costs: the gateway's code, where its time can be read."""
    from datetime import UTC, datetime

    from fleetbatch.gateway.hearing import Telemetry
    from fleetbatch.gateway.telemetry import signals_file
    from fleetbatch.units import CarId

    kept = Telemetry(1 << 30)
    kept.hear(CarId(0), datetime.now(UTC), BODY)
    signals_file(kept.take())  # what is imported once
    for car in range(POLLS):
        kept.hear(CarId(car), datetime.now(UTC), BODY)
    started = time.process_time()
    signals_file(kept.take())
    tell("poll_telemetry_us", (time.process_time() - started) / POLLS * 1e6, "us")


def served(program: str) -> None:
    """Weigh an ASGI application of this file on uvicorn, as our gateway runs it."""
    from socket import socket

    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "uvicorn", f"benchmarks.ledger_peers:{program}", "--port", str(port)]
    words += ["--no-access-log", "--lifespan", "off", "--loop", "uvloop", "--http", "httptools", "--log-level", "error"]
    server = subprocess.Popen(words)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_port(url, server)
        weigh(url, [f"{car:032x}" for car in range(CARS)], Scale({"server": lambda: [server.pid]}))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    ours() if sys.argv[1] == "ours" else served({"uvicorn": "bare"}.get(sys.argv[1], sys.argv[1]))
