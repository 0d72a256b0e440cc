import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetbatch.engine import open_engine
from fleetbatch.errors import RejectedError, TransientError


def fail_the_first_time(mark: Path) -> str:
    if mark.exists():
        return "well"
    mark.touch()
    message = "the first time"
    raise OSError(message)


def write_own_pid_and_wait(path: Path, beside: Path) -> int:
    path.write_text(str(os.getpid()))
    while not beside.exists():
        time.sleep(0.02)
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of two worker processes that someone else keeps."""
    from distributed import LocalCluster  # slow to import: here alone

    dials = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with LocalCluster(**dials) as cluster:  # type: ignore[no-untyped-call] # distributed has no types
        yield cluster.scheduler_address.removeprefix("tcp://")


pytestmark = pytest.mark.filterwarnings("ignore")  # the cluster's own, while it starts, loses workers and stops


def test_work_runs_on_spawned_processes() -> None:
    with open_engine("local", workers=1) as engine:
        assert list(engine.map(abs, [-1, 2])) == [1, 2]


def test_the_same_work_runs_on_a_dask_cluster_that_someone_else_keeps(cluster: str) -> None:
    with open_engine(f"dask://{cluster}") as engine:
        assert list(engine.map(abs, [-1, 2])) == [1, 2]


def test_a_job_that_failed_on_a_cluster_and_is_given_out_again_runs_again(cluster: str, tmp_path: Path) -> None:
    with open_engine(f"dask://{cluster}") as engine:
        first = engine.submit(fail_the_first_time, tmp_path / "mark")
        with pytest.raises(OSError, match="the first time"):
            first.result()
        assert engine.submit(fail_the_first_time, tmp_path / "mark").result() == "well"


def test_what_a_killed_worker_of_a_cluster_had_is_done_by_another(cluster: str, tmp_path: Path) -> None:
    pid, go = tmp_path / "pid", tmp_path / "go"
    with open_engine(f"dask://{cluster}") as engine:
        job = engine.submit(write_own_pid_and_wait, pid, go)
        while not pid.exists() or not pid.read_text():
            time.sleep(0.02)
        killed = int(pid.read_text())
        os.kill(killed, signal.SIGKILL)
        go.touch()
        assert job.result(timeout=60) != killed


def test_a_job_that_kills_every_worker_is_given_up_and_the_cluster_goes_on(cluster: str) -> None:
    with open_engine(f"dask://{cluster}") as engine:
        with pytest.raises(TransientError, match="workers died with it"):
            engine.submit(die).result(timeout=100)
        assert engine.submit(abs, -1).result(timeout=60) == 1


def test_a_cluster_that_is_not_there_is_said_to_be_out_of_reach() -> None:
    with pytest.raises(TransientError, match="not reached"), open_engine("dask://127.0.0.1:1", within_s=0.3):
        pass


@pytest.mark.parametrize("url", ["remote", "dask://", "ray://somewhere:1"])
def test_an_unknown_engine_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(RejectedError, match="use `local` or `dask://host:port`"), open_engine(url):
        pass
