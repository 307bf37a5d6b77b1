"""Means over seeds, with how well so few seeds know them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: Over the seeds.
        low: Lower end at :data:`CONFIDENCE`; −inf from a single seed.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values and Student's confidence interval of it.

    >>> print(mean_interval([1.0, 2.0, 3.0]))  # ± 4.303 · 1/√3
    +2.00 (-0.48 to +4.48)
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = t_quantile(CONFIDENCE, len(values) - 1) * error
    return Interval(mean, mean - half, mean + half)


def t_quantile(confidence: float, freedom: int) -> float:
    """Return the t beyond which, either way, lies what ``confidence`` leaves of Student's t.

    Args:
        confidence: Between 0 and 1.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2  # of atan(t/√ν)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(theta: float, freedom: int) -> float:
    """Share of Student's t within ±√ν·tan θ: the finite series for whole ν.

    Source: Abramowitz & Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
    """
    odd, term, total = freedom % 2, 1.0, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term * math.cos(theta) ** power
        term *= (power + 1) / (power + 2)
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
