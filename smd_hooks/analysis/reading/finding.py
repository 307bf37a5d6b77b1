"""Finds work dirs, and suites of them, below a folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ...records import PlannedRun, read_suite
from ...records.foreign_files import warn_left_out
from ...records.schema import FOLDER
from ...records.suite import SUITE_FILE

_TIMESTAMP = re.compile(r"\d{8}_\d{6}")


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        work_dirs: Folders that launches made theirs in.
        planned: What suites planned, by the work dir that it goes to.
    """

    work_dirs: list[Path] = field(default_factory=list)
    planned: dict[Path, PlannedRun] = field(default_factory=dict)


def find_runs(folder: Path) -> Found:
    """Search a folder, through links, each folder once; what cannot be listed is named."""
    found, waiting, visited = Found(), [folder], set()
    while waiting:  # a loop: folders may be nested more deeply than functions may
        path = waiting.pop()
        try:
            place = os.stat(path)
        except OSError as error:
            warn_left_out(path, f"not readable ({error.strerror})")
            continue
        if (place.st_dev, place.st_ino) in visited:  # by a link back up
            continue
        visited.add((place.st_dev, place.st_ino))
        subfolders, has_suite = _list(path)
        launches = [name for name in subfolders if _TIMESTAMP.fullmatch(name)]
        if any(is_launch(path / name) for name in launches):
            found.work_dirs.append(path)
        if has_suite:
            found.planned |= {path / name: run for name, run in read_suite(path).items()}
        waiting += [path / name for name in subfolders if name not in launches]
    return found


def is_launch(folder: Path) -> bool:
    """Whether MMEngine or our hook made a folder for one launch: by its name and content."""
    names = (FOLDER, "vis_data", f"{folder.name}.log")
    return bool(_TIMESTAMP.fullmatch(folder.name)) and any(
        os.path.lexists(folder / name) for name in names
    )


def launches_in(work_dir: Path) -> list[Path]:
    """Return the folders of a run's launches, oldest first."""
    return [work_dir / name for name in sorted(_list(work_dir)[0]) if is_launch(work_dir / name)]


def _list(path: Path) -> tuple[list[str], bool]:
    """Subfolders by name, and whether there is a suite beside them."""
    subfolders, has_suite = [], False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                has_suite |= entry.name == SUITE_FILE
                try:
                    if entry.is_dir():
                        subfolders.append(entry.name)
                except OSError as error:
                    warn_left_out(entry.path, error.strerror)
    except OSError as error:
        warn_left_out(path, f"not readable ({error.strerror})")
    return subfolders, has_suite
