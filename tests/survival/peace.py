"""The small trainings as they end when nothing disturbs them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.survival.forked import ended, start
from tests.survival.kill_runs import Case, Trained, trainings


class Peace:
    """The small trainings, and what each leaves undisturbed.

    Args:
        folder: Where all goes.
        seed: Of the moments that are chosen.
        prepare: What each launch calls first, here and where it is disturbed; None for nothing.
    """

    def __init__(
        self, folder: Path, seed: int = 0, prepare: Callable[[], None] | None = None
    ) -> None:
        self.folder, self.prepare = folder, prepare
        self.moments = random.Random(seed)
        self.cases = trainings(folder)
        self._whole: dict[str, tuple[Trained, float]] = {}

    def of(self, case: Case) -> tuple[Trained, float]:
        """Return what a training leaves, and the seconds that it takes."""
        if case.name not in self._whole:
            parent = self.folder / "in peace"
            ended(start(case.command(parent / "first"), parent / "first.log"))  # pays for imports
            began = time.monotonic()
            code = ended(start(case.command(parent), parent / f"{case.name}.log", self.prepare))
            assert code == 0, (parent / f"{case.name}.log").read_text()[-3000:]
            self._whole[case.name] = Trained.read(parent / case.name), time.monotonic() - began
        return self._whole[case.name]

    def case(self, number: int) -> Case:
        """Return the trainings in turn."""
        return self.cases[number % len(self.cases)]

    def moment(self, case: Case) -> float:
        """Choose when to disturb a training, in seconds from its start."""
        return self.moments.uniform(0.0, self.of(case)[1])
