"""A car's runner beside its peers: 2,000 photographs, one SqueezeNet, all processes counted.

Ours is the whole car: leases, sealed shards over HTTP, signed parts, a real gateway, ledger and store, all of them on
the two cores that it computes with. Peers read the files and write one. Without the photographs beside the project all
get generated road signs and their model.

Every subject's rates are told twice, as they were and with start-up taken off, by the same subtraction: Ray takes
seconds to start, and a rate that counts one side's start-up only would compare nothing.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.run import ROOT, Bench, Subject, tell
from benchmarks.trees import Cost, run

PICTURES = 2000
FEW = 126
"""What start-up is measured with, to be taken off."""
CORES = 2
INPUT = ROOT / ".bench" / "runner-input"
PEERS = {"pool": "car", "daft": "bench-daft", "daft-tuned": "bench-daft", "ray": "bench-ray"}
"""Each one's environment; the pool has the car's own, so that both load the same libraries."""


def ours(options: dict[str, str]) -> None:
    """Tell what one car costs, and apart what its gateway and its PostgreSQL cost meanwhile."""
    from benchmarks.runner_cell import cost_of_a_car

    bundle = INPUT / "bundle.zip"
    few = cost_of_a_car(INPUT / "few", bundle, options, cores=CORES, rows=FEW)
    whole = cost_of_a_car(INPUT / "pictures", bundle, options, cores=CORES, rows=PICTURES)
    _tell_cost(few.car, whole.car)
    served_s = whole.gateway_s + whole.postgres_s
    tell("images_per_cpu_s, gateway and PostgreSQL included", PICTURES / (whole.car.cpu_s + served_s), "1/s")
    tell("start_s", whole.first_s, "s")
    tell("gateway", whole.gateway_s, "CPU s")
    tell("PostgreSQL", whole.postgres_s, "CPU s")


def peer(name: str) -> None:
    """Tell what a peer costs."""
    _tell_cost(_peer_cost(name, "few"), _peer_cost(name, "pictures"))


def _tell_cost(few: Cost, whole: Cost) -> None:
    """Tell the rate as it was, and without start-up and end, for all alike: what more pictures cost on top of few."""
    more = PICTURES - FEW
    tell("images_per_cpu_s", PICTURES / whole.cpu_s, "1/s")
    tell("images_per_cpu_s, start-up taken off", more / max(whole.cpu_s - few.cpu_s, 1e-9), "1/s")
    tell("images_per_s", PICTURES / whole.wall_s, "1/s")
    tell("images_per_s, start-up taken off", more / max(whole.wall_s - few.wall_s, 1e-9), "1/s")
    tell("peak_mb", whole.peak.pss_mb, "MB")
    tell("peak_mb, shared pages counted in each process", whole.peak.rss_mb, "MB")


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
