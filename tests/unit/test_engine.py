import pytest
from distributed import LocalCluster

from fleetbatch.engine import open_engine
from fleetbatch.errors import RejectedError


def test_work_runs_on_spawned_processes() -> None:
    with open_engine("local", workers=1) as engine:
        assert list(engine.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.filterwarnings("ignore")  # the cluster's own, while it starts and stops
def test_the_same_work_runs_on_a_dask_cluster_that_someone_else_keeps() -> None:
    dials = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with LocalCluster(**dials) as cluster:  # type: ignore[no-untyped-call] # distributed has no types
        address = cluster.scheduler_address.removeprefix("tcp://")
        with open_engine(f"dask://{address}") as engine:
            assert list(engine.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.parametrize("url", ["remote", "dask://", "ray://somewhere:1"])
def test_an_unknown_engine_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(RejectedError, match="use `local` or `dask://host:port`"), open_engine(url):
        pass
