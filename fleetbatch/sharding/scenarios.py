"""Driving scenarios as rows: from a sweep (sweep.py), or from files that hold one scenario each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.shard_file import Row, dead_row
from fleetbatch.sharding.sources import Source
from fleetbatch.workloads.driving import SEED_MAX, Scenario


@dataclass(frozen=True, slots=True)
class Scenarios:
    """Every item is a scenario as JSON; what is none is dead."""

    options: Mapping[str, str]
    expects: str = "scenarios (JSON files with environment, seed and config)"

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield the source's items."""
        return source.entries()

    def row(self, source: Source, entry: Entry) -> Row:
        """Return the scenario as it is, once it is one."""
        content = source.read(entry.uri)
        try:
            scenario = msgspec.json.decode(content, type=Scenario)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return dead_row(f"not a scenario: {error}")
        if not 0 <= scenario.seed < SEED_MAX:
            return dead_row(f"not a scenario: seed {scenario.seed} is not 0 to {SEED_MAX - 1}")
        return Row(content=content, format="JSON")
