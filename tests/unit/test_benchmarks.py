import json
import subprocess
import sys

import pytest

from benchmarks.run import ROOT, Bench, Figure, medians, names, show


def figure(value: float, *, subject: str = "ours", metric: str = "CPU", unit: str = "s") -> Figure:
    return Figure(subject=subject, metric=metric, value=value, unit=unit)


def test_every_metric_of_every_subject_is_the_median_of_its_rounds() -> None:
    told = [figure(3), figure(9, subject="peer"), figure(1), figure(2), figure(7, unit="MiB")]
    assert medians(told) == [figure(2), figure(9, subject="peer"), figure(7, unit="MiB")]


def test_the_table_is_followed_by_one_json_line_per_subject_and_metric(capsys: pytest.CaptureFixture[str]) -> None:
    show(Bench(name="night", subjects=()), [figure(2), figure(9, subject="peer")])
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines if line.startswith("{")] == [
        {"bench": "night", "subject": "ours", "metric": "CPU", "value": 2, "unit": "s"},
        {"bench": "night", "subject": "peer", "metric": "CPU", "value": 9, "unit": "s"},
    ]
    assert lines[1].split() == ["CPU,", "s", "2", "9"]


def test_a_benchmark_is_a_module_that_says_so() -> None:
    assert "night" in names()
    assert not {"run", "night_stages"} & set(names())


CARELESS = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if not os.fork():
    while time.process_time() < 0.8:
        pass
    os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def test_what_children_use_is_counted_although_nobody_waits_for_them() -> None:
    watching = "import os, sys; from benchmarks.trees import run; print(run(sys.argv[1:], os.environ)[0].cpu_s)"
    command = [sys.executable, "-c", watching, sys.executable, "-c", CARELESS]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    assert float(told) > 0.4
