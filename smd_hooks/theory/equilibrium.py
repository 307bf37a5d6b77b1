"""Where a scale-invariant weight ends up under an update rule, and how fast.

All functions need weight decay and a learning rate, and a product of both below
2(1 + momentum): otherwise there is no equilibrium, and they raise
:class:`NoPrediction` rather than return zero or infinity.
"""

from __future__ import annotations

import math

from .update_rules import NoPrediction, UpdateRule


def _decay_per_step(rule: UpdateRule) -> float:
    """ηλ, the share of the weight that decay takes per step of the undamped rule."""
    if rule.weight_decay <= 0:
        raise NoPrediction("not applicable: no weight decay, so no equilibrium")
    if rule.lr <= 0:
        raise NoPrediction("not applicable: learning rate is 0")
    decay = rule.step_lr * rule.weight_decay
    if not decay < 2 * (1 + rule.momentum):
        raise NoPrediction("not applicable: lr · weight_decay is so large that decay diverges")
    return decay


def equilibrium_angle(rule: UpdateRule) -> float:
    """Angular update Δ* per step in equilibrium.

    Exact for SGD and heavy ball, cos Δ* = 1 − ηλ/(1+α). For Nesterov the first-order
    form for white gradients: momentum-aligned gradients move it.

    Returns:
        Δ* in radians per step. The same for every scale-invariant weight of the group.

    Raises:
        NoPrediction: There is no equilibrium.

    Source: Wan et al., *Spherical Motion Dynamics*, Theorems 1 and 2; Nesterov derived.

    >>> round(equilibrium_angle(UpdateRule(lr=0.2, weight_decay=1e-4, momentum=0.9)), 6)
    0.004588
    """
    decay = _decay_per_step(rule)
    a = rule.momentum
    if rule.nesterov:
        return math.sqrt(2 * decay * (1 + 2 * a - 2 * a**3) / (1 + a))
    # 1 − cos Δ = 2 sin²(Δ/2): no cancellation at small angles
    return 2 * math.asin(math.sqrt(decay / (1 + a) / 2))


def equilibrium_norm(rule: UpdateRule, second_moment: float) -> float:
    """Equilibrium norm r* of a scale-invariant weight.

    Args:
        rule: The update rule.
        second_moment: L = E h̃, the mean of (‖g‖² + 2α⟨v₋₁, g⟩)·‖w‖² for SGD and heavy
            ball, of (‖g‖² + 2α²⟨v₋₁, g⟩)·‖w‖² for Nesterov, v₋₁ the momentum buffer
            before the step. See :func:`smd_hooks.theory.trajectory.driving_moment`.

    Raises:
        NoPrediction: There is no equilibrium, or the moment is not positive (gradients
             aligned against the momentum more than they are large).

    Source: Wan et al., *Spherical Motion Dynamics*, Theorems 1 and 2.
    """
    decay = _decay_per_step(rule)
    if not second_moment > 0:
        raise NoPrediction("not applicable: the driving second moment is not positive")
    a = rule.momentum
    return float(
        (rule.step_lr * second_moment / (rule.weight_decay * (1 - a) * (2 - decay / (1 + a))))
        ** 0.25
    )


def relaxation_time(rule: UpdateRule) -> float:
    """Relaxation time τ = (1−α)/(4ηλ) of ‖w‖⁴ towards r*⁴.

    Returns:
        τ in optimizer steps.

    Raises:
        NoPrediction: There is no equilibrium.

    >>> round(relaxation_time(UpdateRule(lr=0.1, weight_decay=1e-4, momentum=0.9)))
    2500
    """
    return (1 - rule.momentum) / (4 * _decay_per_step(rule))


def rescale_factor(rule: UpdateRule, k: float) -> float:
    """Factor on scale-invariant weights that keeps equilibrium when η becomes η/k.

    The SGD family's step length goes as 1/‖w‖ (p = 1), hence k^{−1/(2+2p)} = k^{−1/4}.

    Args:
        rule: The update rule (any SGD: all share the factor).
        k: Old learning rate over new, positive.

    Source: Wan et al., *Spherical Motion Dynamics*, §4.

    >>> round(rescale_factor(UpdateRule(lr=0.1, weight_decay=1e-4), 10), 4)
    0.5623
    """
    if not k > 0:
        raise ValueError(f"k must be positive, got {k}")
    return float(k**-0.25)
