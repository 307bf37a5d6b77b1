"""Data sets that are there whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path


def write_once(target: Path, write: Callable[[Path], None]) -> Path:
    """Have a folder filled beside its place and moved there when whole.

    Args:
        target: where it shall stand; one that is there already is left alone.
        write: fills an empty folder.

    Returns:
        ``target``.
    """
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            whole = Path(scratch) / target.name
            whole.mkdir()
            write(whole)
            whole.rename(target)
    return target
