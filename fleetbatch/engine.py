"""Trusted per-file work runs on an Executor: processes of this machine, or a Dask cluster that someone else keeps."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from fleetbatch.errors import RejectedError, TransientError

if TYPE_CHECKING:
    from distributed import Client

ENVIRONMENT: Final[Mapping[str, str]] = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "jemalloc"}
"""What a process of trusted work is started with: the step of a night, and so the workers that it starts.

Small matrices are multiplied no faster by several threads that wait for each other; learning took twice the CPU.
Arrow's usual allocator, mimalloc, gives memory back that nobody used for 10 ms, and takes fresh pages for every size of
page that is written: a cut of 417 MB took 43 MB more than with jemalloc, a merge of ten million rows 75 to 120 MB.
Where pyarrow was built without jemalloc it says so and takes the usual one.
"""


@contextlib.contextmanager
def open_engine(url: str, *, workers: int = 2, within_s: float = 10.0) -> Iterator[Executor]:
    """Open `local` (that many spawned processes) or `dask://host:8786`; raise RejectedError for anything else.

    Work is given as module-level functions with arguments that pickle. Spawned, never forked: pyarrow, polars and
    onnxruntime keep threads that a fork would lose. What was given to a Dask worker that dies is given to another by
    the cluster itself. A future raises what its work raised; BrokenExecutor when the engine lost it, TransientError
    when it took several workers with it. Raises TransientError when the cluster's scheduler is not reached within
    `within_s`.
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
    try:
        client = Client(f"tcp://{address}", timeout=within_s)  # type: ignore[no-untyped-call] # it has no types
    except OSError as error:
        message = f"the scheduler of engine {url} is not reached: {error}"
        raise TransientError(message) from error
    with client:
        yield _Cluster(client)


class _Cluster(Executor):
    """A Dask cluster whose failures are those of any other Executor."""

    def __init__(self, client: "Client") -> None:
        """Work through a client that someone else closes."""
        # Not pure: a job that failed and is given out again must run again, not hand its old failure back.
        self._executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call] # it has no types

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 # any work
        """Give a job to some worker."""
        done: Future[Any] = Future()
        done.set_running_or_notify_cancel()
        try:
            given = self._executor.submit(work, *args, **kwargs)
        except (OSError, RuntimeError) as error:
            message = f"the cluster takes no more work: {error}"
            raise BrokenExecutor(message) from error
        given.add_done_callback(lambda found: _hand_over(found, done))
        return done


def _hand_over(found: Future[Any], done: Future[Any]) -> None:
    from distributed import KilledWorker

    if found.cancelled():
        done.set_exception(BrokenExecutor("the cluster lost the job"))
        return
    error = found.exception()
    if isinstance(error, KilledWorker):
        done.set_exception(TransientError(f"the job was given up, since workers died with it: {error}"))
    elif error is not None:
        done.set_exception(error)
    else:
        done.set_result(found.result())
