"""How fast cars compute, by their class: a bounded number of them, drawn by lot, speaks for each.

What ended leases say is added up once, by day, class and car, and kept of the cars with the smallest lots only. A lot
is a hash of the car under a number that the cell drew for itself: nobody chooses one. Since lots are the same every
day, the cars with the smallest lots of a week are among those of each of its days, and their sums are whole. So what is
read for a round depends on the classes that there are, and not on the leases or nights that are kept.
"""

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from fleetbatch.ledger.pool import Pool
from fleetbatch.units import CLOUD_CLASS

_RATES: Final[Mapping[str, pa.DataType]] = {
    "workload": pa.string(),
    "hardware_class": pa.string(),
    "provider": pa.string(),
    "cars": pa.int64(),
    "rows": pa.int64(),
    "busy_s": pa.float64(),
}


class Rates:
    """The statements about what is measured of classes of hardware."""

    _pool: Pool

    def rates(self) -> pa.Table:
        """Return what was measured from confirmed parts: workload, hardware_class, provider, cars, rows, busy_s.

        Of leases that are open, or ended in the last `dials.rates_over` (whole days of UTC). `cars` are those that
        speak for their class, `rows` are those of all its cars: counted while all of them speak, else told from the
        share that does; `busy_s` is what the rows take at the rate of the middle one of the cars.
        """
        return pa.Table.from_pylist(self._pool.rows("rates", self._dials()), pa.schema(_RATES))

    def add_up_rates(self) -> None:
        """Add up what leases say that have ended since it was done last, so that `rates` has little left to read.

        At most `dials.rates_batches` statements, each about a few minutes of a night, and none after `rates_leases`
        leases; the next call goes on from there.
        """
        dials, leases = self._dials(), 0
        self._pool.rows("start_rates", dials)
        for _ in range(self._pool.dials.rates_batches):
            added = self._pool.rows("add_up_rates", dials)
            leases += sum(row["leases"] for row in added)
            if not added or leases >= self._pool.dials.rates_leases:
                break
        self._pool.rows("forget_rates", dials)

    def _dials(self) -> dict[str, Any]:
        dials = self._pool.dials
        return {
            "over": dials.rates_over,
            "batch": dials.rates_batch,
            "settled_after": dials.rates_settled_after,
            "voices": dials.voices,
            "cloud_class": CLOUD_CLASS,
        }
