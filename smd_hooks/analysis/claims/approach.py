"""How norms and angles come to their equilibrium at a constant learning rate, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ...theory import SGDRule, driving_moment, equilibrium_angle, equilibrium_norm, relaxation_time
from ..agreement.blocks import predictable
from ..agreement.columns import Columns, of_each_weight
from ..agreement.moments import measured_moments
from ..agreement.prediction import predict
from ..agreement.scores import score
from ..agreement.windows import BAND, WINDOW, window_length, window_mean
from ..reading.run import Run
from .control import as_if_invariant, not_invariant
from .evidence import smallest_z2
from .relaxation_fit import fit_rate, fitted_span
from .stage_ends import END_SHARE

MEAN_STEPS = 200
"""Steps that the driving moment is averaged over, as the paper's figure has it."""
SETTLED = 2 / 3
"""Share of a run, at its end, over which drifts are judged."""

LAYERS = (
    *("norm_start", "norm_end", "angle_start", "angle_end", "norm_end_gradient_alone"),
    *("plain_formula", "gradient_drift", "rate", "predicted_rate", "arrival"),
)
"""Columns of :func:`layer_table`."""


@dataclass(frozen=True)
class Approach:
    """One run at a constant learning rate.

    Attributes:
        layers: See :func:`layer_table`; empty without scale-invariant weights under SGD.
        others: The same of what is not scale-invariant, as if it were.
        others_z2: The smallest radial statistic of those.
        others_law: Their error of the trajectory law, the smallest; NaN without any.
    """

    layers: pd.DataFrame
    others: pd.DataFrame
    others_z2: float
    others_law: float


def approach(run: Run) -> Approach:
    """Follow every weight of a run to its equilibrium."""
    samples, weights = run.samples, run.weights
    if not len(samples) or "scale_invariant" not in weights:
        empty = pd.DataFrame(columns=list(LAYERS))
        return Approach(empty, empty, math.nan, math.nan)
    others = not_invariant(weights)
    pretended = as_if_invariant(weights, others)
    predicted = predict(samples, pretended)
    return Approach(
        layer_table(run.predicted, weights),
        layer_table(predicted, pretended),
        smallest_z2(weights, others),
        float(score(predicted, pretended)["trajectory_error"].min()),
    )


def layer_table(predicted: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Return what a constant learning rate did to each weight under SGD.

    Args:
        predicted: What :func:`smd_hooks.analysis.predict` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per parameter (its index), NaN where something does not apply:

        * ``norm_start``: r/r* at the first sample, r* of the 200-step mean of h̃ (of 25 samples
          at least);
        * ``norm_end``: mean of r/r* over the last fifth of the run;
        * ``angle_start``: Δ/Δ* after the first window, when the momentum has filled up;
        * ``angle_end``: Δ/Δ*, root mean square over the last fifth;
        * ``norm_end_gradient_alone``: ``norm_end`` with ‖g̃‖² in place of h̃;
        * ``plain_formula``: Δ over √(2ηλ) there, which is right without momentum only;
        * ``gradient_drift``: μτ of an E‖g̃‖² ∝ e^(μt), fitted over the last two thirds;
        * ``rate``: relaxation rate of r⁴ per step, see
          :func:`smd_hooks.analysis.claims.relaxation_fit.fit_rate`; ``predicted_rate``: 1/τ;
        * ``arrival``: steps until r is within 5 % of r*.
    """
    samples, rows = of_each_weight(predicted), {}
    for index, weight, rule in predictable(weights):
        if index in samples and isinstance(rule, SGDRule):
            columns = samples[index]
            lr, decay = float(columns["lr"][0]), float(columns["weight_decay"][0])
            if lr > 0 and decay > 0:
                rows[weight["parameter"]] = _layer(columns, rule.at(lr, decay))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(LAYERS), dtype=float)


def _layer(columns: Columns, rule: SGDRule) -> dict[str, float]:
    steps, norm = columns["own_step"], columns["weight_norm"]
    moments = measured_moments(columns)
    driven = driving_moment(rule, moments)
    gradient = moments.need("gradient")
    length = max(WINDOW, round(MEAN_STEPS / np.median(np.diff(steps)))) if len(steps) > 1 else 1
    ratio = norm / _radius(rule, driven, length)
    end = slice(-max(1, round(END_SHARE * len(steps))), None)
    angle = columns["angular_update"][end]
    first = min(window_length(columns["elapsed"]), len(steps) - 1)
    tau = relaxation_time(rule)
    span = fitted_span(rule, steps - steps[0])
    return {
        "norm_start": float(ratio[0]),
        "norm_end": float(np.mean(ratio[end])),
        "angle_start": float(columns["angle_ratio"][first]),
        "angle_end": _root_mean_square(angle) / equilibrium_angle(rule),
        "norm_end_gradient_alone": float(np.mean((norm / _radius(rule, gradient, length))[end])),
        "plain_formula": _root_mean_square(angle) / equilibrium_angle(replace(rule, momentum=0.0)),
        "gradient_drift": _drift(steps, window_mean(gradient, length)) * tau,
        "rate": fit_rate(rule, steps[span], norm[span], driven[span]),
        "predicted_rate": 1 / tau,
        "arrival": _arrival(steps, ratio),
    }


def _radius(rule: SGDRule, moment: np.ndarray, length: int) -> np.ndarray:
    """r* of the mean of a moment; NaN where that is not positive."""
    with np.errstate(invalid="ignore"):
        return equilibrium_norm(rule, 1.0) * window_mean(moment, length) ** 0.25


def _root_mean_square(values: np.ndarray) -> float:
    return math.sqrt(float(np.mean(values**2)))


def _drift(steps: np.ndarray, moment: np.ndarray) -> float:
    """μ of e^(μt), per step, over the last two thirds of the samples."""
    late = slice(round((1 - SETTLED) * len(steps)), None)
    steps, moment = steps[late], moment[late]
    known = moment > 0
    if known.sum() < WINDOW:
        return math.nan
    return float(np.polyfit(steps[known], np.log(moment[known]), 1)[0])


def _arrival(steps: np.ndarray, ratio: np.ndarray) -> float:
    """Steps until the first sample within 5 % of r*."""
    arrived = np.flatnonzero(np.abs(ratio - 1) <= BAND)
    return float(steps[arrived[0]] - steps[0]) if len(arrived) else math.nan
