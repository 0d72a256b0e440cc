"""`fleetbatch model`: make a bundle, look into one, and see whether this machine runs it right."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetbatch.cli.show import print_facts
from fleetbatch.errors import RejectedError

if TYPE_CHECKING:
    from fleetbatch.bundle import Bundle

models = typer.Typer(
    help="Model bundles: ONNX, preprocessing, labels and golden answers in one file.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@models.command()
def pack(  # noqa: PLR0913 # one option each
    model: Annotated[Path, typer.Argument(help="The ONNX file.")],
    *,
    preprocessing: Annotated[Path, typer.Option(help="TOML: what the ONNX file cannot say (colour, resize, ...).")],
    labels: Annotated[Path, typer.Option(help="One class a line, in the order of the output.")],
    golden: Annotated[list[Path], typer.Option(help="A picture, or a folder of pictures; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    answers: Annotated[
        Path | None, typer.Option(help="JSON with the answers of your own second implementation.")
    ] = None,
    fp16: Annotated[
        Path | None, typer.Option(help="The same model in half precision, for classes that ask for it.")
    ] = None,
    int8: Annotated[
        Path | None, typer.Option(help="The same model in eight bits, for orders that ask for it (or see `quantize`).")
    ] = None,
    json: Json = False,
) -> None:
    """Make a bundle; it is checked as a car will check it before anything is written."""
    from fleetbatch.bundle import open_bundle
    from fleetbatch.packing import PackRequest, pack_bundle

    request = PackRequest(
        model=model,
        preprocessing=preprocessing,
        labels=labels,
        goldens=tuple(golden),
        answers=answers,
        variants={**({"fp16": fp16} if fp16 else {}), **({"int8": int8} if int8 else {})},
    )
    data = pack_bundle(request)
    _write(out, data)
    print_facts(
        {"bundle": str(out), "bytes": len(data), "sha256": open_bundle(data, expected_sha256=None).sha256}, json=json
    )


@models.command("pack-policy")
def pack_driver(
    model: Annotated[Path, typer.Argument(help="The ONNX file: float32 [1, observation] to one row of values.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    json: Json = False,
) -> None:
    """Make a bundle of a driving policy; it is checked as a car will check it before anything is written."""
    from fleetbatch.bundle import bundle_sha256, read_model_file
    from fleetbatch.packing.policy import pack_policy

    data = pack_policy(read_model_file(model), model.stem)
    _write(out, data)
    print_facts({"bundle": str(out), "bytes": len(data), "sha256": bundle_sha256(data)}, json=json)


@models.command()
def quantize(
    bundle: Annotated[Path, typer.Argument(help="A bundle of pictures' model.")],
    *,
    pictures: Annotated[Path, typer.Option(help="A folder of pictures like those that it will see.")],
    out: Annotated[Path, typer.Option(help="Where the bundle with the int8 variant goes.")],
    json: Json = False,
) -> None:
    """Add an int8 variant to a bundle; an order gets it with the option `precision = "int8"`, and its rows say so."""
    from fleetbatch.packing.int8 import with_int8

    data = with_int8(_open(bundle), sorted(path for path in pictures.iterdir() if path.is_file()))
    _write(out, data)
    print_facts({"bundle": str(out), "bytes": len(data)}, json=json)


@models.command()
def show(bundle: Annotated[Path, typer.Argument(help="A bundle.")], *, json: Json = False) -> None:
    """Say what is in a bundle."""
    import msgspec

    opened = _open(bundle)
    facts = msgspec.to_builtins(opened.manifest)
    about = {"sha256": opened.sha256, "labels": len(opened.labels), "goldens": len(opened.content.goldens)}
    print_facts({**about, **facts}, json=json)


@models.command()
def check(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    *,
    provider: Annotated[str, typer.Option(help="onnxruntime execution provider.")] = "CPUExecutionProvider",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    json: Json = False,
) -> None:
    """See whether this machine reproduces the bundle's golden answers, as every car does before it computes."""
    from fleetbatch.bundle import bundle_workload, read_model_file
    from fleetbatch.workloads import Device, open_workload

    data = read_model_file(bundle)
    with _named(bundle):
        kind = bundle_workload(data)
        open_workload(kind, data, Device(provider=provider, threads=threads), {})
    print_facts({"bundle": str(bundle), "workload": kind, "goldens": "reproduced", "provider": provider}, json=json)


def _open(path: Path) -> "Bundle":
    """Return the bundle in a file; raise RejectedError that names the file."""
    from fleetbatch.bundle import open_bundle, read_model_file

    data = read_model_file(path)
    with _named(path):
        return open_bundle(data, expected_sha256=None)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's name before whatever is wrong with it."""
    try:
        yield
    except RejectedError as error:
        summary = f"{path}: {error.summary}"
        raise RejectedError(summary, error.problems) from error


def _write(path: Path, data: bytes) -> None:
    """Write the whole file or none of it."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        summary = f"cannot write {path}: {error.strerror}"
        raise RejectedError(summary) from error
