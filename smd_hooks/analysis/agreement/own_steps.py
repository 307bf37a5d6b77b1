"""How many steps each weight took itself: not every step of its optimizer moves it.

A weight without a gradient (a dropped layer, an expert that was not asked, the other
task's head) stays where it is: neither does it relax nor does its momentum fade.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def count_own_steps(
    sampled: Mapping[int, np.ndarray], weights: pd.DataFrame
) -> dict[int, np.ndarray]:
    """Count the steps that each weight took before each of its samples.

    Its optimizer stepped, but not the weight, where others of the same optimizer have a
    sample and it has none.

    Args:
        sampled: Steps of each weight's samples, increasing, by index of the weight.
        weights: One row per weight, as ``run.json`` has them. Without ``optimizer``, as in
            old records, all belong to one.

    Returns:
        By index, what :func:`own_steps` gives.
    """
    names = dict(enumerate(weights["optimizer"])) if "optimizer" in weights else {}
    together: dict[object, np.ndarray] = {}
    for index, steps in sampled.items():
        known = together.setdefault(names.get(index), steps)
        if not np.array_equal(known, steps):
            together[names.get(index)] = np.union1d(known, steps)
    return {i: own_steps(steps, together[names.get(i)]) for i, steps in sampled.items()}


def own_steps(steps: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """Count the steps that a weight took before each of its samples.

    A sample stands for all steps up to its optimizer's next one: exact where every step
    is sampled, otherwise an estimate. What came before its optimizer's first sample
    counts in full.

    Args:
        steps: Optimizer steps at which the weight has a sample, increasing.
        sampled: Those at which any weight of its optimizer has one, increasing.

    >>> own_steps(np.array([2, 8]), np.array([2, 4, 6, 8]))
    array([2, 4])
    """
    if np.array_equal(steps, sampled):
        return steps
    length = np.diff(sampled, append=sampled[-1] + 1) * np.isin(sampled, steps)
    before = np.cumsum(length) - length
    return sampled[0] + before[np.searchsorted(sampled, steps)]
