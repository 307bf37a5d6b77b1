"""How far a rotational optimizer turns a weight per step, from learning rate and weight decay.

Such an optimizer turns scale-invariant weights at once by the angle that an ordinary one
would reach in equilibrium. That angle is c·√(ηλ) to first order, with a constant c of
the ordinary optimizer. What happens when η follows a schedule is a choice: ``sqrt`` takes
the equilibrium of each moment's η, so that the angle goes as √η; ``linear`` keeps the
angle proportional to η, as ordinary steps are, with the equilibrium of the peak.

The functions take floats, arrays and tensors alike.

Sources: Kosson et al., *Rotational Equilibrium*, §3 (constants) and *Analyzing & Reducing
the Need for Learning Rate Warmup in GPT Training*, §5 (LionAR). That paper does not say
how LionAR follows a schedule, and gives no formula for the inverse bias correction: both
are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .diffusion import decay_rate, direction_memory
from .update_rules import SCHEDULES, AdamRule, UpdateRule

__all__ = [
    "MATCHINGS",
    "SCHEDULES",
    "inverse_bias_factor",
    "is_rotational",
    "lion_ar_constant",
    "peak_lr_of",
    "rotation_constant",
    "sign_rotation_constant",
    "step_angle",
]

MATCHINGS = ("adamw", "net")
"""Whose turning LionAR takes over, see :func:`lion_ar_constant`."""


@lru_cache
def rotation_constant(rule: UpdateRule) -> float:
    """Constant c in Δ* = c·√(ηλ), the rule's equilibrium angle to first order.

    Args:
        rule: What the ordinary optimizer does; its lr and weight decay do not matter.

    Raises:
        NoPrediction: Adam with L2, whose angle depends on the gradient.

    >>> from smd_hooks.theory import SGDRule
    >>> round(rotation_constant(SGDRule(0.1, 1e-4, momentum=0.9)) ** 2, 6)  # 2/(1 + α)
    1.052632
    """
    small = rule.at(1e-3, 1e-3)
    return math.sqrt(2 * decay_rate(small) / 1e-6 / direction_memory(small))


def sign_rotation_constant(beta1: float, beta2: float) -> float:
    """The same of a sign rule, with sign() linearised: √π times the RMS of its argument.

    That argument is the blend of :class:`~smd_hooks.theory.LionRule`, under white
    gradients of size 1. For signs of a running mean with β ≥ .9 it is 3–5 % above the exact
    constant.

    >>> round(sign_rotation_constant(0.9, 0.9) * math.sqrt(2e-3 * 0.1), 6)
    0.005751
    """
    return math.sqrt(math.pi * _white_power(beta1, beta2, 0.0))


@lru_cache
def lion_ar_constant(beta: float, nesterov: bool = False, matching: str = "adamw") -> float:
    """Constant c of LionAR.

    Args:
        beta: Decay of the running mean whose sign is taken.
        nesterov: Whether it is taken with Nesterov's look-ahead.
        matching: ``"adamw"`` for AdamW's angle with β₁ = ``beta``, so that its lr and weight
            decay carry over; ``"net"`` for the angle that LionA without rotation comes to,
            with sign() linearised.

    Raises:
        ValueError: ``matching`` is neither.

    >>> round(lion_ar_constant(0.9) * math.sqrt(2e-3 * 0.1), 6)
    0.004588
    """
    if matching not in MATCHINGS:
        raise ValueError(f"matching must be one of {MATCHINGS}, got {matching!r}")
    if matching == "adamw":
        return rotation_constant(AdamRule(1.0, 1.0, beta1=beta))
    return sign_rotation_constant(beta**2 if nesterov else beta, beta)


def is_rotational(group: Mapping[str, Any]) -> bool:
    """Whether a parameter group of a rotational optimizer has its matrices turned.

    They are, unless it says ``rotational=False``, where it has weight decay or an ``angle``. A
    weight decay that is a tensor is not looked at, which would wait for the device.
    """
    if group.get("rotational") is False:
        return False
    decay = group["weight_decay"]
    return group.get("angle") is not None or not isinstance(decay, int | float) or decay > 0


def peak_lr_of(group: Mapping[str, Any]) -> Any:
    """Learning rate of a parameter group at the peak of its schedule.

    What a scheduler noted (``max_lr``, ``initial_lr``) goes before what the optimizer did
    when the group was added (``peak_lr``); a config, which has none of these, is at its peak.
    """
    return next(group[k] for k in ("max_lr", "initial_lr", "peak_lr", "lr") if k in group)


def step_angle(
    lr: Any, weight_decay: Any, constant: float, peak_lr: Any, schedule: str, angle: Any = None
) -> Any:
    """Angle η_r that a weight is turned by in one step.

    Args:
        lr: Learning rate η of this step.
        weight_decay: λ.
        constant: c, see :func:`rotation_constant`.
        peak_lr: Learning rate at the peak of the schedule.
        schedule: ``"linear"`` or ``"sqrt"``.
        angle: Angle at the peak in radians; None for c·√(peak_lr · λ).

    Returns:
        Radians per step, of the type of ``lr``; 0 where the peak itself is 0.

    >>> round(step_angle(1e-3, 0.1, 1.0, 4e-3, "linear"), 6)
    0.005
    >>> round(step_angle(1e-3, 0.1, 1.0, 4e-3, "sqrt"), 6)
    0.01
    """
    if isinstance(peak_lr, int | float) and peak_lr == 0:
        return 0.0 * lr
    peak = constant * (peak_lr * weight_decay) ** 0.5 if angle is None else angle
    return peak * (lr / peak_lr) ** (1.0 if schedule == "linear" else 0.5)


def inverse_bias_factor(beta: float, step: Any, nesterov: bool = False) -> Any:
    """Factor on the step number t that undoes the early excess of sign and normalized steps.

    Such a step has full size at t = 1, though its momentum holds one gradient only. The
    factor is the root of the share of the argument's final variance that is there, under
    random gradients: then each gradient contributes as much as any later one.

    Args:
        beta: Decay of the running mean m ← βm + (1−β)g whose sign is taken.
        step: t ≥ 1, number of the step.
        nesterov: Whether the sign is taken of βm + (1−β)g instead.

    Returns:
        Between 0 and 1, of the type of ``step``: √(1 − β^2t) without Nesterov.

    Source: derived; Kosson et al., *Warmup*, §5, name an inverse bias correction.

    >>> [round(inverse_bias_factor(0.98, t), 3) for t in (1, 10, 100)]
    [0.199, 0.577, 0.991]
    """
    beta1 = beta**2 if nesterov else beta
    there = _white_power(beta1, beta, beta ** (2 * (step - 1)))
    return (there / _white_power(beta1, beta, 0.0)) ** 0.5


def _white_power(beta1: float, beta2: float, forgotten: Any) -> Any:
    """Variance of β₁m + (1−β₁)g under white gradients; a share of m's past is not there yet."""
    return (1 - beta1) ** 2 + beta1**2 * (1 - beta2) / (1 + beta2) * (1 - forgotten)
