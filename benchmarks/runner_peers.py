"""The runner's peers: the same pictures and the same model without fleetbatch; each prints how many it answered.

`runner_peers.py NAME PICTURES MODEL OUT`. Every peer squashes a picture to the model's size and writes the best label
with its score. What the model wants of a picture stands in `prepare.json` beside it. A picture a run, which is what all
of them do best with on a core, but for Daft as documented, whose functions are given batches.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WANTED: dict[str, Any] = json.loads((Path(sys.argv[3]).parent / "prepare.json").read_text())
SIDE: int = WANTED["side"]
SCALE = np.float32(WANTED["scale"])
MEAN = np.array(WANTED["mean"], dtype=np.float32)
STEP: int = -1 if WANTED["colour"] == "BGR" else 1
PROCESSES = 2
CHUNK = 16


def open_session(model: str) -> Any:  # noqa: ANN401 (it ships no types)
    import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def normalise(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[H, W, RGB] bytes to [channels, H, W] floats."""
    return np.ascontiguousarray((picture[:, :, ::STEP].astype(np.float32) * SCALE - MEAN).transpose(2, 0, 1))


def best(scores: np.ndarray[Any, Any]) -> tuple[int, float]:
    number = int(scores.argmax())
    return number, float(scores.reshape(-1)[number])


def answer(session: Any, inputs: np.ndarray[Any, Any]) -> list[tuple[int, float]]:  # noqa: ANN401 (it ships no types)
    return [best(scores) for scores in session.run(None, {session.get_inputs()[0].name: inputs})[0]]


def load(path: str) -> np.ndarray[Any, Any]:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def write(out: str, answers: list[tuple[int, float]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"label": [a[0] for a in answers], "score": [a[1] for a in answers]}), out)
    print(len(answers))


def session_alone(pictures: str, model: str, out: str) -> None:
    """The limit: the model alone, on inputs that are there already."""
    del out
    session = open_session(model)
    inputs = [normalise(load(str(path)))[None] for path in sorted(Path(pictures).iterdir())[:CHUNK]]
    answer(session, inputs[0])
    began = time.process_time()
    for number in range(RUNS):
        answer(session, inputs[number % len(inputs)])
    print(RUNS / (time.process_time() - began))


RUNS = 500
_session: Any = None


def _open_in_child(model: str) -> None:
    global _session  # noqa: PLW0603 (how a pool's initializer hands something to its calls)
    _session = open_session(model)


def _answer_one(path: str) -> tuple[int, float]:
    return answer(_session, normalise(load(path))[None])[0]


def pool(pictures: str, model: str, out: str) -> None:
    """A multiprocessing pool, a process per core, a picture per run."""
    import multiprocessing

    paths = sorted(str(path) for path in Path(pictures).iterdir())
    with multiprocessing.get_context("fork").Pool(PROCESSES, _open_in_child, (model,)) as workers:
        write(out, workers.map(_answer_one, paths, chunksize=CHUNK))
        workers.close()
        workers.join()


def daft_documented(pictures: str, model: str, out: str) -> None:
    """The steps of Daft's image tutorial: glob, download, decode, resize, a class as UDF over batches."""
    _daft(pictures, model, out, max_concurrency=None)


def daft_tuned(pictures: str, model: str, out: str) -> None:
    """The same with a process per core for the model, and a batch that fits its cache."""
    _daft(pictures, model, out, max_concurrency=PROCESSES)


def _daft(pictures: str, model: str, out: str, *, max_concurrency: int | None) -> None:
    import daft  # type: ignore[import-not-found]  # the peer's own environment

    class Classify:
        def __init__(self) -> None:
            self.session = open_session(model)

        @daft.method.batch(  # type: ignore[untyped-decorator]  # the peer's own environment
            return_dtype=daft.DataType.struct({"label": daft.DataType.int64(), "score": daft.DataType.float64()}),
            batch_size=CHUNK if max_concurrency else None,
        )
        def classify(self, images: Any) -> list[dict[str, float]]:  # noqa: ANN401 (it is not here)
            inputs = [normalise(np.asarray(image)) for image in images.to_pylist()]
            if max_concurrency is None:
                answers = answer(self.session, np.stack(inputs))
            else:
                answers = [answer(self.session, one[None])[0] for one in inputs]
            return [{"label": label, "score": score} for label, score in answers]

    classify = (daft.cls(max_concurrency=max_concurrency) if max_concurrency else daft.cls)(Classify)()
    frame = daft.from_glob_path(f"{pictures}/*")
    frame = frame.with_column("image", daft.col("path").download().decode_image(mode="RGB").resize(SIDE, SIDE))
    frame = frame.with_column("answer", classify.classify(daft.col("image"))).select("path", "answer")
    frame.write_parquet(out)
    print(daft.read_parquet(f"{out}/*.parquet").count_rows())


def ray_data(pictures: str, model: str, out: str) -> None:
    """Ray's guide to images: read_images, map to prepare, map_batches with a class that holds the model."""
    import ray  # type: ignore[import-not-found]  # the peer's own environment
    from PIL import Image

    class Classify:
        def __init__(self) -> None:
            self.session = open_session(model)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            answers = [answer(self.session, one[None])[0] for one in batch["input"]]
            return {"label": np.array([a[0] for a in answers]), "score": np.array([a[1] for a in answers])}

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        picture = Image.fromarray(row["image"]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return {"input": normalise(np.asarray(picture))}

    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    answers = (
        ray.data.read_images(pictures, mode="RGB")
        .map(prepare)
        .map_batches(Classify, batch_size=CHUNK, compute=ray.data.ActorPoolStrategy(size=1))
    )
    answers.write_parquet(out)
    print(ray.data.read_parquet(out).count())
    ray.shutdown()


PEERS = {
    "session": session_alone,
    "pool": pool,
    "daft": daft_documented,
    "daft-tuned": daft_tuned,
    "ray": ray_data,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
