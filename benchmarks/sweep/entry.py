"""A dict that someone wrote by hand, read with a message for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.errors import UsageError

_REQUIRED = object()


class Entry:
    """A dict of a suite file, whose keys are taken out one by one; at last none may be left.

    Args:
        content: The dict.
        where: What it is called in messages.

    Raises:
        UsageError: From each method, in one line: what is wrong, where, and what can stand there.
    """

    def __init__(self, content: Any, where: str) -> None:
        self.where = where
        if not isinstance(content, Mapping):
            raise UsageError(f"{where}: {content!r} is no dict")
        self._left = dict(content)
        self._known: list[str] = []

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        """Take a value of some kind; ``default`` where there is none."""
        self._known.append(key)
        value = self._left.pop(key, default)
        if value is _REQUIRED:
            raise UsageError(f"{self.where}: '{key}' is missing")
        if value is default or (isinstance(value, kind) and not isinstance(value, bool)):
            return value
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        raise UsageError(f"{self.where}: {key} is {value!r}, not a {names}")

    def take_several(
        self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED
    ) -> tuple[Any, ...]:
        """Take a list of different values of some kind; at least one if it is required."""
        values = self.take(key, (list, tuple), default)
        if not values and default is _REQUIRED:
            raise UsageError(f"{self.where}: {key} is empty; name at least one")
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UsageError(f"{self.where}: {value!r} cannot stand in {key}")
        if len(set(values)) < len(values):
            raise UsageError(f"{self.where}: {key} names something twice: {list(values)}")
        return tuple(values)

    def end(self) -> None:
        """Refuse what is left."""
        if self._left:
            unknown, known = ", ".join(map(repr, self._left)), ", ".join(self._known)
            raise UsageError(f"{self.where}: unknown key {unknown}; there are {known}")
