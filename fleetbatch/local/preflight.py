"""What can be refused before anything is started: the order, its input, its model; and what the night will cost."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pyarrow as pa

from fleetbatch.bundle import bundle_sha256, read_model_file
from fleetbatch.errors import RejectedError
from fleetbatch.local.airflow import dags_folder
from fleetbatch.local.laptop import CELLS
from fleetbatch.local.outcome import begun_order
from fleetbatch.local.progress import Progress
from fleetbatch.local.request import NightRequest, order_name_of, own_options, own_order
from fleetbatch.nouns import FrozenOrder, Order
from fleetbatch.orders import Estimate, load_order, model_file, read_model
from fleetbatch.sharding import list_input, open_input
from fleetbatch.steps.examining import estimated, known_in

_NOTHING_MEASURED: Final = pa.table({"workload": pa.array([], pa.string()), "rows": [], "busy_s": []})


def prepare_order(request: NightRequest, progress: Progress) -> Path:
    """Check the order and everything it names; return the folder that holds its file.

    Raises RejectedError with what is wrong: a folder without a picture, a bundle that is none, the order's mistakes.
    """
    regions = frozenset(region for _, region, _ in CELLS)
    if request.folder is None:
        path = _order_file(dags_folder() / "orders", request.order)
        order, estimate = examine_order(path, regions=regions)
    else:
        path = request.home / "orders" / f"{order_name_of(request)}.toml"
        order, estimate = _write_own_order(request, path, regions)
    if not request.force and (was := begun_order(request.home, order.name, request.night)) is not None:
        refuse_another(was, order, None if not order.model else bundle_sha256(read_model_file(model_file(order.model))))
    progress.event(f"order {order.name}: {estimate}")
    return path.parent


def refuse_another(was: FrozenOrder, order: Order, model_sha256: str | None) -> None:
    """Raise RejectedError when a night was begun by another order of that name, which would be taken for this one."""
    pairs = {
        "workload": (was.order.workload, order.workload),
        "source": (was.order.source, order.source),
        "model": (was.model_sha256[:12] or "none", (model_sha256 or "")[:12] or "none"),
        "options": (dict(was.order.options), dict(order.options)),
    }
    differences = [f"{name}: {theirs} then, {ours} now" for name, (theirs, ours) in pairs.items() if theirs != ours]
    if differences:
        summary = (
            f"night {was.key.night} of {order.name} was begun with something else; "
            "--force computes it anew, --night is another one"
        )
        raise RejectedError(summary, differences)


def examine_order(path: Path, *, regions: frozenset[str]) -> tuple[Order, Estimate]:
    """Return an order and what it will take; raise RejectedError with everything that is wrong with it."""
    order = load_order(path, known_in(regions))
    read_model(order)
    return order, estimated(order, rates=_NOTHING_MEASURED, free_car_hours=None)


def _write_own_order(request: NightRequest, path: Path, regions: frozenset[str]) -> tuple[Order, Estimate]:
    """Write the order file of somebody's own input, once it is known to be one that can run."""
    listing = list_input(open_input(request.workload, str(request.folder), own_options(request)))
    path.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".checking-", dir=path.parent) as folder:
        scratch = Path(folder) / path.name
        scratch.write_text(own_order(request, listing.items))
        examined = examine_order(scratch, regions=regions)
        scratch.replace(path)
    return examined


def _order_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in folder.glob("*.toml")))
        summary = f"there is no order {name!r} in {folder}; there are {known}"
        raise RejectedError(summary)
    return path
