from __future__ import annotations

import pytest

from benchmarks.engines.retries import PAUSES, Ending, pause_before_next
from benchmarks.launch.interrupts import REQUEUE

BROKE = Ending(1, "", "iter_10")
FURTHER = Ending(-9, "iter_10", "iter_20")
STUCK = Ending(1, "iter_20", "iter_20")
AT_THE_START = Ending(1)
TOLD = Ending(REQUEUE, "iter_20", "iter_25")
TOLD_IN_VAIN = Ending(REQUEUE, "iter_25", "iter_25")


@pytest.mark.parametrize(
    ("endings", "retries", "pause"),
    [
        ([Ending(0, "", "iter_100")], 3, None),
        ([Ending(2)], 3, None),  # unusable input stays so
        ([Ending(130, "", "iter_10")], 3, None),  # somebody's Ctrl-C
        ([Ending(1, "", "iter_10", diverged=True)], 3, None),
        ([BROKE], 3, PAUSES[0]),
        ([BROKE], 0, None),
        ([BROKE, FURTHER], 3, PAUSES[1]),
        ([BROKE, FURTHER], 1, None),
        ([BROKE, FURTHER, Ending(1, "iter_20", "iter_30")], 3, PAUSES[2]),
        ([BROKE, FURTHER] * 2, 3, None),
        ([BROKE, FURTHER] * 2, 9, PAUSES[-1]),
        ([AT_THE_START], 3, PAUSES[0]),  # once: a network that is not up yet
        ([AT_THE_START, AT_THE_START], 3, None),
        ([BROKE, FURTHER, STUCK], 3, None),  # a broken image does not mend
        ([TOLD], 0, 0.0),
        ([TOLD] * 50, 3, 0.0),
        ([BROKE, TOLD, FURTHER], 3, PAUSES[1]),  # a requeue is no breakdown
        ([TOLD_IN_VAIN], 3, PAUSES[0]),
        ([TOLD_IN_VAIN, TOLD_IN_VAIN], 3, None),
    ],
)
def test_when_a_training_is_tried_again(
    endings: list[Ending], retries: int, pause: float | None
) -> None:
    assert pause_before_next(endings, retries) == pause


def test_pauses_grow() -> None:
    assert sorted(set(PAUSES)) == list(PAUSES)
