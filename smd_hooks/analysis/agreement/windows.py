"""Which samples belong together: spans of one verdict, stages of one schedule, windows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

BAND = 0.05
"""Half width of "in equilibrium", relative."""
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


def invariant_spans(steps: np.ndarray, changes: Any) -> Iterator[slice]:
    """Yield the stretches of one weight's samples during which it was scale-invariant.

    Args:
        steps: Steps of the samples, increasing, shape (samples,).
        changes: ``[[step, scale_invariant], …]``, each verdict holding from its step on and
            the first one before it, too. Records without a history have something else
            here: then the one verdict they have holds throughout.
    """
    if not isinstance(changes, list) or all(verdict is True for _, verdict in changes):
        if len(steps):
            yield slice(0, len(steps))
        return
    since, verdicts = zip(*sorted(changes, key=lambda change: change[0]), strict=True)
    # what lies between two samples counts, too: a span ends there
    ends = np.r_[np.searchsorted(steps, since[1:]), len(steps)]
    begin = 0
    for i, verdict in enumerate(verdicts):
        goes_on = i + 1 < len(verdicts) and verdict is True and verdicts[i + 1] is True
        if not goes_on:
            if verdict is True and ends[i] > begin:
                yield slice(int(begin), int(ends[i]))
            begin = ends[i]


def stages(lr: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
    """Number the stages between jumps of the schedule, one number per sample.

    A jump of η or λ stands alone, as a ratio and as a difference: a smooth schedule also
    changes by large ratios, near 0, but then so do its neighbours, or its neighbours change
    by as much, as in a warmup. A value of 0, where schedules begin or end, has no
    equilibrium and belongs to the stage beside it.
    """
    return (_jumps(lr) | _jumps(weight_decay)).cumsum()


def _jumps(values: np.ndarray) -> np.ndarray:
    known = pd.Series(values).where(values > 0).ffill().bfill().fillna(1.0).to_numpy()
    ratios, differences = _changes(np.log(known)), _changes(known)
    return (ratios > np.log(STAGE_CHANGE)) & _alone(ratios) & _alone(differences)


def _changes(values: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(values, prepend=values[0]))


def _alone(change: np.ndarray) -> np.ndarray:
    before, after = np.r_[0.0, change[:-1]], np.r_[change[1:], 0.0]
    return change > 3 * np.maximum(before, after)


def stage_slices(stage: np.ndarray) -> list[slice]:
    """Return the stretches of equal values: where each stage's samples lie, by its number."""
    begins = np.r_[0, np.flatnonzero(np.diff(stage)) + 1, len(stage)].tolist()
    return [slice(*pair) for pair in pairwise(begins)]


def window_length(elapsed: np.ndarray) -> int:
    """A fifth of a relaxation time, at most a tenth of the stage, at least 25 samples.

    Args:
        elapsed: Relaxation times at each of a stage's samples, shape (samples,).
    """
    passed = elapsed[-1] - elapsed[0]
    share = min(WINDOW_SHARE, WINDOW_TIMES / passed) if passed > 0 else WINDOW_SHARE
    return max(WINDOW, round(share * len(elapsed)))


def window_sums(values: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Add up windows along the last axis, centred as pandas' rolling ones are.

    A window of even length has one sample more before its middle than after it; at the
    ends it has what there is.

    Args:
        values: Shape (..., samples). What is not finite does not count.
        length: Samples in a window.

    Returns:
        The sums, and how many values each has, both of the values' shape.
    """
    there = np.isfinite(values)
    if there.all():
        counts = np.broadcast_to(_sums(np.ones(values.shape[-1]), length), values.shape)
        return _sums(values, length), counts
    return _sums(np.where(there, values, 0.0), length), _sums(there.astype(float), length)


def _sums(values: np.ndarray, length: int) -> np.ndarray:
    """Sums of 1, 2, 4, … neighbours, put together to the length.

    A difference of two sums over all the samples would cancel, where they fall by orders of
    magnitude.
    """
    samples, after = values.shape[-1], (length - 1) // 2
    neighbours = np.zeros((*values.shape[:-1], samples + length - 1))
    neighbours[..., length - 1 - after : length - 1 - after + samples] = values
    total, begin, width = np.zeros(values.shape), 0, 1
    while width <= length:
        if length & width:
            total += neighbours[..., begin : begin + samples]
            begin += width
        neighbours = neighbours[..., :-width] + neighbours[..., width:]
        width *= 2
    return total


def window_mean(values: np.ndarray, length: int = WINDOW) -> np.ndarray:
    """Mean over 25 samples around each, or another number; what is NaN does not count."""
    sums, counts = window_sums(values, length)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
