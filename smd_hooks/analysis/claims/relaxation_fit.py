"""The rate at which a norm really relaxes, fitted in the norm law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...theory import SGDRule, equilibrium_norm, relaxation_time

FITTED_TIMES = 3.0
"""Relaxation times that a fit goes over. From a norm of 2 r* on, x = r⁴ is still 1.75 times its
equilibrium there: what decays is always more than what is added."""
FILLED = 3.0
"""Steps, over 1/(1 − α), until a momentum that began at 0 acts as the law has it."""


def fitted_span(rule: SGDRule, steps: np.ndarray) -> slice:
    """Return the samples that :func:`fit_rate` should be given, of a run from its first step on.

    Args:
        rule: The update rule.
        steps: Steps since the first, increasing, shape (samples,).
    """
    begin = round(FILLED / (1 - rule.momentum)) if rule.momentum else 0
    last = round(FITTED_TIMES * relaxation_time(rule))
    return slice(*np.searchsorted(steps, [begin, last]).tolist())


def fit_rate(rule: SGDRule, steps: np.ndarray, norm: np.ndarray, moment: np.ndarray) -> float:
    """Fit the rate k of the norm law dx = −k·x dt + s·h̃ dt, x = r⁴, by least squares.

    s, what the updates add, is known: 2η²/(1−α)². With the increments Δy = s·h̃·Δt − Δx and
    areas A = x·Δt between samples, k = ΣA·Δy/ΣA². Weight decay enters k only, whose
    prediction is 1/τ. For SGD without momentum sampled at every step that is bookkeeping, and
    k = 1/τ an identity of scale invariance; with momentum, and h̃ a mean, it is a test.

    Args:
        rule: The update rule at the learning rate and decay of these samples.
        steps: Optimizer steps of the samples, increasing, shape (samples,).
        norm: r at each, shape (samples,).
        moment: h̃ at each, held up to the next, shape (samples,).

    Returns:
        k per step; NaN for fewer than two samples.

    Raises:
        NoPrediction: There is no equilibrium.

    Source: derived from the norm law of Theorem 2 of Wan et al., *Spherical Motion Dynamics*.
    """
    added = equilibrium_norm(rule, 1.0) ** 4 / relaxation_time(rule)
    x, dt = norm**4, np.diff(steps)
    area = (x[1:] + x[:-1]) / 2 * dt
    lost = added * moment[:-1] * dt - np.diff(x)
    total = float(area @ area)
    return float(area @ lost) / total if total > 0 else math.nan


@dataclass(frozen=True)
class Rate:
    """The rates of several layers as one.

    Attributes:
        value: Their median, per step.
        error: Standard error of that, from the layers' scatter; NaN for a single layer.
        predicted: 1/τ.
        layers: How many.
    """

    value: float
    error: float
    predicted: float
    layers: int


def median_rate(rates: np.ndarray, predicted: float) -> Rate:
    """Return the median of the layers' rates and its standard error.

    A median of n normal values scatters by √(π/2n) of their standard deviation.
    """
    error = math.nan
    if len(rates) > 1:
        error = float(np.std(rates, ddof=1)) * math.sqrt(math.pi / 2 / len(rates))
    return Rate(float(np.median(rates)), error, predicted, len(rates))
