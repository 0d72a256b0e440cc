"""How large the models are that open work needs, as the store has them: cars that lack one load it first."""

from collections.abc import Mapping

import pyarrow as pa

from fleetbatch import layout
from fleetbatch.store import Store
from fleetbatch.units import Sha256


def model_sizes(store: Store, open_shards: pa.Table, known: Mapping[str, int]) -> Mapping[str, int]:
    """Return the bytes of every model in use by its hash, asking only for those not known; a missing bundle has 0."""
    wanted = {str(one) for one in open_shards["model_sha256"].unique().to_pylist()} - {""}
    if wanted <= known.keys():
        return known
    return {one: known.get(one) or store.size(layout.bundle(Sha256(one))) or 0 for one in sorted(wanted)}
