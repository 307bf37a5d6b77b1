"""What a layer's diagnosis may say, and how far off a number must be to be a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

LAW_BAND = 0.06
"""Trajectory error beyond which a layer does not follow its law, if every step is sampled and
the driving moment scatters by no more than its mean."""

IN_EQUILIBRIUM = "in equilibrium"
NOT_INVARIANT = "not scale-invariant"
NO_PREDICTION = "no prediction"
NO_EQUILIBRIUM = "no equilibrium"
TOO_SHORT = "too short"
ROUNDING = "rounding of the weights"
NORM_DECAY = "weight decay on norm parameters"
ASSUMPTION = "assumption of the theory broken"
OFF_THE_LAW = "off the trajectory law"
RELAXING = "not relaxed yet"
DRIFT = "drifting driving moment"
ALIGNED = "gradients aligned with momentum"
UNEXPLAINED = "unexplained"
TURNED_AS_SET = "turned as set"
ZERO_NORM = "zero norm"
NO_GRADIENT = "no gradient"
MOVED = "moved by something else"
NOT_AS_SET = "not turned as set"


class Cause(NamedTuple):
    """One layer's diagnosis: the cause, its number, and both in words."""

    cause: str
    value: float
    detail: str


def relaxation_times(elapsed: float) -> str:
    """Say in words how long ago something was; a stage may be far shorter than one of them.

    >>> relaxation_times(2.24), relaxation_times(0.016)
    ('2.2 relaxation times', '0.016 relaxation times')
    """
    return (
        f"{elapsed:.1f} relaxation times" if elapsed >= 0.1 else f"{elapsed:.2g} relaxation times"
    )


def rounding_cause(entry: Mapping[str, Any], angle: float) -> Cause | None:
    """Blame the weight's precision, if rounding alone turns it by more than it should turn.

    Args:
        entry: The weight's entry of ``run.json``.
        angle: Δ* in radians.
    """
    rounding = entry.get("rounding_angle")
    if rounding is None or not rounding > angle:
        return None
    detail = f"rounding turns the weights by {rounding:.1e} radians, Δ* is {angle:.1e}"
    return Cause(ROUNDING, rounding, detail)
