"""From a weight's samples to the moments that theory is fed with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..theory import StepMoments


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


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(float) if name in frame else np.full(len(frame), np.nan)
