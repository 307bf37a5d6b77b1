"""Where a scale-invariant weight ends up under an update rule, and how fast.

Everything follows from three numbers of a rule. The *decay rate* s is the share of the
norm that weight decay takes per step. The *direction memory* D is how much further a
weight diffuses for its steps remembering each other: the sum, over all lags, of the
steps' autocorrelation under white gradients. The *step exponent* p says how steps shrink
as the weight grows, ‖η·u‖ ∝ ‖w‖^−p. Then, to first order in s::

    Δ*² = 2s/D         τ = 1/(2(1 + p)·s) on r^(2+2p)        rescale by k^(−1/(2+2p))

| rule                              | s          | D                                | p |
|-----------------------------------|------------|----------------------------------|---|
| SGD, heavy ball, coupled λ        | ηλ/(1−α)   | (1+α)/(1−α)                      | 1 |
| Nesterov, coupled λ               | ηλ/(1−α)   | (1+α)/((1−α)(1+2α−2α³))          | 1 |
| SGDW (decoupled λ)                | ηλ         | as with coupled λ                | 1 |
| AdamW                             | ηλ         | (1+β₁)/(1−β₁)                    | 0 |
| Lion and other sign rules         | ηλ         | Σ (2/π)·arcsin ρₖ over all lags  | 0 |

A rotational optimizer (LionAR and kin) turns weights by a set angle and keeps their norms:
Δ* is that angle, from the first step on, and there is no norm to relax.

Where there is no equilibrium (no weight decay, no learning rate, decay that diverges) or
none that hyperparameters can tell (Adam with L2), functions raise :class:`NoPrediction`
rather than return zero or infinity.

Sources: Wan et al., *Spherical Motion Dynamics*, Theorems 1 and 2 (SGD and heavy ball);
Kosson et al., *Rotational Equilibrium* (AdamW, Lion); the common form, Nesterov, SGDW
and the exact D of sign rules are derived.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from .diffusion import L2_ADAM, decay_rate, direction_memory, step_exponent
from .second_moments import Floats
from .update_rules import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
)


def equilibrium_angle(
    rule: UpdateRule, moment: float | None = None, elements: int | None = None
) -> float:
    """Angular update Δ* per step in equilibrium.

    Exact in ηλ for SGD and heavy ball, cos Δ* = 1 − ηλ/(1+α), and for rules with
    decoupled decay q = 1 − ηλ and linear momentum β (SGDW, AdamW), cos Δ* = (q+β)/(1+qβ);
    the first-order form for Nesterov and the sign rules. For a rotational rule, the angle
    that is set.

    Args:
        rule: The update rule.
        moment: Only for Adam with L2: Σᵢ sᵢ, as in :func:`equilibrium_norm`.
        elements: Only for Adam with L2: the weight's number of elements.

    Returns:
        Δ* in radians per step. But for Adam with L2 it is the same for every
        scale-invariant weight of the group.

    Raises:
        NoPrediction: There is no equilibrium; Adam with L2 without ``moment`` and
            ``elements``.

    >>> round(equilibrium_angle(SGDRule(lr=0.2, weight_decay=1e-4, momentum=0.9)), 6)
    0.004588
    """
    if isinstance(rule, RotationalRule):
        return _set_angle(rule)
    s = decay_rate(rule)  # what has no decay needs no word on how decay acts
    if isinstance(rule, AdamRule) and not rule.decoupled:
        if moment is None or elements is None:
            raise NoPrediction(L2_ADAM)
        share = (1 - rule.beta1) / (1 + rule.beta1)
        return rule.lr * math.sqrt(elements * share) / equilibrium_norm(rule, moment)
    memory = direction_memory(rule)
    if isinstance(rule, LionRule) or (isinstance(rule, SGDRule) and rule.nesterov):
        return math.sqrt(2 * s / memory)
    if isinstance(rule, AdamRule) or (isinstance(rule, SGDRule) and rule.decoupled):
        memory -= s * (memory - 1) / 2
    # s/D = 1 − cos Δ = 2 sin²(Δ/2): no cancellation at small angles
    return 2 * math.asin(math.sqrt(s / memory / 2))


def _set_angle(rule: RotationalRule) -> float:
    if not rule.lr > 0:
        raise NoPrediction("not applicable: learning rate is 0")
    if not rule.angular_update > 0:
        raise NoPrediction("not applicable: no weight decay and no angle, so nothing is turned")
    return rule.angular_update


def equilibrium_norm(
    rule: UpdateRule, moment: float | None = None, elements: int | None = None
) -> float:
    """Equilibrium norm r* of a scale-invariant weight.

    Args:
        rule: The update rule.
        moment: The mean of :func:`smd_hooks.theory.driving_moment`: for SGD the unit
            gradient's L, for AdamW E‖u‖², for sign rules E(‖u‖² − 2⟨w,u⟩/η); for Adam
            with L2 it is Σᵢ sᵢ, sᵢ the RMS of coordinate i of the unit gradient.
        elements: For AdamW and sign rules, instead of ``moment``: the weight's number of
            elements, from which white gradients give it.

    Raises:
        NoPrediction: There is no equilibrium, the optimizer keeps the norm, the moment is
            not positive (gradients aligned against the momentum more than they are large),
            or neither the moment nor (but for SGD and Adam with L2) the number of elements
            is given.

    >>> round(equilibrium_norm(AdamRule(2e-3, 0.1), elements=10_000), 1)  # RMS .1
    10.0
    """
    s = decay_rate(rule)
    if moment is None:
        moment = _white_moment(rule, elements)
    if not moment > 0:
        raise NoPrediction("not applicable: the driving second moment is not positive")
    if isinstance(rule, SGDRule):
        return _sgd_norm(rule, s, moment)
    if isinstance(rule, AdamRule):
        if not rule.decoupled:
            return float((rule.lr * moment / (2 * rule.weight_decay)) ** (1 / 3))
        kept = (1 - s) * rule.beta1
        moment *= (1 + kept) / (1 - kept)
    return rule.lr * math.sqrt(moment / (s * (2 - s)))


def _white_moment(rule: UpdateRule, elements: int | None) -> float:
    if elements is not None and isinstance(rule, LionRule):
        return rule.scale**2 * elements * direction_memory(rule)
    if elements is not None and isinstance(rule, AdamRule):
        return elements / direction_memory(rule)
    raise NoPrediction("not applicable: the norm depends on the gradient's second moment")


def _sgd_norm(rule: SGDRule, s: float, moment: float) -> float:
    """r*⁴ = η²L/(2s(1−α)²), with the terms of next order in ηλ but for Nesterov's SGDW."""
    a = rule.momentum
    step = rule.lr * (1 - rule.dampening) / (1 - a)
    if not rule.decoupled:
        s *= 1 - s * (1 - a) / (1 + a) / 2
    elif not rule.nesterov:
        q = 1 - s
        s *= (1 - s / 2) * (1 + a) * (1 - q * a) / (1 + q * a) / (1 - a)
    return float((step**2 * moment / (2 * s)) ** 0.25)


