"""An order is accepted whole, or refused with everything that is wrong with it."""

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from fleetbatch.errors import RejectedError
from fleetbatch.nouns import Auditing, Cutting, DataClass, Order
from fleetbatch.orders.cron import cron_problem
from fleetbatch.units import MIB, OrderName

GENERATOR: Final = "generator:"
MODELS: Final = Path(__file__).parents[1] / "models"
"""The bundles that travel inside the package."""

SHARD_S: Final = 20 * 60
"""The seconds of the reference car that a shard is cut for."""
ROW_GROUPS: Final = 10
"""Into which a shard is cut by rows; large rows make more."""

_Option = str | int | float | bool | list[Any] | dict[str, Any]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this deployment has: an order may name nothing else."""

    regions: frozenset[str]
    workloads: frozenset[str]
    rows_per_s: Callable[[str], float]
    """What the reference car is taken to answer of a workload."""
    generators: frozenset[str] = frozenset({"road-signs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """What a field of an order may be, for msgspec and in words."""

    kind: Any
    expected: str


def _whole(low: int, high: int, what: str) -> _Field:
    return _Field(
        kind=Annotated[int, msgspec.Meta(ge=low, le=high)], expected=f"a whole number {low} to {high}: {what}"
    )


_ORDER: Final[Mapping[str, _Field]] = {
    "name": _Field(
        kind=Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,39}(?!\n)$")],
        expected="1 to 40 of a-z, 0-9, _ and -, beginning with a letter: it names the DAG and the table",
    ),
    "workload": _Field(kind=_Text, expected="the name of a workload"),
    "source": _Field(
        kind=_Text, expected="a folder of pictures, a list of files, or `generator:road-signs?count=1000`"
    ),
    "model": _Field(
        kind=str,
        expected="the path of a model bundle, ending in .zip, or the name of one in the package: road-signs",
    ),
    "region": _Field(kind=_Text, expected="a region, or `any`"),
    "priority": _whole(0, 2, "0 is served first"),
    "deadline_hours": _Field(
        kind=Annotated[float, msgspec.Meta(gt=0, le=72)],
        expected="hours after the run starts, above 0 and at most 72",
    ),
    "data_class": _Field(kind=DataClass, expected="open, confidential, pseudonymous or personal"),
    "lane": _Field(kind=Literal["cars", "cloud"], expected="cars or cloud"),
    "schedule": _Field(
        kind=str, expected="five cron fields such as `0 20 * * *`, or empty: only when somebody starts it"
    ),
    "timezone": _Field(kind=_Text, expected="an IANA time zone such as Europe/Berlin"),
    "cutting": _Field(kind=dict[str, Any], expected="a table"),
    "auditing": _Field(kind=dict[str, Any], expected="a table"),
    "options": _Field(kind=dict[str, _Option], expected="a table of values, lists and tables"),
}
ROWS_MAX: Final = 1_000_000
_CUTTING: Final[Mapping[str, _Field]] = {
    "shard_rows": _whole(1, ROWS_MAX, "rows of a shard at most"),
    "shard_bytes": _whole(1, 1024 * MIB, "bytes of a shard at most"),
    "row_group_rows": _whole(1, ROWS_MAX, "rows of a row group at most"),
    "row_group_bytes": _whole(1, 256 * MIB, "bytes of a row group at most"),
}
_AUDITING: Final[Mapping[str, _Field]] = {
    "rows_per_1000": _whole(0, 1000, "rows recomputed of every thousand"),
    "rows_min": _whole(1, 1000, "rows recomputed of every shard at least"),
    "attempts_max": _whole(1, 100, "times that a shard is given out at most"),
}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "workload": "image",
    "model": "",
    "region": "any",
    "priority": 1,
    "deadline_hours": 10.0,
    "data_class": "open",
    "lane": "cars",
    "schedule": "0 20 * * *",
    "timezone": "UTC",
    "cutting": {},
    "auditing": {},
    "options": {},
}


def load_order(path: Path, known: Known) -> Order:
    """Read an order file; paths in it are relative to it, and its name is the file's unless it says another.

    Raises RejectedError with every mistake in it.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        summary = f"cannot read the order file {path}: {error.strerror}"
        raise RejectedError(summary) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        summary = f"{path} is not TOML: {error}"
        raise RejectedError(summary) from error
    return parse_order({"name": path.stem, **raw}, known, base=path.parent, where=str(path))


def parse_form(form: Mapping[str, Any], known: Known, *, base: Path) -> Order:
    """Return the order that the ad hoc form describes: an order's fields; what is left empty takes its default.

    `force` is the run's business, not the order's. Raises RejectedError with every mistake in it.
    """
    filled = {name: value for name, value in form.items() if value not in (None, "", {}) and name != "force"}
    return parse_order({"name": "adhoc", "schedule": "", **filled}, known, base=base, where="the form")


def parse_order(raw: Mapping[str, Any], known: Known, *, base: Path, where: str) -> Order:
    """Return the order that a mapping describes; raise RejectedError with every mistake in it.

    `base` is the folder that relative paths begin at; `where` names the order to a person.
    """
    given = {**_DEFAULTS, **raw}
    problems = _field_problems(given, _ORDER, "")
    problems += [f"`{name}` is missing: {_ORDER[name].expected}" for name in _ORDER if name not in given]
    wrong = {problem.partition("`")[2].partition("`")[0] for problem in problems}
    sound = {name: value for name, value in given.items() if name in _ORDER and name not in wrong}
    problems += _field_problems(sound.get("cutting", {}), _CUTTING, "cutting.")
    problems += _field_problems(sound.get("auditing", {}), _AUDITING, "auditing.")
    problems += [
        f"`options.{name}` is {value!r}; there is no such number in JSON, and workloads read that"
        for name, value in sound.get("options", {}).items()
        if _holds_no_number(value)
    ]
    problems += _meaning_problems(sound, known)
    if not problems:
        problems += _cutting_problems(_cutting(given, known))
    problems += _place_problems(sound, known, base)
    if problems:
        summary = f"{where} is not an order that can run"
        raise RejectedError(summary, problems)
    return _order(given, base, _cutting(given, known))


