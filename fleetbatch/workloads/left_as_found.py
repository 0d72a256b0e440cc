"""An episode leaves its environment's package as it found it, so that the next one follows from its own row alone.

Packages keep dials in their classes and modules, and some environments turn them for good: after an intersection of
highway-env every other road is driven with its distances. What Python does not see, a simulator's own state, stays.
"""

import contextlib
import copy
import importlib
import sys
from collections.abc import Iterable, Iterator
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
    owners = [*_modules(packages), *_classes(packages)]
    found = [(owner, _named(owner)) for owner in owners]
    contents = [(value, kept) for owner, named in found for value in named.values() for kept in _copied(owner, value)]
    try:
        yield
    finally:
        for owner, named in found:
            _put_back(owner, named)
        for value, kept in contents:
            if not _alike(value, kept):
                _refill(value, kept)


def _packages(environment: str) -> frozenset[str]:
    """Return the packages of an environment's class and of those that it comes from; none where it cannot be found."""
    made = creator_of(environment)
    kinds = made.__mro__ if isinstance(made, type) else () if made is None else (made,)
    return frozenset(kind.__module__.partition(".")[0] for kind in kinds) - _NOT_THEIRS


def _modules(packages: frozenset[str]) -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]


def _classes(packages: frozenset[str]) -> Iterable[type]:
    """Return the classes that the packages define, each once."""
    values = [value for module in _modules(packages) for value in vars(module).values()]
    kinds = [value for value in values if isinstance(value, type) and value.__module__.partition(".")[0] in packages]
    return dict.fromkeys(kinds)


def _named(owner: Any) -> dict[str, Any]:  # noqa: ANN401 (a module or a class)
    return {name: value for name, value in vars(owner).items() if not name.startswith("__")}


def _copied(owner: object, value: Any) -> Iterator[Any]:  # noqa: ANN401 (whatever a class holds)
    """Yield a copy of a class's own container; a module's may be anybody's, such as Gymnasium's register."""
    if isinstance(owner, type) and isinstance(value, list | dict | set | np.ndarray):
        with contextlib.suppress(Exception):  # what cannot be copied stays as it becomes
            yield copy.deepcopy(value)


def _put_back(owner: Any, named: dict[str, Any]) -> None:  # noqa: ANN401 (a module or a class)
    now = _named(owner)
    for name in now.keys() | named.keys():
        before, after = named.get(name, _ABSENT), now.get(name, _ABSENT)
        if before is after or isinstance(after, ModuleType):  # one that was imported meanwhile
            continue
        with contextlib.suppress(AttributeError, TypeError):  # a class may guard its names
            delattr(owner, name) if before is _ABSENT else setattr(owner, name, before)


def _alike(value: Any, kept: Any) -> bool:  # noqa: ANN401 (two containers)
    try:
        return bool(np.array_equal(value, kept)) if isinstance(value, np.ndarray) else bool(value == kept)
    except Exception:  # noqa: BLE001 (what lies in them compares as it likes)
        return False


def _refill(value: Any, kept: Any) -> None:  # noqa: ANN401 (two containers of one kind)
    if isinstance(value, np.ndarray):
        value[...] = kept
    elif isinstance(value, list):
        value[:] = kept
    else:
        value.clear()
        value.update(kept)
