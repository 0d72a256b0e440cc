"""An episode leaves its environment's package as it found it, so that the next one follows from its own row alone.

Packages keep dials in their classes and modules, and some environments turn them for good: after an intersection of
highway-env every other road is driven with its distances. What Python does not see, a simulator's own state, stays.
"""

import contextlib
import importlib
import itertools
import operator
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import numpy as np

_ABSENT: Final = object()
_NOT_THEIRS: Final = sys.stdlib_module_names | {"gymnasium", "numpy"}
"""What every environment is made of, beside its own packages."""


def creator_of(environment: str) -> Any:  # noqa: ANN401 (a class, or whatever makes one)
    """Return what makes an environment, by Gymnasium's id; None where it cannot be found."""
    module, _, name = environment.rpartition(":")
    with contextlib.suppress(Exception):  # whoever makes it hears what is wrong
        import gymnasium
        from gymnasium.envs.registration import load_env_creator

        if module:
            importlib.import_module(module)
        entry = gymnasium.spec(name).entry_point
        return load_env_creator(entry) if isinstance(entry, str) else entry
    return None


@contextlib.contextmanager
def left_as_found(environment: str) -> Iterator[None]:
    """Put back at the end what changed in the packages of an environment's classes; `environment` is Gymnasium's id."""
    packages = _packages(environment)
    classes = _classes(packages)
    found = [(owner, _named(owner)) for owner in (*_modules(packages), *classes)]
    contents = _contents([value for owner in classes for value in _named(owner).values()], packages)
    try:
        yield
    finally:
        for owner, named in found:
            _put_back(owner, named)
        for value, kept in contents:
            with contextlib.suppress(Exception):  # it may guard itself, as an array that nobody may write to
                _refill(value, kept)


def _packages(environment: str) -> frozenset[str]:
    """Return the packages of an environment's class and of those that it comes from; none where it cannot be found."""
    made = creator_of(environment)
    kinds = made.__mro__ if isinstance(made, type) else () if made is None else (made,)
    return frozenset(map(_package_of, kinds)) - _NOT_THEIRS


def _package_of(defined: Any) -> str:  # noqa: ANN401 (a class or a function)
    return str(getattr(defined, "__module__", "")).partition(".")[0]


def _modules(packages: frozenset[str]) -> list[ModuleType]:
    named: list[Any] = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]
    return [module for module in named if isinstance(module, ModuleType)]


def _classes(packages: frozenset[str]) -> list[type]:
    """Return the classes that the packages define, those within others too, each once."""
    found, left = dict[type, None](), list[Any](_modules(packages))
    while left:
        values = [value for value in vars(left.pop()).values() if isinstance(value, type) and value not in found]
        own = dict.fromkeys(value for value in values if _package_of(value) in packages)
        found |= own
        left += own
    return list(found)


def _named(owner: Any) -> dict[str, Any]:  # noqa: ANN401 (a module or a class)
    return {name: value for name, value in vars(owner).items() if not name.startswith("__")}


def _contents(values: list[Any], packages: frozenset[str]) -> list[tuple[Any, Any]]:
    """Return the containers among what classes hold, those within others too, and what is in each.

    A module's own may be anybody's, such as Gymnasium's register, and are not asked. Things in a container are not
    copied but asked for containers of their own: packages look whether two things are one.
    """
    found, left = dict[int, tuple[Any, Any]](), list(values)
    while left:
        value = left.pop()
        kind = type(value)
        if issubclass(kind, np.ndarray):
            found.setdefault(id(value), (value, value.copy()))
        elif issubclass(kind, list | dict | set) and id(value) not in found:
            kept = next(plain(value) for plain in (list, dict, set) if issubclass(kind, plain))
            found[id(value)] = (value, kept)
            left += kept.values() if isinstance(kept, dict) else kept
        elif issubclass(kind, tuple):
            left += value
        elif _package_of(kind) in packages:
            left.append(getattr(value, "__dict__", None))
    return list(found.values())


def _put_back(owner: Any, named: dict[str, Any]) -> None:  # noqa: ANN401 (a module or a class)
    now = _named(owner)
    for name in now.keys() | named.keys():
        before, after = named.get(name, _ABSENT), now.get(name, _ABSENT)
        if before is after or isinstance(after, ModuleType):  # one that was imported meanwhile
            continue
        with contextlib.suppress(AttributeError, TypeError):  # a class may guard its names
            delattr(owner, name) if before is _ABSENT else setattr(owner, name, before)


def _refill(value: Any, kept: Any) -> None:  # noqa: ANN401 (two containers of one kind)
    if isinstance(kept, np.ndarray):
        value[...] = kept
    elif isinstance(kept, list):
        value[:] = kept
    elif not _holds_the_same(value, kept):
        value.clear()
        value.update(kept)


def _holds_the_same(value: Any, kept: Any) -> bool:  # noqa: ANN401 (two dicts or two sets)
    if isinstance(kept, set):
        return bool(value == kept)  # other than a dict's, its order is not what was put in first
    ours, theirs = (itertools.chain.from_iterable(some.items()) for some in (value, kept))
    return len(value) == len(kept) and all(map(operator.is_, ours, theirs))
