"""What a parameter group's options say about turning its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..theory.rotation import SCHEDULES, is_rotational, peak_lr_of, step_angle


def check_turning(who: str, group: Mapping[str, Any]) -> None:
    """Refuse options that make no sense.

    Args:
        who: Whose options these are, for the message.
        group: A parameter group with ``schedule``, ``angle`` and ``rotational``.

    Raises:
        ValueError: An option is out of range, or ``rotational=True`` is asked of a group
            whose angle would be 0.
    """
    if group["schedule"] not in SCHEDULES:
        choices = " or ".join(map(repr, SCHEDULES))
        raise ValueError(f"{who}: schedule must be {choices}, got {group['schedule']!r}")
    decay = group.get("update_norm_decay", 0.0)
    if not 0 <= decay < 1:
        raise ValueError(f"{who}: update_norm_decay must lie in [0, 1), got {decay!r}")
    angle = group["angle"]
    if angle is not None and not 0 < angle < 1.5:
        raise ValueError(f"{who}: angle must lie between 0 and 1.5 radians, got {angle!r}")
    if group["rotational"] not in (None, True, False):
        raise ValueError(f"{who}: rotational must be True, False or None")
    if group["rotational"] and not is_rotational(group):
        raise ValueError(
            f"{who}: rotational=True with weight_decay=0 would turn by nothing; give a "
            "weight_decay or an angle in radians per step"
        )


def turns(group: Mapping[str, Any], parameter: Tensor) -> bool:
    """Whether a parameter of a group is rotational; it needs two directions to turn in."""
    if not is_rotational(group) or (group["rotational"] is None and parameter.ndim < 2):
        return False
    rows = parameter.shape[0] if group["per_neuron"] and parameter.ndim else 1
    return parameter.numel() // max(rows, 1) - bool(group.get("zero_mean")) >= 2


def angle_now(group: Mapping[str, Any], constant: float) -> Any:
    """Radians per step that a group asks for at its present lr; 0 where it asks for none.

    Args:
        group: A parameter group with ``schedule`` and ``angle``.
        constant: See :func:`smd_hooks.theory.rotation_constant`.

    Raises:
        ValueError: lr is positive, but the schedule's peak, which angles refer to, is 0.
    """
    if not is_rotational(group):
        return 0.0
    peak_lr, lr = peak_lr_of(group), group["lr"]
    if not isinstance(peak_lr, Tensor) and not isinstance(lr, Tensor) and lr > peak_lr == 0:
        raise ValueError(
            f"lr is {lr:g}, but it was 0 when the parameter group was made, and angles refer to "
            "the peak of the schedule: make the optimizer with that lr, or set the group's peak_lr"
        )
    return step_angle(
        lr,
        group["weight_decay"],
        constant,
        peak_lr,
        group["schedule"],
        group["angle"],
    )
