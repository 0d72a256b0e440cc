"""A sweep: the scenarios that a few lines of an order spell out, every configuration with every seed."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from fleetbatch.errors import RejectedError
from fleetbatch.sharding.cut import Entry
from fleetbatch.workloads.driving import SEED_MAX, Scenario

SCHEME: Final = "scenario:"
DIALS: Final = ("environment", "seeds", "first_seed", "config", "sweep")
ENVIRONMENT: Final = "highway_env:highway-fast-v0"
SCENARIOS_MAX: Final = 100_000_000
"""They are counted before the night, a million a second."""
DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Every environment with every combination of the swept values, each with every seed."""

    environments: tuple[str, ...]
    fixed: Mapping[str, Any]
    """What every configuration has."""
    swept: Mapping[str, list[Any]]
    """What one of these values is taken of in each, every combination."""
    first_seed: int
    seeds: int

    def entries(self) -> Iterator[Entry]:
        """Yield the scenarios, seed by seed within a configuration."""
        for environment, values in itertools.product(self.environments, itertools.product(*self.swept.values())):
            config = json.dumps({**self.fixed, **dict(zip(self.swept, values, strict=True))}, sort_keys=True)
            before, after = f"{SCHEME}{environment}?seed=", f"&{urlencode({'config': config})}"
            but_seed = len(self.read(f"{before}0{after}")) - 1
            for seed in range(self.first_seed, self.first_seed + self.seeds):
                yield Entry(uri=f"{before}{seed}{after}", size_bytes=but_seed + len(str(seed)))

    def read(self, uri: str) -> bytes:
        """Return one scenario as JSON; its uri says it all."""
        environment, _, query = uri.removeprefix(SCHEME).partition("?")
        told = dict(parse_qsl(query))
        scenario = Scenario(environment=environment, seed=int(told["seed"]), config=json.loads(told["config"]))
        return msgspec.json.encode(scenario, order="sorted")


def sweep(dials: Mapping[str, str]) -> Sweep:
    """Return the sweep that an order's options describe; raise RejectedError with every mistake in them."""
    problems = [f"`{name}` is not known; known are {', '.join(DIALS)}" for name in dials if name not in DIALS]
    seeds = _whole(dials, "seeds", 1, 1, problems)
    first = _whole(dials, "first_seed", 0, 0, problems)
    if first + seeds > SEED_MAX:
        problems.append(f"`seeds` reach {first + seeds}; a seed is below {SEED_MAX}")
    fixed, swept = _table(dials, "config", problems), _table(dials, "sweep", problems)
    problems += [
        f"`sweep.{name}` is {values!r}; expected a list of values"
        for name, values in swept.items()
        if not isinstance(values, list) or not values
    ]
    environments = _environments(dials.get("environment", ENVIRONMENT), problems)
    if problems:
        summary = "the options describe no scenarios"
        raise RejectedError(summary, problems)
    found = Sweep(environments=environments, fixed=fixed, swept=swept, first_seed=first, seeds=seeds)
    if (scenarios := math.prod((len(environments), seeds, *map(len, swept.values())))) > SCENARIOS_MAX:
        summary = f"the options describe {scenarios} scenarios; one night takes {SCENARIOS_MAX} at most"
        raise RejectedError(summary)
    return found


def _whole(dials: Mapping[str, str], name: str, default: int, least: int, problems: list[str]) -> int:
    told = dials.get(name, str(default))
    if told.isdecimal() and len(told) <= DIGITS_MAX and int(told) >= least:
        return int(told)
    problems.append(f"`{name}` is {told[:80]!r}; expected a whole number from {least} to {SEED_MAX}")
    return default


def _table(dials: Mapping[str, str], name: str, problems: list[str]) -> dict[str, Any]:
    told = _json(dials.get(name, "{}"))
    if isinstance(told, dict):
        return told
    problems.append(f"`{name}` is {dials[name][:80]!r}; expected a table of what JSON holds")
    return {}


def _environments(text: str, problems: list[str]) -> tuple[str, ...]:
    told = _json(text) if text.startswith("[") else [text]
    if isinstance(told, list) and told and all(isinstance(name, str) and name and "?" not in name for name in told):
        return tuple(told)
    problems.append(f"`environment` is {text!r}; expected the id of a Gymnasium environment, or a list of them")
    return ()


def _json(text: str) -> Any:  # noqa: ANN401 (whatever JSON holds)
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _no_number(text: str) -> None:
    """Refuse Infinity and NaN, which Python reads and JSON has not."""
    raise ValueError(text)
