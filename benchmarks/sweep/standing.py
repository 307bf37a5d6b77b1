"""What of a sweep is done: by the runs' own records, and by the configs that they were run with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.launch.claim import CLAIM_FILE
from smd_hooks.analysis import Run, load_runs
from smd_hooks.analysis.reading.config_literals import read_config
from smd_hooks.analysis.reading.finding import launches_in
from smd_hooks.records.foreign_files import Unreadable
from smd_hooks.records.plain_text import one_line
from smd_hooks.records.state import NOT_FINITE

from .plan import SweepRun

_OF_THE_LAUNCH = ("work_dir", "resume", "load_from", "launcher")
"""What may differ between two launches of one run: where to, and from what it goes on. What the
first one began from, ``load_from``, is compared by itself."""


class Standing(Enum):
    """How a run stands."""

    NEW = "new"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    DIVERGED = "diverged"

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train: the same run would diverge again."""
        return self in (Standing.FINISHED, Standing.DIVERGED)

    @property
    def is_to_train(self) -> bool:
        """Whether a training may begin: not beside another one of the same run."""
        return not self.is_over and self is not Standing.RUNNING


def runs_below(root: Path) -> dict[str, Run]:
    """Return the runs of a sweep's folder that left something on disk, by name."""
    return {run.name: run for run in load_runs(root) if run.launched} if root.is_dir() else {}


def standing_of(planned: SweepRun, run: Run | None, taken: bool = False) -> Standing:
    """Say how a run stands.

    Args:
        planned: The run.
        run: What is in its folder.
        taken: Whether a launch or another sweep has it.

    Raises:
        UsageError: Its config is another than that of the run in its folder.
    """
    if run is None:
        return Standing.RUNNING if taken else Standing.NEW
    saved = (run.folder / "last_checkpoint").is_file()
    # who left a claim, and does not live, does not run, however fresh its records are
    claimed = (run.folder / CLAIM_FILE).exists()
    if taken or (run.status == "running" and not claimed):
        standing = Standing.RUNNING
    elif run.status == "finished":
        standing = Standing.FINISHED
    elif diverged(run):
        standing = Standing.DIVERGED
    else:
        standing = Standing.UNFINISHED
    if standing.is_over or saved:  # else there is nothing to lose
        _check_same(planned, run)
    return standing


def diverged(run: Run) -> bool:
    """Whether a run ended because its loss was no longer a number."""
    return run.status == "failed" and run.failure.startswith(NOT_FINITE)


def _check_same(planned: SweepRun, run: Run) -> None:
    if not run.config:
        return
    first, new = _first_config(run), plain(planned.config)
    for key, was, now in [*_began_elsewhere(first, new), *differences(run.config, new)]:
        raise UsageError(
            f"{run.folder}: was run with {key} = {_short(was)}, the suite now has {_short(now)}; "
            "take another --work-dir, or move that folder away"
        )


def _first_config(run: Run) -> Mapping[str, Any]:
    """Return the config of a run's first launch, which alone says what weights it began from."""
    launches = launches_in(run.folder)
    if len(launches) < 2:
        return run.config
    try:
        return read_config(launches[0] / "vis_data" / "config.py").values
    except Unreadable:
        return {}


def _began_elsewhere(
    first: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield ``load_from`` where a first launch had another; one that goes on has lost its own."""
    if first and not first.get("resume"):
        yield from _differences("load_from", _plain(first.get("load_from")), new.get("load_from"))


def plain(config: Config) -> dict[str, Any]:
    """Return a config in the literals that its dump can be read back as."""
    found: dict[str, Any] = _plain(config.to_dict())
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two configs differ, but for what belongs to a launch: path, old, new.

    Args:
        old: As read back from a run's folder.
        new: What :func:`plain` returned.
    """
    for key in sorted({*old, *new} - {*_OF_THE_LAUNCH}):
        yield from _differences(key, _plain(old.get(key)), new.get(key))


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(f"{path}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{place}]", *pair)
    elif new is not _NO_LITERAL and not _same(old, new):
        yield path, old, new


def _same(old: Any, new: Any) -> bool:
    """Whether two literals are equal: NaN is, 1 and 1.0 are, 1 and True are not."""
    both_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
    return repr(old) == repr(new) or (both_numbers and old == new)


_NO_LITERAL = object()  # a class, a function; a set, which has no order


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return one_line(value, 100_000)
    return value if value is None or isinstance(value, bool | int | float) else _NO_LITERAL


def _short(value: Any) -> str:
    return one_line(repr(value), 60)
