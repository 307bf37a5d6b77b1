"""What a layer's way to equilibrium, drift and chance do to Δ/Δ* at the end of its run."""

from __future__ import annotations

import math

import numpy as np

from ...theory import (
    NoPrediction,
    SGDRule,
    UpdateRule,
    equilibrium_norm,
    relaxation_ratio,
    relaxation_time,
)
from ..agreement.columns import Columns, mean
from ..agreement.windows import window_length

POINTS = 500
"""Samples of a smooth schedule, or of a drift, that a relaxation is followed along."""
SETTLED = 2.0
"""Relaxation times into a stage from which on its way to equilibrium is not taken for noise."""
FEW_WINDOWS = 4
"""Windows from which on their scatter tells something."""


def transient_effects(rule: UpdateRule, samples: Columns) -> tuple[float, float]:
    """What relaxation and what drift add to log(Δ/Δ*) at the end.

    Relaxation is followed from the norm where scale invariance began, with the driving
    moment of then. Drift is what the measured moments change about that.
    """
    starts = np.flatnonzero(np.diff(samples["elapsed"]) < 0) + 1
    samples = samples.at(slice(starts[-1] if len(starts) else 0, None))
    samples = samples.at((samples["lr"] > 0) & (samples["weight_decay"] > 0))
    first = mean(samples["driving_moment"][samples["elapsed"] <= 1])
    start = rule.at(float(samples["lr"][0]), float(samples["weight_decay"][0]))
    some, moment = _mean_moments(samples)
    try:
        initial = float(samples["weight_norm"][0]) / equilibrium_norm(start, first)
        relaxed = _follow(rule, samples, _turning_points(samples), initial)
        # on the same points with and without: what is held between them is the same
        steady = _follow(rule, samples, some, initial)
        driven = _follow(rule, samples, some, initial, moment / first)
    except NoPrediction:
        return 0.0, 0.0
    return math.log(relaxed), math.log(driven / steady) if driven > 0 else 0.0


def _follow(
    rule: UpdateRule,
    samples: Columns,
    some: np.ndarray,
    initial: float,
    moment: np.ndarray | None = None,
) -> float:
    """Δ/Δ* at the last of some samples, by the relaxation law."""
    ratio = relaxation_ratio(
        rule,
        samples["own_step"][some],
        samples["lr"][some],
        samples["weight_decay"][some],
        samples["rescale"][some],
        initial,
        moment,
    )
    return float(ratio[-1])


def _mean_moments(samples: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Beginnings of stretches within stages, the last window among them, and their means."""
    stage, count = samples["stage"], len(samples["lr"])
    window = window_length(samples["elapsed"][stage == stage[-1]])
    stretch = max(window, count // POINTS)
    jumps = np.flatnonzero(np.diff(stage) > 0)
    begins = np.concatenate([[0], np.arange(count % stretch, count, stretch), jumps + 1])
    begins = np.unique(begins)
    sums = np.add.reduceat(samples["driving_moment"], begins)
    return begins, sums / np.diff(begins, append=count)


def standard_error(rule: UpdateRule, stage: Columns, driving: np.ndarray, memory: float) -> float:
    """Of log(Δ/Δ*) over the last window, by what drives Δ² there.

    There is the mean over the window, and there is the norm, which is a mean over a
    relaxation time: Var log Δ² = scatter²·(1/n + memory/2τ), n the window's independent
    samples. Where means over windows are seen to scatter more about their trend than
    independent samples do, that counts instead of 1/n.

    Args:
        rule: The update rule at the end of the stage.
        stage: The last stage's samples.
        driving: What drives Δ² at each, shape (samples,).
        memory: Steps over which its noise remembers itself.
    """
    length, steps = window_length(stage["elapsed"]), stage["own_step"]
    window = driving[-length:]
    if not window.mean() > 0:
        return 0.0
    scatter = float(window.std() / window.mean())
    interval = (steps[-1] - steps[0]) / (len(steps) - 1)
    white = scatter**2 * max(1.0, memory / interval) / length
    norm = scatter**2 * memory / relaxation_time(rule) / 2
    elapsed = stage["elapsed"]
    settled = driving[elapsed - elapsed[0] > SETTLED]
    return math.sqrt(max(white, _seen_variance(settled, length)) + norm) / 2


def _seen_variance(values: np.ndarray, length: int) -> float:
    """Variance of log window means about their trend; 0 where windows are too few."""
    means = values[len(values) % length :].reshape(-1, length).mean(axis=1)
    if len(means) < FEW_WINDOWS or not (means > 0).all():
        return 0.0
    return float(np.diff(np.log(means)).var() / 2)


def memory_of_angle(rule: UpdateRule) -> float:
    """Steps over which squares of the steps' lengths remember each other."""
    kept = rule.momentum if isinstance(rule, SGDRule) else getattr(rule, "beta1", 0.0)
    return (1 + kept**2) / (1 - kept**2)


def memory_of_moment(rule: UpdateRule) -> float:
    """The same of the driving moment: SGD's is that of single gradients."""
    return 1.0 if isinstance(rule, SGDRule) else memory_of_angle(rule)


def _turning_points(samples: Columns) -> np.ndarray:
    """Both ends and both sides of each change: in between a relaxation is an exponential.

    Of a smooth schedule, which changes all the time, some samples do, and its jumps.
    """
    settings = ("lr", "weight_decay", "rescale")
    changes = np.flatnonzero(np.any([np.diff(samples[name]) != 0 for name in settings], axis=0))
    last, points = len(samples["lr"]) - 1, 2
    if len(changes) > POINTS:
        changes, points = np.flatnonzero(np.diff(samples["stage"]) > 0), POINTS
    some = np.linspace(0, last, points).astype(int)
    return np.unique(np.concatenate([some, changes, changes + 1]))
