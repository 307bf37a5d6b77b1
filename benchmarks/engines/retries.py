"""What becomes of a training that ended: whether it is tried again, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.launch.interrupts import REQUEUE

PAUSES = (10.0, 60.0, 300.0)
"""Seconds before the first, second and every further try of what broke off."""
RETRIES = len(PAUSES)
UNUSABLE, INTERRUPTED = 2, 130
"""Exit codes of ``python -m benchmarks run``."""


@dataclass(frozen=True)
class Ending:
    """How one launch of a training ended.

    Attributes:
        code: Its exit code; negative for a signal.
        began_at: The checkpoint that it went on from; "" for the start.
        left: The checkpoint that the next launch would go on from.
        diverged: Whether its loss was no longer a number.
    """

    code: int
    began_at: str = ""
    left: str = ""
    diverged: bool = False

    @property
    def got_on(self) -> bool:
        """Whether the next launch would begin further on than this one did."""
        return self.left != self.began_at


def pause_before_next(endings: Sequence[Ending], retries: int) -> float | None:
    """Return after how many seconds a training is tried again, or None if it is not.

    One that was told to end, and saved what it had, goes on at once, however often that happens.
    One that broke off is tried again after pauses that grow: a full disk or a network may need
    them. What would end in the same way again is not tried: unusable input, a loss that diverges,
    a Ctrl-C that somebody meant, and what has twice in a row come no further than it began.

    Args:
        endings: How its launches ended, the latest last.
        retries: How often it may break off and be tried again.
    """
    last = endings[-1]
    if last.code in (0, UNUSABLE, INTERRUPTED) or last.diverged:
        return None
    if last.code == REQUEUE and last.got_on:
        return 0.0
    broken_off = [ending for ending in endings if ending.code != REQUEUE or not ending.got_on]
    if len(broken_off) > retries or (len(broken_off) > 1 and not last.got_on):
        return None
    return PAUSES[min(len(broken_off), len(PAUSES)) - 1]
