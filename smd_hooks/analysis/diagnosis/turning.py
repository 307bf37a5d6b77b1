"""Why a weight that its optimizer turns by a set angle does not turn so, one main cause each.

Nothing relaxes there and no gradient's size matters, so what is left is short: the weight
has nothing to turn or nothing to turn it, its numbers are too coarse, or somebody else
moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..agreement.columns import Columns, middle
from ..agreement.windows import BAND
from .causes import (
    LAW_BAND,
    MOVED,
    NO_GRADIENT,
    NOT_AS_SET,
    TURNED_AS_SET,
    ZERO_NORM,
    Cause,
    rounding_cause,
)

NORM_BAND = 1e-3
"""Relative change of a norm that nothing should change, beyond all rounding."""


def diagnose_turn(
    entry: Mapping[str, Any], score: Mapping[str, Any], samples: Columns, last: Columns
) -> Cause:
    """Name the main cause of a rotational weight's Δ over the angle that was set.

    Args:
        entry: The weight's entry of ``run.json``.
        score: Its row of :func:`smd_hooks.analysis.score`.
        samples: Its rows of :func:`smd_hooks.analysis.predict`.
        last: Those of them that moved it since the last jump of the schedule.

    Returns:
        The cause; its number is Δ over the set angle, but for ``MOVED`` the norm over the
        first one, for ``NO_GRADIENT`` the share of such steps, for ``ROUNDING`` an angle.
    """
    ratio, norm = score["angle_ratio"], score["norm_ratio"]
    told = f"Δ is {ratio:.3f} of the set angle"
    turned = abs(ratio - 1) <= BAND and not score["trajectory_error"] > LAW_BAND
    if turned and abs(norm - 1) <= NORM_BAND:
        return Cause(TURNED_AS_SET, ratio, told)
    if not samples["weight_norm"][0] > 0:
        return Cause(ZERO_NORM, ratio, f"{told}: a weight that begins at 0 takes ordinary steps")
    rounded = rounding_cause(entry, middle(last["equilibrium_angle"]))
    if rounded is not None:
        return rounded
    still = float((last["gradient_norm"] == 0).mean())
    if still > BAND:
        return Cause(NO_GRADIENT, still, f"{told}: {still:.0%} of the steps had no gradient")
    if not abs(norm - 1) <= NORM_BAND:
        detail = f"the norm is {norm:.4f} of the first one: the optimizer does not change it"
        return Cause(MOVED, norm, detail)
    error = score["trajectory_error"]
    detail = f"{told}, off it by {error:.2f} in the median of the run"
    if ratio < 1 - BAND:
        detail += "; neurons without a gradient stand still"
    return Cause(NOT_AS_SET, ratio, detail)
