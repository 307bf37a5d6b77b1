"""Which samples belong together: spans of one verdict, stages of one schedule, windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

WINDOW = 25
"""Samples in a window, at least: theory fixes means of squares, single steps scatter."""
LONG_WINDOW = 100
"""Samples for a mean that is small beside its scatter."""
WINDOW_TIMES = 0.2
"""Length of a window in relaxation times, where that is longer."""
WINDOW_SHARE = 0.1
"""Share of a stage that a window covers at most."""
STAGE_CHANGE = 1.2
"""Ratio of successive learning rates, or weight decays, beyond which a new stage begins."""


def invariant_spans(frame: pd.DataFrame, changes: Any) -> Iterator[pd.DataFrame]:
    """Yield the stretches of one weight's samples during which it was scale-invariant.

    Args:
        frame: Samples of one weight, sorted by step.
        changes: ``[[step, scale_invariant], …]``, each verdict holding from its step on and
            the first one before it, too. Records without a history have something else
            here: then the one verdict they have holds throughout.
    """
    if not len(frame):
        return
    if not isinstance(changes, list) or not changes:
        yield frame.reset_index(drop=True)
        return
    since, verdicts = zip(*sorted(changes, key=lambda change: change[0]), strict=True)
    at = np.maximum(np.searchsorted(since, frame["step"], side="right") - 1, 0)
    invariant = np.array([verdict is True for verdict in verdicts])
    # what lies between two samples counts, too: a span ends there
    for _, span in frame[invariant[at]].groupby(np.cumsum(~invariant)[at][invariant[at]]):
        yield span.reset_index(drop=True)


def stages(lr: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
    """Number the stages between jumps of the schedule, one number per sample.

    A jump of η or λ stands alone: a smooth schedule also changes by large ratios, near 0,
    but then so do its neighbours. A value of 0, where schedules begin or end, has no
    equilibrium and belongs to the stage beside it.
    """
    return (_jumps(lr) | _jumps(weight_decay)).cumsum()


def _jumps(values: np.ndarray) -> np.ndarray:
    logs = np.log(pd.Series(values).where(values > 0).ffill().bfill().fillna(1.0).to_numpy())
    change = np.abs(np.diff(logs, prepend=logs[0]))
    before, after = np.r_[0.0, change[:-1]], np.r_[change[1:], 0.0]
    alone = change > 3 * np.maximum(before, after)
    return (change > np.log(STAGE_CHANGE)) & alone


def window_length(stage: pd.DataFrame) -> int:
    """A fifth of a relaxation time, at most a tenth of the stage, at least 25 samples."""
    passed = stage["elapsed"].iloc[-1] - stage["elapsed"].iloc[0]
    share = min(WINDOW_SHARE, WINDOW_TIMES / passed) if passed > 0 else WINDOW_SHARE
    return max(WINDOW, round(share * len(stage)))


def window_mean(values: np.ndarray, length: int = WINDOW) -> np.ndarray:
    """Mean over 25 samples around each, or another number; what is NaN does not count."""
    return pd.Series(values).rolling(length, min_periods=1, center=True).mean().to_numpy()
