"""What a command that trains several runs has planned: ``<common work dir>/suite.json``.

A run that never left anything on disk, or that ended before it could say why, is known
from here only::

    {"runs": {"plain-seed0": {"config": "configs/…", "failed": "", "updated": 1760000000.0,
                              "experiment": "", "role": "", "scale": "", "options": {}}}}
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from .foreign_files import (
    MEBIBYTE,
    Unreadable,
    exists,
    number_in,
    read_json_object,
    warn_left_out,
)
from .lease import held
from .plain_text import one_line
from .schema import write_json

SUITE_FILE = "suite.json"
_MOST_BYTES = 16 * MEBIBYTE


@dataclass(frozen=True)
class PlannedRun:
    """One run of a suite.

    Attributes:
        config: Its config, as it was launched.
        failed: Why its process ended early, in one line; empty where it did not.
        updated: Unix time of the entry.
        experiment: Which experiment it belongs to, as the suite calls it.
        role: What it is in that experiment, such as ``sgdm`` or ``rescaled``; a control's, too.
        scale: What a replica says of its scale, in words; empty at full size.
        options: What a sweep set it to, by short name: numbers or words.
    """

    config: str
    failed: str = ""
    updated: float = 0.0
    experiment: str = ""
    role: str = ""
    scale: str = ""
    options: Mapping[str, float | str] = field(default_factory=dict)


def write_suite(folder: Path, planned: Mapping[str, PlannedRun]) -> None:
    """Write what is planned below a folder, stamped with the present time.

    What else was planned there before stays: a suite may be launched in pieces, and by several
    at once. A file that cannot be read whole is kept aside, as ``suite.json.broken``; a warning
    says so.

    Args:
        folder: The common work dir; it is made.
        planned: By the run's work dir, relative to ``folder``.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    with held(folder / f".{SUITE_FILE}.lock"):
        runs, left_out = _read(folder)
        if left_out:
            _keep_aside(folder / SUITE_FILE, left_out[0])
        runs |= {name: replace(run, updated=now) for name, run in planned.items()}
        write_json(folder / SUITE_FILE, {"runs": {name: asdict(run) for name, run in runs.items()}})


def read_suite(folder: Path) -> dict[str, PlannedRun]:
    """Return what was planned below a folder, by the run's work dir relative to it.

    Empty where there is no ``suite.json``; one that cannot be read, or that is some other
    program's, is named in a warning, and so is each entry that is left out of it.
    """
    planned, left_out = _read(Path(folder))
    for reason in left_out:
        warn_left_out(Path(folder) / SUITE_FILE, reason)
    return planned


def _keep_aside(path: Path, reason: Unreadable) -> None:
    names = (path.with_name(f"{path.name}.broken{number or ''}") for number in count())
    aside = next(name for name in names if not exists(name))
    path.replace(aside)
    told = one_line(reason, 300)
    warnings.warn(f"{one_line(path)}: kept aside as {aside.name}, {told}", stacklevel=3)


def _read(folder: Path) -> tuple[dict[str, PlannedRun], list[Unreadable]]:
    """Return what was planned, and why the file, or entries of it, are left out."""
    path = folder / SUITE_FILE
    if not exists(path):
        return {}, []
    try:
        runs = read_json_object(path, _MOST_BYTES).get("runs")
        if not isinstance(runs, dict):
            raise Unreadable("names no runs")
    except Unreadable as reason:
        return {}, [reason]
    planned, left_out = {}, []
    for name, entry in runs.items():
        try:
            planned[name] = _planned(name, entry)
        except Unreadable as reason:
            left_out.append(reason)
    return planned, left_out


def _planned(name: str, entry: Any) -> PlannedRun:
    place = PurePosixPath(name)
    if not place.parts or place.is_absolute() or ".." in place.parts or len(name) > 300:
        raise Unreadable(f"run {name!r}: not a folder below this one")
    if not isinstance(entry, dict):
        raise Unreadable(f"run {name!r}: described by {entry!r}")
    updated = number_in(entry.get("updated", 0.0))
    words = {key: entry.get(key, "") for key in ("config", "failed", "experiment", "role", "scale")}
    options = entry.get("options", {})
    known = all(isinstance(text, str) for text in words.values()) and isinstance(options, dict)
    if not known or updated is None or not math.isfinite(updated):
        raise Unreadable(f"run {name!r}: described by {entry!r}")
    if not all(isinstance(value, str | float | int) for value in options.values()):
        raise Unreadable(f"run {name!r}: its options {options!r} are no numbers or words")
    return PlannedRun(**words, updated=updated, options=options)
