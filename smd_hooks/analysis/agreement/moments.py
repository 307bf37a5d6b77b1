"""From a weight's samples to the moments that theory is fed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...theory import AdamRule, StepMoments, UpdateRule, preconditioned_radial, unlike_parts
from .windows import LONG_WINDOW, stage_slices, window_mean, window_sums


def measured_moments(columns: Mapping[str, Any]) -> StepMoments:
    """Bring samples into theory's terms, one by one.

    The direction u of w' = (1 − ηλ)·w − η·u is not recorded; its length and its part along
    w follow from those of the update.

    Args:
        columns: Those of :data:`smd_hooks.records.schema.SAMPLES`, each of any shape.
            Records from before ``radial_update`` was kept give no ``direction`` and no
            ``radial``. ‖u‖² is divided by ``early_excess`` where there is such a column, as
            :func:`smd_hooks.analysis.predict` adds it.

    Returns:
        Moments of the columns' shape, NaN where something was not measured.
    """
    norm, lr = _column(columns, "weight_norm"), _column(columns, "lr")
    shrink = lr * _column(columns, "weight_decay")
    along = _column(columns, "radial_update") * norm
    square = _column(columns, "update_norm") ** 2
    with np.errstate(divide="ignore", invalid="ignore"):  # no step, no direction: NaN
        direction = (square + 2 * shrink * along + (shrink * norm) ** 2) / lr**2
        if "early_excess" in columns:
            direction = direction / _column(columns, "early_excess")
        radial = -(along + shrink * norm**2) / lr
    return StepMoments(
        gradient=(_column(columns, "gradient_norm") * norm) ** 2,
        alignment=_column(columns, "gradient_momentum_dot") * norm**2,
        direction=direction,
        radial=radial,
    )


def unlike_moment(columns: Mapping[str, Any], rule: UpdateRule, began_empty: bool) -> np.ndarray:
    """What AdamW's preconditioner leaves along a scale-invariant weight.

    Args:
        columns: As :func:`measured_moments` takes them, each of shape (..., samples), with
            ``early_excess``; ``own_step``, ``lr``, ``weight_decay`` and ``stage`` may be of
            shape (samples,).
        rule: The update rule of all these weights.
        began_empty: Whether the first sample is the weights' first step.

    Returns:
        See :func:`smd_hooks.theory.unlike_parts`, shape (..., samples), each the mean over
        100 samples around within the stage; 0 for other rules and where it is not known.
    """
    norm = _column(columns, "weight_norm")
    if not isinstance(rule, AdamRule) or not rule.decoupled:
        return np.zeros(norm.shape)
    moments, gradient = measured_moments(columns), _column(columns, "gradient_norm")
    direction = moments.need("direction")
    preconditioned = preconditioned_radial(
        rule,
        _column(columns, "own_step"),
        _column(columns, "lr"),
        _column(columns, "weight_decay"),
        direction,
        moments.need("radial"),
        _column(columns, "rescale") if "rescale" in columns else None,
        began_empty,
    )
    radial = _column(columns, "radial_cosine") * norm * gradient
    squares = (window_mean(gradient**2), window_mean(direction))
    left = unlike_parts(rule, preconditioned, radial, *squares)
    for stage in stage_slices(_column(columns, "stage")):
        left[..., stage] = _beyond_chance(left[..., stage])
    return np.nan_to_num(left)


def _beyond_chance(values: np.ndarray) -> np.ndarray:
    """Mean of 100 samples around each, made smaller by what their scatter can make of 0.

    Where filters are small and samples few, single batches' luck is larger than the mean,
    and a law that is told of it for all the steps between two samples goes astray.
    """
    sums, count = window_sums(values, LONG_WINDOW)
    squares, _ = window_sums(values**2, LONG_WINDOW)
    with np.errstate(divide="ignore", invalid="ignore"):  # of one sample no scatter is known
        mean = sums / count
        variance = np.maximum(squares - sums * mean, 0.0) / (count - 1)
        return mean * np.maximum(1 - variance / count / mean**2, 0)


def _column(columns: Mapping[str, Any], name: str) -> np.ndarray:
    if name in columns:
        return np.asarray(columns[name], float)
    return np.full(np.shape(columns["lr"]), np.nan)
