"""Whether accuracy falls in the second stage of a schedule, while the angles rise again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..agreement.windows import STAGE_CHANGE
from ..reading.run import Run
from .drops import validations

AT_ONCE = 0.01
"""Share of stage 2 that the accuracy takes to rise by the drop itself: not looked at. Published
curves have an epoch between their points, which is more."""
AFTER_THE_DROP = 0.1
"""Share of it, at its beginning, that a dip is counted from."""
AT_THE_END = 1 / 3
"""Share of it, at its end, that a dip is counted to."""


@dataclass(frozen=True)
class SecondStage:
    """What a run did between its first two drops.

    Attributes:
        dip: Accuracy lost, as it is logged: mean of the validations in the first tenth of the
            stage (but for its first hundredth), minus that of those in its last third. None
            without validations there.
        rise: Δ/Δ* at the stage's end over that at its start, median of the scale-invariant
            weights; None without any, or without such a stage.
    """

    dip: float | None
    rise: float | None


def second_stage(run: Run) -> SecondStage:
    """Look at the accuracy and the angles between a run's first two drops."""
    accuracy, dip = validations(run), None
    bounds = _bounds(run)
    if bounds is not None:
        begin, end = bounds
        places = [((i - begin) / (end - begin), value) for i, value in accuracy]
        early = [value for place, value in places if AT_ONCE < place <= AFTER_THE_DROP]
        late = [value for place, value in places if 1 - AT_THE_END < place <= 1]
        dip = float(np.mean(early) - np.mean(late)) if early and late else None
    return SecondStage(dip, _rise(run))


def _bounds(run: Run) -> tuple[int, int] | None:
    """Iterations done at the first two drops of the largest learning rate among the weights'."""
    if not len(run.samples):
        return None
    lr = run.samples.groupby("iteration")["lr"].max()
    drops = lr.index[(lr.shift() / lr > STAGE_CHANGE).to_numpy()]
    return (int(drops[0]), int(drops[1])) if len(drops) > 1 else None


def _rise(run: Run) -> float | None:
    stages = run.stages
    second = stages[stages["stage"] == 1]
    rise = second["ratio_end"] / second["ratio_start"]
    return float(rise.median()) if rise.notna().any() else None
