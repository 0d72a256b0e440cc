"""Trusted per-file work runs on an Executor: processes of this machine, or a Dask cluster that someone else keeps."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

from fleetbatch.errors import RejectedError


@contextlib.contextmanager
def open_engine(url: str, *, workers: int = 2) -> Iterator[Executor]:
    """Open `local` (that many spawned processes) or `dask://host:8786`; raise RejectedError for anything else.

    Work is given as module-level functions with arguments that pickle. Spawned, never forked: pyarrow, polars and
    onnxruntime keep threads that a fork would lose.
    """
    if url == "local":
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
        return
    scheme, _, address = url.partition("://")
    if scheme != "dask" or not address:
        summary = f"engine {url!r} is not known; use `local` or `dask://host:port`"
        raise RejectedError(summary)
    try:
        from distributed import Client
    except ImportError as error:
        summary = "engine dask:// needs the package `distributed`: pip install 'fleetbatch[dask]'"
        raise RejectedError(summary) from error
    with Client(f"tcp://{address}") as client:  # type: ignore[no-untyped-call] # distributed has no types
        yield client.get_executor()
