"""A car's runner beside its peers: 2,000 photographs, one SqueezeNet, all processes counted.

Ours is the whole car: leases, sealed shards over HTTP, signed parts, a real gateway, ledger and store. Peers read
the files and write one. Without the photographs beside the project all get generated road signs and their model.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.run import ROOT, Bench, Subject, tell
from benchmarks.trees import Cost, Watch, children_cpu_s, cpu_s, run

PICTURES = 2000
FEW = 126
"""What start-up is measured with, to be taken off."""
CORES = 2
INPUT = ROOT / ".bench" / "runner-input"
PEERS = {"pool": "car", "daft": "bench-daft", "daft-tuned": "bench-daft", "ray": "bench-ray"}
"""Each one's environment; the pool has the car's own, so that both load the same libraries."""


def ours(options: dict[str, str]) -> None:
    """Tell what one car costs, and apart what its gateway and its PostgreSQL cost meanwhile."""
    from benchmarks.runner_cell import cell

    with TemporaryDirectory(prefix="fleetbatch-bench-") as folder, cell(Path(folder), INPUT, options) as running:
        before, began = children_cpu_s(), time.monotonic()
        apart = cpu_s(running.gateway), cpu_s(running.postgres)
        car = running.start_car(CORES)
        watch = Watch(car.pid)
        first_s = running.wait_for_first() - began
        running.wait(PICTURES)
        took = time.monotonic() - began
        gateway_s, postgres_s = cpu_s(running.gateway) - apart[0], cpu_s(running.postgres) - apart[1]
        car.terminate()
        car.wait()
        car_s, peak = children_cpu_s() - before, watch.stop()
    tell("images_per_cpu_s", PICTURES / car_s, "1/s")
    tell("images_per_cpu_s, gateway and PostgreSQL included", PICTURES / (car_s + gateway_s + postgres_s), "1/s")
    tell("peak_mb", peak.pss_mb, "MB")
    tell("peak_mb, shared pages counted in each process", peak.rss_mb, "MB")
    tell("start_s", first_s, "s")
    tell("images_per_s", PICTURES / took, "1/s")
    tell("gateway", gateway_s, "CPU s")
    tell("PostgreSQL", postgres_s, "CPU s")


def peer(name: str) -> None:
    """Tell what a peer costs, and its rate without its start-up: what more pictures cost on top of few."""
    few, whole = _peer_cost(name, "few"), _peer_cost(name, "pictures")
    tell("images_per_cpu_s", PICTURES / whole.cpu_s, "1/s")
    tell("peak_mb", whole.peak.pss_mb, "MB")
    tell("peak_mb, shared pages counted in each process", whole.peak.rss_mb, "MB")
    tell("images_per_s", PICTURES / whole.wall_s, "1/s")
    more = PICTURES - FEW
    tell("images_per_cpu_s, start-up taken off", more / max(whole.cpu_s - few.cpu_s, 1e-9), "1/s")
    tell("images_per_s, start-up taken off", more / max(whole.wall_s - few.wall_s, 1e-9), "1/s")


def session() -> None:
    """Tell the limit: the model alone, in full precision and in int8."""
    for metric, model in (("images_per_cpu_s", "model.onnx"), ("images_per_cpu_s, int8", "int8.onnx")):
        command = [*_script(Path(sys.executable), "session"), str(INPUT / "few"), str(INPUT / model), "-"]
        tell(metric, max(float(run(command, os.environ)[1]) for _ in range(3)), "1/s")


def _peer_cost(name: str, pictures: str) -> Cost:
    with TemporaryDirectory(prefix="fleetbatch-bench-") as folder:
        command = [*_script(Path(sys.executable), name), str(INPUT / pictures), str(INPUT / "model.onnx")]
        cost, printed = run([*command, f"{folder}/answers"], os.environ)
    answered, there = int(printed.split()[-1]), len(list((INPUT / pictures).iterdir()))
    assert answered == there, f"{name} answered {answered} of {there}"
    return cost


def _script(python: Path, name: str) -> list[str]:
    return [str(python), str(ROOT / "benchmarks" / "runner_peers.py"), name]


def _subjects() -> Iterator[Subject]:
    script = "benchmarks/runner.py"
    yield Subject(name="ours", script=script, arguments=("ours",))
    yield Subject(name="ours int8", script=script, arguments=("ours", "precision=int8"))
    yield Subject(name="ours reduced", script=script, arguments=("ours", "decode=reduced"))
    for name, lock in PEERS.items():
        yield Subject(name=name, script=script, arguments=(name,), lock=f"infra/locks/{lock}.txt")
    yield Subject(name="session.run", script=script, arguments=("session",))


BENCH = Bench(name="runner", subjects=tuple(_subjects()), prepare="benchmarks/runner_input.py", rounds=1)

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours", *options]:
            ours(dict(option.split("=") for option in options))
        case ["session"]:
            session()
        case [name]:
            peer(name)
