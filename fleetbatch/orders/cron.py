"""Is this a schedule that Airflow's cron understands? Pure."""

import re
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_ITEM: Final = re.compile(r"(?P<first>\*|\w+)(-(?P<last>\w+))?(/(?P<step>[1-9]\d*))?")


def cron_problem(text: str) -> str | None:
    """Return what is wrong with five cron fields, or None; names and seconds' fields beyond Unix cron are refused."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"{len(fields)} fields; expected five: minute hour day month weekday, such as `0 20 * * *`"
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        if not all(_item_fits(item, low, high, names) for item in field.lower().split(",")):
            return (
                f"{field!r} is no {name}; expected {low} to {high}, `*`, ranges `a-b`, steps `*/n`, or a list of those"
            )
    return None


def _item_fits(item: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    found = _ITEM.fullmatch(item)
    if found is None:
        return False
    if found["first"] == "*":
        return found["last"] is None
    first = _value(found["first"], low, names)
    last = first if found["last"] is None else _value(found["last"], low, names)
    return first is not None and last is not None and low <= first <= last <= high


def _value(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text in names:
        return names.index(text) + low
    return int(text) if text.isascii() and text.isdigit() else None
