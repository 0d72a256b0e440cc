"""Driving scenarios as rows: from a sweep (sweep.py), or from files that hold one scenario each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from fleetbatch.sharding.cut import Entry
from fleetbatch.sharding.shard_rows import Row, dead_row
from fleetbatch.sharding.sources import Source
from fleetbatch.workloads.driving import SEED_MAX, Scenario, problem_of


@dataclass(frozen=True, slots=True)
class Scenarios:
    """Every item is a scenario as JSON; what is none, or has an environment that cannot be made, is dead."""

    options: Mapping[str, str]
    expects: str = "scenarios (JSON files with environment, seed and config) of environments that are installed here"
    _problems: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What was tried, to what is wrong with it."""

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
        if why := self._why_not(scenario):
            return dead_row(why)
        return Row(content=content, format="JSON")

    def _why_not(self, scenario: Scenario) -> str:
        """Return why it cannot be driven anywhere, or nothing; what was made once is made with other values, too."""
        made = f"{scenario.environment} {sorted(scenario.config)}"
        exactly = f"{scenario.environment} {scenario.config}"
        if made not in self._problems and exactly not in self._problems:
            why = problem_of(scenario)
            self._problems[exactly if why else made] = why
        return self._problems.get(exactly, "")
