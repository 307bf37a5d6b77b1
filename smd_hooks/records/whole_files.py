"""Files that a user asked for, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def check_place(path: Path) -> None:
    """Refuse, before any work is done, a place where no file can be written.

    Raises:
        OSError: The folder is not there, or the file is a folder, or may not be written.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder: make it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} may not be written to")


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that takes its place when all of it is there.

    Args:
        path: Where; a link stays one.
        mode: ``w`` for UTF-8 text with Unix line ends, ``wb`` for bytes.

    Raises:
        OSError: It cannot be written; one that was there is as it was.
    """
    check_place(path)
    place = Path(os.path.realpath(path))
    beside = place.with_name(f".{os.getpid()}.{place.name}"[-200:])
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(beside, mode, **text) as file:  # type: ignore[call-overload]
            yield file
        beside.replace(place)
    except OSError as error:
        raise OSError(f"{path}: not written ({error.strerror or error})") from None
    finally:
        beside.unlink(missing_ok=True)