def model_file(model: str) -> Path:
    """Return where an order's bundle is: a path ends in .zip, anything else names one that travels in the package."""
    return Path(model) if model.endswith(".zip") else MODELS / f"{model.replace('-', '_')}.zip"


def _field_problems(given: Mapping[str, Any], allowed: Mapping[str, _Field], prefix: str) -> list[str]:
    problems = []
    for name, value in given.items():
        if name not in allowed:
            problems.append(f"`{prefix}{name}` is not known; known are {', '.join(sorted(allowed))}")
            continue
        try:
            msgspec.convert(value, allowed[name].kind)
        except msgspec.ValidationError:
            problems.append(f"`{prefix}{name}` is {value!r}; expected {allowed[name].expected}")
    return problems


def _meaning_problems(sound: Mapping[str, Any], known: Known) -> list[str]:
    problems = []
    if sound.get("workload", next(iter(known.workloads), "")) not in known.workloads:
        problems.append(f"`workload` {sound['workload']!r} is not known; known are {_listed(known.workloads)}")
    if sound.get("region", "any") not in {"any", *known.regions}:
        problems.append(f"`region` {sound['region']!r} has no cell; cells serve {_listed(known.regions)}, or say `any`")
    if sound.get("data_class") == "personal" and sound.get("lane") != "cloud":
        problems.append(
            '`data_class` personal never leaves for a car: say `lane = "cloud"`, or send data of another class'
        )
    if sound.get("schedule"):
        cron = cron_problem(sound["schedule"])
        problems += [f"`schedule` {sound['schedule']!r}: {cron}"] if cron else []
    if "timezone" in sound and not _is_timezone(sound["timezone"]):
        problems.append(f"`timezone` {sound['timezone']!r} is not known; {_ORDER['timezone'].expected} is")
    return problems


def _cutting_problems(cutting: Cutting) -> list[str]:
    problems = []
    if cutting.row_group_rows > cutting.shard_rows:
        problems.append(f"`cutting.row_group_rows` {cutting.row_group_rows} is above shard_rows {cutting.shard_rows}")
    if cutting.row_group_bytes > cutting.shard_bytes:
        problems.append(
            f"`cutting.row_group_bytes` {cutting.row_group_bytes} is above shard_bytes {cutting.shard_bytes}"
        )
    return problems


def _place_problems(sound: Mapping[str, Any], known: Known, base: Path) -> list[str]:
    """Look whether source and model are there."""
    problems = []
    source = sound.get("source", f"{GENERATOR}{next(iter(known.generators), '')}")
    generator = source.removeprefix(GENERATOR).partition("?")[0]
    if source.startswith(GENERATOR):
        if generator not in known.generators:
            problems.append(f"`source` {source!r}: no generator {generator!r}; known are {_listed(known.generators)}")
    elif not _placed(source, base).exists():
        problems.append(f"`source` {_placed(source, base)}: there is no such folder; name a folder of pictures")
    if sound.get("model") and not model_file(_model(sound["model"], base)).is_file():
        file = model_file(_model(sound["model"], base))
        problems.append(f"`model` {file}: there is no such file; make a bundle with `fleetbatch model pack`")
    return problems


def _cutting(given: Mapping[str, Any], known: Known) -> Cutting:
    """Return how an order is cut; what it does not say follows from how fast its workload is taken to be."""
    said = given["cutting"]
    usual = min(max(round(SHARD_S * known.rows_per_s(given["workload"])), 1), ROWS_MAX)
    rows = said.get("shard_rows", usual)
    return Cutting(**{"shard_rows": rows, "row_group_rows": max(rows // ROW_GROUPS, 1), **said})


def _order(given: Mapping[str, Any], base: Path, cutting: Cutting) -> Order:
    plain = {field.name: given[field.name] for field in fields(Order)}
    source = given["source"]
    return Order(
        **{
            **plain,
            "name": OrderName(given["name"]),
            "source": source if source.startswith(GENERATOR) else str(_placed(source, base)),
            "model": _model(given["model"], base),
            "deadline_hours": float(given["deadline_hours"]),
            "cutting": cutting,
            "auditing": Auditing(**given["auditing"]),
            "options": tuple(sorted((name, _plain(value)) for name, value in given["options"].items())),
        }
    )


def _model(model: str, base: Path) -> str:
    return str(_placed(model, base)) if model.endswith(".zip") else model


def _placed(path: str, base: Path) -> Path:
    return (base / Path(path).expanduser()).absolute()


def _plain(value: Any) -> str:  # noqa: ANN401 # a TOML value
    """Return text as it is and everything else as JSON: true, 0.5, [1, 2]."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def _holds_no_number(value: Any) -> bool:  # noqa: ANN401 # a TOML value
    """Return whether there is an infinite number in it, or one that is none: JSON would make null of it, silently."""
    if isinstance(value, float):
        return not math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds_no_number(one) for one in inner)


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
