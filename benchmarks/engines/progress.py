"""How far several trainings are and how long they still take: bars, or lines where there are none.

An engine looks at its trainings every so often and hands over what it saw.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .training import Training

MOST_BARS = 8
"""Trainings up to which each has its bar all the time; of more, those that run."""
SECONDS_PER_LINE = 60.0
"""Between two lines, where the console is a file."""

Standing = Literal["waits", "runs", "over"]


@dataclass(frozen=True)
class Look:
    """How one training stands at a moment.

    Attributes:
        name: Its name.
        standing: Whether it waits, runs or is over.
        done: Iterations done.
        length: Iterations planned; 0 if that is not known.
        began: Iterations that it went on from, in the launch that runs.
        seconds: For which that launch has been running.
        word: What else there is to say of it, such as why it waits.
    """

    name: str
    standing: Standing
    done: int = 0
    length: int = 0
    began: int = 0
    seconds: float = 0.0
    word: str = ""


def remaining_seconds(looks: Sequence[Look], slots: int) -> float | None:
    """Estimate how long all take, from what one iteration took in those that have run.

    One whose length is not known is taken for as long as the others are on average; and all take
    at least as long as the longest of them does.

    Args:
        looks: All trainings.
        slots: How many run at a time.

    Returns:
        None as long as nothing has run.
    """
    ran = [look for look in looks if look.done > look.began and look.seconds > 0]
    lengths = [look.length for look in looks if look.length]
    if not ran or not lengths:
        return None
    usual = sum(lengths) / len(lengths)
    left = [
        max(0.0, (look.length or usual) - look.done) for look in looks if look.standing != "over"
    ]
    pace = sum(look.seconds for look in ran) / sum(look.done - look.began for look in ran)
    return pace * max(sum(left) / max(1, slots), max(left, default=0.0))


def in_words(looks: Sequence[Look], slots: int) -> str:
    """Say in one line what is over, what runs and how long all take."""
    over = sum(look.standing == "over" for look in looks)
    running = [look for look in looks if look.standing == "runs"]
    told = [f"{look.name} {_iterations(look)}" for look in running[:MOST_BARS]]
    told += [f"{len(running) - MOST_BARS} more"] if len(running) > MOST_BARS else []
    told += [f"{look.name} {look.word}" for look in looks if look.standing == "waits" and look.word]
    words = [f"{over} of {len(looks)} over", *told[: 2 * MOST_BARS]]
    return ", ".join(words) + _about(looks, slots)


def _iterations(look: Look) -> str:
    return f"{look.done}/{look.length}" if look.length else "begins"


def _about(looks: Sequence[Look], slots: int) -> str:
    seconds = remaining_seconds(looks, slots)
    return "" if seconds is None else f"; about {timedelta(seconds=math.ceil(seconds))} left"


class Display:
    """Shows how trainings stand, on a terminal or line by line.

    Args:
        trainings: All that there will be.
        slots: How many run at a time.
        console: Where to; standard output, if not given.
    """

    def __init__(
        self, trainings: Sequence[Training], slots: int, console: Console | None = None
    ) -> None:
        self._console, self._slots = console or Console(), slots
        self._few = len(trainings) <= MOST_BARS
        self._bars = Progress(
            TextColumn("{task.description:>24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[word]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task("runs", total=len(trainings), word="")
        self._tasks = {t.name: self._add(t) for t in trainings}
        self._next_line = time.monotonic() + SECONDS_PER_LINE

    def _add(self, training: Training) -> TaskID:
        total = training.length or None
        return self._bars.add_task(training.name, total=total, visible=self._few, word="")

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def show(self, looks: Sequence[Look]) -> None:
        """Show how all stand; on a console that is no terminal, not more than once a minute."""
        if not self._console.is_terminal:
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + SECONDS_PER_LINE
                self.say(f"{time.strftime('%H:%M:%S')} {in_words(looks, self._slots)}")
            return
        over = sum(look.standing == "over" for look in looks)
        self._bars.update(self._all, completed=over, word=_about(looks, self._slots).strip("; "))
        for look in looks:
            self._bars.update(
                self._tasks[look.name],
                completed=look.done,
                total=look.length or None,
                visible=self._few or look.standing == "runs",
                word=look.word,
            )
