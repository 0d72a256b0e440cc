"""A batch's columns as PostgreSQL array literals: a tenth of what a driver takes that looks at every element. Pure."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final


def array_literal(values: Sequence[Any]) -> str | None:
    """Return the literal of a column whose values are all of one plain type; None for any other, and for none."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return _texts(values)
    write = _WRITERS.get(kinds.pop()) if len(kinds) == 1 else None
    return None if write is None else "{" + ",".join(map(write, values)) + "}"


def with_literals(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statement's parameters, lists as literals where they are plain; every statement says their type."""
    return {name: _shortened(value) for name, value in parameters.items()}


def _shortened(value: Any) -> Any:  # noqa: ANN401 # whatever a statement takes
    return value if not isinstance(value, list) else array_literal(value) or value


def _texts(values: Sequence[str]) -> str:
    """Quote all at once: hardly ever is there anything to escape."""
    text = '","'.join(values)
    if "\\" in text or text.count('"') > 2 * len(values) - 2:
        text = '","'.join(map(_escaped, values))
    return f'{{"{text}"}}'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _interval(span: timedelta) -> str:
    return f'"{span.days} days {span.seconds} secs {span.microseconds} us"'


def _bytes(data: bytes) -> str:
    return f'"\\\\x{data.hex()}"'


def _instant(at: date | datetime) -> str:
    return f'"{at.isoformat()}"'


_WRITERS: Final[Mapping[type, Callable[[Any], str]]] = {
    int: str,
    float: repr,
    bytes: _bytes,
    timedelta: _interval,
    date: _instant,
    datetime: _instant,
}
