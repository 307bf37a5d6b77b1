"""Trainings that others run: another sweep, or somebody by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .progress import Display, Look
from .training import Training

LOOK_EVERY = 1.0


def wait_for_one(trainings: Sequence[Training], is_alive: Callable[[Training], bool]) -> None:
    """Wait until one of them has ended, well or not, and show how far they are.

    Args:
        trainings: What others train; at least one.
        is_alive: Whether that still goes on.
    """
    first = {training.name: training.progress()[0] for training in trainings}
    began = time.monotonic()
    with Display(trainings, len(trainings)) as display:
        while all(is_alive(training) for training in trainings):
            looks = []
            for training in trainings:
                done, planned = training.progress()
                length, seconds = planned or training.length, time.monotonic() - began
                begins = first[training.name]
                looks.append(
                    Look(training.name, "runs", done, length, begins, seconds, "elsewhere")
                )
            display.show(looks)
            time.sleep(LOOK_EVERY)