def relaxation_time(rule: UpdateRule) -> float:
    """Relaxation time τ = 1/(2(1 + p)·s) of r^(2+2p) towards its equilibrium.

    That is (1−α)/(4ηλ) on r⁴ for SGD with coupled decay, 1/(4ηλ) on r⁴ for SGDW and
    1/(2ηλ) on r² for AdamW and the sign rules.

    Returns:
        τ in optimizer steps.

    Raises:
        NoPrediction: There is no equilibrium, or a rotational rule's, which is there at once.

    >>> round(relaxation_time(SGDRule(lr=0.1, weight_decay=1e-4, momentum=0.9)))
    2500
    """
    return 1 / (2 * decay_rate(rule) * (1 + step_exponent(rule)))


def relaxation_times(rule: UpdateRule, lr: ArrayLike, weight_decay: ArrayLike) -> Floats:
    """Return :func:`relaxation_time` along a schedule.

    Args:
        rule: The update rule; its lr and weight decay are not used.
        lr: η at each sample, any shape.
        weight_decay: λ at each sample, of the same shape.

    Raises:
        NoPrediction: There is no equilibrium somewhere along the schedule, or the rule is a
            rotational one's.
    """
    lr, decay = np.asarray(lr, float), np.asarray(weight_decay, float)
    product = lr * decay
    # τ goes as 1/ηλ, and where an equilibrium ends one of these three is at its limit
    for extreme in (np.argmin(lr), np.argmin(decay), np.argmax(product)):
        here = rule.at(float(lr.flat[extreme]), float(decay.flat[extreme]))
        scale = relaxation_time(here) * float(product.flat[extreme])
    return scale / product


def rescale_factor(rule: UpdateRule, k: float) -> float:
    """Factor on scale-invariant weights that keeps equilibrium when η becomes η/k.

    k^(−1/(2+2p)): k^(−1/4) for the SGD family, k^(−1/2) for AdamW and the sign rules.

    Args:
        rule: The update rule.
        k: Old learning rate over new, positive.

    Raises:
        NoPrediction: Adam with L2, which no factor keeps in equilibrium; a rotational rule,
            which keeps norms itself.
        ValueError: ``k`` is not positive.

    Source: Wan et al., *Spherical Motion Dynamics*, §4 (SGD); otherwise derived.

    >>> round(rescale_factor(SGDRule(lr=0.1, weight_decay=1e-4), 10), 4)
    0.5623
    """
    if not k > 0:
        raise ValueError(f"k must be positive, got {k}")
    return float(k ** (-1 / (2 + 2 * step_exponent(rule))))


def drifting_equilibrium_angle(rule: UpdateRule, drift: float) -> float:
    """Angular update when the driving moment drifts, H ∝ e^(drift·t), slowly for the momentum.

    Δ² = (2s + μ/(1 + p))/D, that is Δ*²·(1 + μτ): vanishing gradients (μ < 0) pull the
    angle below Δ*.

    Args:
        rule: The update rule.
        drift: μ per optimizer step.

    Returns:
        Radians per step.

    Raises:
        NoPrediction: There is no equilibrium; with −μ ≥ 1/τ there is none either, since
            the driving moment falls faster than weight decay lets the norm follow.

    Source: derived.
    """
    followed = 1 + drift * relaxation_time(rule)
    if not followed > 0:
        raise NoPrediction(
            "not applicable: the driving second moment falls faster than the norm can follow"
        )
    return equilibrium_angle(rule) * math.sqrt(followed)
