"""Opens files that may be broken, of another make, or put there to do harm.

Nothing here waits (a pipe), reads without end (a device) or fills the memory (a file of any
size); every reason not to read a file is one exception, and is told in one warning.
"""

from __future__ import annotations

import json
import math
import os
import stat
import warnings
from pathlib import Path
from typing import Any

from .plain_text import in_one_line_each, one_line

MEBIBYTE = 2**20
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_LARGEST = 2**53  # whole numbers up to here are floats, too


class Unreadable(Exception):
    """A file that is broken or of another make; the message says how."""


def warn_left_out(path: str | os.PathLike[str], reason: object) -> None:
    """Name a file, or part of one, that is left out, and why."""
    warnings.warn(f"{one_line(path)}: left out, {one_line(reason, 300)}", stacklevel=3)


def exists(path: Path) -> bool:
    """Whether there is anything of that name: a link that leads nowhere is something."""
    return os.path.lexists(path)


def check_regular(path: Path, most_bytes: int) -> None:
    """Refuse what is no regular file, or larger than it can reasonably be.

    Raises:
        Unreadable: So it is, or nothing can be found out about it.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise Unreadable(f"not readable ({_reason(error)})") from None
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable(f"{_KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file")
    if found.st_size > most_bytes:
        size = found.st_size / MEBIBYTE
        raise Unreadable(f"{size:.0f} MiB, more than the {most_bytes / MEBIBYTE:.0f} it may have")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Read a file whole.

    Raises:
        Unreadable: It is no regular file, too large, or cannot be read.
    """
    check_regular(path, most_bytes)
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"not readable ({_reason(error)})") from None


def read_text(path: Path, most_bytes: int) -> str:
    """Read a text file whole.

    Raises:
        Unreadable: It is no regular file, too large, no text, or cannot be read.
    """
    try:
        return read_bytes(path, most_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not readable as text ({error.reason})") from None


def read_json_object(path: Path, most_bytes: int) -> dict[str, Any]:
    """Read a file that holds one JSON object, each of its strings made one line.

    Raises:
        Unreadable: It cannot be read, is no JSON, or holds something else.
    """
    text = read_text(path, most_bytes)
    try:
        content = in_one_line_each(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise Unreadable(f"holds a JSON {type(content).__name__}, not an object")
    return content


def number_in(value: Any) -> float | None:
    """Return a number that JSON or a config gave, NaN and infinities among them, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def count_in(value: Any) -> int | None:
    """Return a whole number that is not negative and not beyond 2⁵³, or None."""
    number = number_in(value)
    if number is None or not math.isfinite(number) or not 0 <= number <= _LARGEST:
        return None
    return int(number) if number.is_integer() else None


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
