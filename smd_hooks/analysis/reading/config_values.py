"""Asks a config for values of the type that they should have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...records.foreign_files import count_in, number_in, warn_left_out


class ConfigValues:
    """A config, or a section of one, as a run folder has it: it may say anything.

    What is not there, or None, is None. What is of another type than it is asked for is
    None, too, and a warning names it.

    Args:
        values: What it says.
        file: Where it was read.
        where: The section's name, with a dot behind; empty for the whole.
    """

    def __init__(self, values: Mapping[str, Any], file: Path | None, where: str = "") -> None:
        self._values, self._file, self._where = values, file, where

    def section(self, name: str) -> ConfigValues:
        """Return a dict in it; an empty one if there is none."""
        value = self._values.get(name)
        values = value if isinstance(value, dict) else {}
        self._complain_unless(value is None or isinstance(value, dict), name)
        return ConfigValues(values, self._file, f"{self._where}{name}.")

    def sections(self, name: str) -> list[ConfigValues]:
        """Return the dicts of a list in it; other items are no business of ours."""
        value = self._values.get(name)
        self._complain_unless(value is None or isinstance(value, list | tuple), name)
        items = value if isinstance(value, list | tuple) else []
        where = f"{self._where}{name}."
        return [ConfigValues(item, self._file, where) for item in items if isinstance(item, dict)]

    def text(self, name: str) -> str | None:
        """Return a string in it."""
        value = self._values.get(name)
        self._complain_unless(value is None or isinstance(value, str), name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> float | None:
        """Return a number in it."""
        value = self._values.get(name)
        number = number_in(value)
        self._complain_unless(value is None or number is not None, name)
        return number

    def count(self, name: str) -> int | None:
        """Return a whole number in it that is not negative."""
        value = self._values.get(name)
        count = count_in(value)
        self._complain_unless(value is None or count is not None, name)
        return count

    def flag(self, name: str) -> bool:
        """Whether something in it is on."""
        return bool(self._values.get(name))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def _complain_unless(self, fine: bool, name: str) -> None:
        if not fine:
            warn_left_out(self._file or "config", f"{self._where}{name} is {self._values[name]!r}")
