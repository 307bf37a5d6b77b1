"""From a weight's samples to the moments that theory is fed with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..theory import AdamRule, StepMoments, UpdateRule, preconditioned_radial, unlike_parts
from .windows import LONG_WINDOW, window_mean


def measured_moments(frame: pd.DataFrame) -> StepMoments:
    """Bring one weight's samples into theory's terms, sample by sample.

    The direction u of w' = (1 − ηλ)·w − η·u is not recorded; its length and its part along
    w follow from those of the update.

    Args:
        frame: Rows as in :data:`smd_hooks.records.schema.SAMPLES`, of one weight. Records
            from before ``radial_update`` was kept give no ``direction`` and no ``radial``.
            ‖u‖² is divided by ``early_excess`` where there is such a column, as
            :func:`smd_hooks.analysis.predict` adds it.

    Returns:
        Moments of shape (samples,), NaN where something was not measured.
    """
    norm, lr = _column(frame, "weight_norm"), _column(frame, "lr")
    shrink = lr * _column(frame, "weight_decay")
    along = _column(frame, "radial_update") * norm
    square = _column(frame, "update_norm") ** 2
    with np.errstate(divide="ignore", invalid="ignore"):  # no step, no direction: NaN
        direction = (square + 2 * shrink * along + (shrink * norm) ** 2) / lr**2
        if "early_excess" in frame:
            direction = direction / _column(frame, "early_excess")
        radial = -(along + shrink * norm**2) / lr
    return StepMoments(
        gradient=(_column(frame, "gradient_norm") * norm) ** 2,
        alignment=_column(frame, "gradient_momentum_dot") * norm**2,
        direction=direction,
        radial=radial,
    )


def unlike_moment(frame: pd.DataFrame, rule: UpdateRule, began_empty: bool) -> np.ndarray:
    """What AdamW's preconditioner leaves along a scale-invariant weight.

    Args:
        frame: As :func:`measured_moments` takes it, with ``own_step``, ``stage`` and
            ``early_excess``.
        rule: The weight's update rule.
        began_empty: Whether the first sample is the weight's first step.

    Returns:
        See :func:`smd_hooks.theory.unlike_parts`, shape (samples,), each the mean over 100
        samples around within the stage; 0 for other rules and where it is not known.
    """
    if not isinstance(rule, AdamRule) or not rule.decoupled:
        return np.zeros(len(frame))
    moments, norm = measured_moments(frame), _column(frame, "weight_norm")
    gradient, direction = _column(frame, "gradient_norm"), moments.need("direction")
    steps, lr = _column(frame, "own_step"), _column(frame, "lr")
    preconditioned = preconditioned_radial(
        rule,
        steps,
        lr,
        _column(frame, "weight_decay"),
        direction,
        moments.need("radial"),
        frame.get("rescale"),
        began_empty,
    )
    radial = _column(frame, "radial_cosine") * norm * gradient
    squares = (window_mean(gradient**2), window_mean(direction))
    left = pd.Series(unlike_parts(rule, preconditioned, radial, *squares))
    stages = left.groupby(frame["stage"].to_numpy())
    return np.nan_to_num(stages.transform(_beyond_chance).to_numpy())


def _beyond_chance(values: pd.Series) -> pd.Series:
    """Mean of 100 samples around each, made smaller by what their scatter can make of 0.

    Where filters are small and samples few, single batches' luck is larger than the mean,
    and a law that is told of it for all the steps between two samples goes astray.
    """
    window = values.rolling(LONG_WINDOW, min_periods=2, center=True)
    mean, chance = window.mean(), window.var() / window.count()
    return mean * np.maximum(1 - chance / mean**2, 0)


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(float) if name in frame else np.full(len(frame), np.nan)
