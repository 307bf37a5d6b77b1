"""Reads the runs below folders, whatever lies there."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from pathlib import Path

from ...records import Launch, read_launch, read_state
from ...records.foreign_files import Unreadable, exists, warn_left_out
from ...records.plain_text import one_line
from .config_literals import read_config
from .finding import find_runs, is_launch, launches_in
from .run import Run
from .scalars import Scalars, read_scalars

_LONGEST_NAME = 300


def load_runs(*folders: str | os.PathLike[str]) -> list[Run]:
    """Read every run below the given folders.

    Files that are broken or of another make are named in a warning and left out. Runs that
    a suite planned, but that left nothing, are there with the status ``missing``.

    Raises:
        FileNotFoundError: A folder does not exist.
    """
    runs: dict[str, Run] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        if is_launch(folder.resolve()):
            folder = folder.resolve().parent  # a launch stands for its run
        found = find_runs(folder)
        launched = set(found.work_dirs)
        for work_dir in sorted(launched | set(found.planned)):
            relative = work_dir.relative_to(folder).as_posix()
            name = work_dir.resolve().name if relative == "." else relative
            try:
                run = _load_run(work_dir, one_line(name, _LONGEST_NAME), work_dir in launched)
            except Exception as error:  # other people's folders: no run may cost the others
                warn_left_out(work_dir, f"not readable ({error!r})")
                continue
            run.planned = found.planned.get(work_dir)
            runs.setdefault(os.path.realpath(work_dir), run)
    return _told_apart(list(runs.values()))


def _told_apart(runs: list[Run]) -> list[Run]:
    """Runs of one name, found below several folders, are called by their path."""
    names = Counter(run.name for run in runs)
    for run in runs:
        if names[run.name] > 1:
            run.name = one_line(run.folder.as_posix(), _LONGEST_NAME)
    return runs


def _load_run(work_dir: Path, name: str, launched: bool) -> Run:
    run = Run(name, work_dir, launched=launched)
    for folder in launches_in(work_dir) if launched else []:
        _add_launch(run, folder)
    if launched and not run.config:
        for path in sorted(work_dir.glob("*.py")):  # MMEngine dumps a copy here, too
            _take_config(run, path, dumped=False)
            if run.config:
                break
    return run


def _add_launch(run: Run, folder: Path) -> None:
    launch = read_launch(folder)
    if launch.run:
        run.launches.append(launch)
        run.gpus = int(launch.run.get("world_size", 1))
    else:
        run.gpus = _gpus_in_log(folder) or run.gpus
    run.problem = launch.problem
    logged = folder / "vis_data"
    if exists(logged) and not logged.is_dir():
        warn_left_out(logged, "not a folder")
    _take_config(run, logged / "config.py", dumped=True)
    _take_scalars(run, launch, logged / "scalars.json")
    state = read_state(folder)
    if state or logged.is_dir():  # one that went on without our hook says nothing of itself
        run.state = state


def _take_config(run: Run, path: Path, dumped: bool) -> None:
    if not exists(path):
        return
    try:
        config = read_config(path)
    except Unreadable as reason:
        warn_left_out(path, reason)
        return
    if dumped and not (config.values or config.left_out):
        warn_left_out(path, "is empty")
    if dumped and config.left_out:  # what lies beside may well be a script
        lines = ", ".join(map(str, config.left_out[:5]))
        warn_left_out(path, f"in part: no assignment of literals in line {lines}")
    if config.values:
        run.config, run.config_file = config.values, path


def _scalars(path: Path, before: int) -> Scalars:
    if not exists(path):
        return Scalars()
    try:
        scalars = read_scalars(path, before)
    except Unreadable as reason:
        warn_left_out(path, reason)
        return Scalars()
    if not (scalars.lines or scalars.broken_lines):
        warn_left_out(path, "is empty")
    if scalars.broken_lines:
        warnings.warn(
            f"{one_line(path)}: {scalars.broken_lines} lines are no JSON objects with a step, "
            "left out",
            stacklevel=2,
        )
    return scalars


def _take_scalars(run: Run, launch: Launch, path: Path) -> None:
    """Continue what was logged by the next launch's, or begin anew if it did."""
    recorded, resumed = launch.run.get("first_iteration"), run.config.get("resume")
    before = run.scalars.logged_until(recorded) if resumed and recorded is not None else 0
    new = _scalars(path, before)
    if not (new.iteration or new.series):
        return
    if not resumed:
        run.scalars = new
        return
    logged = [series.points[0][0] - 1 for series in new.series.values()]
    start = int(recorded) if recorded is not None else min(logged, default=new.iteration)
    run.scalars = run.scalars.continued_by(new, start)


def _gpus_in_log(folder: Path) -> int | None:
    """MMEngine logs the number of processes in its report of the environment."""
    path = folder / f"{folder.name}.log"
    if not path.is_file():  # a pipe would not end
        if exists(path):
            warn_left_out(path, "not a file")
        return None
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            head = log.read(20_000)
    except OSError as error:
        warn_left_out(path, f"not readable ({error.strerror})")
        return None
    match = re.search(r"GPU number: (\d{1,6})\b", head)
    return int(match.group(1)) if match else None
