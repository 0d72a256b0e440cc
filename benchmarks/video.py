"""Video beside a hand-written loop: the same film, the same detector, the same frames, all processes counted.

Ours is a car's runner as in `runner`: leases, sealed shards over HTTP, signed parts, a real gateway. The loop decodes
the files with PyAV, converts every fifth frame, feeds them one by one and writes one Parquet file. The film is the dash
camera's with YOLOX-nano where they lie beside the project, else the drawn drive with its detector.
"""

import os
import sys
from tempfile import TemporaryDirectory

from benchmarks.run import ROOT, Bench, Subject, tell
from benchmarks.trees import run
from benchmarks.video_input import EVERY, INPUT, frames_wanted, lay_out


def ours() -> None:
    """Tell what one car costs, and apart what its gateway and its PostgreSQL cost meanwhile."""
    from benchmarks.runner_cell import cost_of_a_car

    lay_out()
    wanted = frames_wanted()
    every = {"every_frames": str(EVERY)}
    cost = cost_of_a_car(INPUT / "pictures", INPUT / "bundle.zip", every, cores=1, rows=wanted)
    served_s = cost.gateway_s + cost.postgres_s
    tell("frames_per_cpu_s", wanted / cost.car.cpu_s, "1/s")
    tell("frames_per_cpu_s, gateway and PostgreSQL included", wanted / (cost.car.cpu_s + served_s), "1/s")
    tell("peak_mb", cost.car.peak.pss_mb, "MB")
    tell("frames_per_s", wanted / cost.car.wall_s, "1/s")


def by_hand() -> None:
    """Tell what the loop costs."""
    lay_out()
    script = str(ROOT / "benchmarks" / "video_by_hand.py")
    with TemporaryDirectory(prefix="fleetbatch-bench-") as folder:
        cost, printed = run([sys.executable, script, str(INPUT), f"{folder}/answers.parquet"], os.environ)
    wanted = frames_wanted()
    assert int(printed) == wanted, f"the loop looked at {printed} frames of {wanted}"
    tell("frames_per_cpu_s", wanted / cost.cpu_s, "1/s")
    tell("peak_mb", cost.peak.pss_mb, "MB")
    tell("frames_per_s", wanted / cost.wall_s, "1/s")


BENCH = Bench(
    name="video",
    subjects=(
        Subject(name="ours", script="benchmarks/video.py", arguments=("ours",)),
        Subject(name="by hand", script="benchmarks/video.py", arguments=("by hand",)),
    ),
    rounds=2,
)

if __name__ == "__main__":
    {"ours": ours, "by hand": by_hand}[sys.argv[1]]()
