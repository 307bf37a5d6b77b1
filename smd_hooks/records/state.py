"""Whether a run still lives, and how it ended, in one small file."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .foreign_files import (
    MEBIBYTE,
    Unreadable,
    count_in,
    exists,
    number_in,
    read_json_object,
    warn_left_out,
)
from .schema import FOLDER, STATE_FILE, write_json

Status = Literal["running", "finished", "failed"]

DEAD_AFTER = 600.0
"""Seconds without a sign of life after which a run that says it runs counts as dead."""
NOT_FINITE = "the loss is not finite"
"""What the error of a run that diverged begins with; such an end is an outcome, others are none."""


@dataclass(frozen=True)
class RunState:
    """The content of ``state.json``.

    Attributes:
        status: What the run last said of itself.
        iteration: Iterations done.
        max_iterations: Iterations planned.
        error: One line, if it failed.
        updated: Unix time of the last sign of life.
    """

    status: Status
    iteration: int = 0
    max_iterations: int = 0
    error: str = ""
    updated: float = 0.0

    @property
    def is_dead(self) -> bool:
        """Whether it says that it runs, but has not said so for too long."""
        return self.status == "running" and time.time() - self.updated > DEAD_AFTER


def write_state(launch_folder: Path, state: RunState) -> None:
    """Stamp the state with the present time and write it under ``<launch>/smd/``."""
    folder = Path(launch_folder) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STATE_FILE, {**asdict(state), "updated": time.time()})


def read_state(launch_folder: Path) -> RunState | None:
    """Return the state; None where there is none, or none that can be read: a warning says so."""
    path = Path(launch_folder) / FOLDER / STATE_FILE
    if not exists(path):
        return None
    try:
        return _state(read_json_object(path, MEBIBYTE))
    except Unreadable as reason:
        warn_left_out(path, reason)
        return None


def _state(content: dict[str, Any]) -> RunState:
    said = content.get("status")
    status: Status | None = next((s for s in get_args(Status) if s == said), None)
    if status is None:
        raise Unreadable(f"status is {said!r}, none of {', '.join(get_args(Status))}")
    iteration, planned = (count_in(content.get(k, 0)) for k in ("iteration", "max_iterations"))
    if iteration is None or planned is None:
        raise Unreadable("iterations are no counts")
    updated = number_in(content.get("updated", 0.0))
    if updated is None or not math.isfinite(updated):
        raise Unreadable(f"updated is {content['updated']!r}, not a time")
    return RunState(status, iteration, planned, str(content.get("error", "")), updated)
