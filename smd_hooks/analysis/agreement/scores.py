"""How well each weight agrees with theory at the end of its run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ...theory import (
    NoPrediction,
    RotationalRule,
    UpdateRule,
    equilibrium_angle,
    equilibrium_norm,
    step_exponent,
)
from .blocks import predictable
from .columns import Columns, mean, middle, of_each_weight
from .schedules import Targets
from .windows import window_length

SCORES = (
    *("parameter", "angle_ratio", "trajectory_error", "norm_ratio", "elapsed", "samples"),
    *("no_equilibrium", "rotational"),
)
"""Columns of :func:`score`."""


def score(predicted: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Score each weight that is scale-invariant at the end of its run.

    The last window has the length of those of :func:`smd_hooks.analysis.predict`, and never
    reaches back beyond the last jump of learning rate or weight decay.

    Args:
        predicted: What :func:`smd_hooks.analysis.predict` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per parameter: ``angle_ratio`` (RMS of Δ/Δ* in the last window),
        ``trajectory_error`` (median over the run), ``norm_ratio`` (mean r/r* in the last
        window, r* at each sample's learning rate and the window's mean driving moment; for
        rotational rules r* is the norm at the first sample), ``elapsed`` (relaxation times
        since the last jump; NaN for rotational rules), ``samples`` (in the last window),
        ``no_equilibrium`` (why Δ* does not exist, or empty) and ``rotational`` (whether the
        optimizer turns the weight by a set angle).
    """
    rows, targets, samples = [], Targets(), of_each_weight(predicted)
    for index, weight, rule in predictable(weights):
        if index not in samples or weight.get("scale_invariant") is not True:
            continue
        error = middle(samples[index]["trajectory_error"])
        end = _score_end(samples[index], rule, targets)
        rows.append({"parameter": weight["parameter"], "trajectory_error": error, **end})
    return pd.DataFrame(rows, columns=list(SCORES))


def _score_end(samples: Columns, rule: UpdateRule, targets: Targets) -> dict[str, Any]:
    last = samples.at(slice(np.searchsorted(samples["stage"], samples["stage"][-1]), None))
    elapsed = last["elapsed"]
    window = last.at(slice(-window_length(elapsed), None))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = window["angular_update"] / window["equilibrium_angle"]
    moving = np.flatnonzero(window["lr"] > 0)  # a schedule may end at 0
    end = moving[-1] if len(moving) else -1
    kept = isinstance(rule, RotationalRule)
    at_the_end = rule.at(float(window["lr"][end]), float(window["weight_decay"][end]))
    return {
        "angle_ratio": math.sqrt(mean(ratio**2)),
        "norm_ratio": _kept_norm(samples, window) if kept else _norm_ratio(window, rule, targets),
        "elapsed": math.nan if kept else elapsed[-1] - elapsed[0],
        "samples": len(ratio),
        "no_equilibrium": _reason(at_the_end),
        "rotational": kept,
    }


def _kept_norm(samples: Columns, window: Columns) -> float:
    """Mean r over the first one that was measured; a weight is on no sphere while it is 0."""
    norm = samples["weight_norm"]
    norm = norm[norm > 0]
    return mean(window["weight_norm"]) / float(norm[0]) if len(norm) else math.nan


def _norm_ratio(window: Columns, rule: UpdateRule, targets: Targets) -> float:
    """Mean r/r* over the samples that moved the weight; NaN where there is no r*."""
    moment = mean(window["driving_moment"])
    if not moment > 0:
        return math.nan
    moving = window.at(window["lr"] > 0)
    # r* goes with the driving moment as a power: what is left is the same for all layers
    radius = targets.along(rule, moving["lr"], moving["weight_decay"], _unit_norm)
    radius = radius * moment ** (1 / (2 + 2 * step_exponent(rule)))
    return mean(moving["weight_norm"] / radius)


def _unit_norm(rule: UpdateRule) -> float:
    try:
        return equilibrium_norm(rule, 1.0)
    except NoPrediction:
        return math.nan


def _reason(rule: UpdateRule) -> str:
    """Why there is no Δ*, or empty."""
    try:
        equilibrium_angle(rule)
    except NoPrediction as reason:
        return str(reason)
    return ""
