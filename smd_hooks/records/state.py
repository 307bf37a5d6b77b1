"""Whether a run still lives, and how it ended, in one small file."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from .schema import FOLDER, STATE_FILE, write_json

Status = Literal["running", "finished", "failed"]

DEAD_AFTER = 600.0
"""Seconds without a sign of life after which a run that says it runs counts as dead."""


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
    """Return the state, or None where there is none or it cannot be read."""
    try:
        content = json.loads((Path(launch_folder) / FOLDER / STATE_FILE).read_text("utf-8"))
        known = {name: content[name] for name in RunState.__dataclass_fields__ if name in content}
        return RunState(**known)
    except (OSError, ValueError, TypeError):
        return None
