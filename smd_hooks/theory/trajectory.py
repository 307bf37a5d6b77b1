"""Norm and angle along a learning-rate schedule, not only where they end.

Two laws of different kind live here and must not be confused when they are shown:

* :func:`relaxation_ratio` is the a-priori law. It knows hyperparameters only.
* :func:`second_moment_trajectory` is fed with measured gradient moments. It tests
  whether weight, rule and measurement are consistent with scale invariance; for plain
  SGD it is close to an identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .equilibrium import relaxation_time
from .update_rules import UpdateRule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """What the law says at each sampled step.

    Attributes:
        weight_norm: ‖w‖ before the step, shape (samples, layers).
        angular_update: Δ of the step, radians, shape (samples, layers).
    """

    weight_norm: Floats
    angular_update: Floats


def relaxation_ratio(
    rule: UpdateRule,
    steps: ArrayLike,
    lr: ArrayLike,
    weight_decay: ArrayLike,
    rescale: ArrayLike | None = None,
    initial: float = 1.0,
) -> Floats:
    """Δ/Δ* along a schedule, from hyperparameters alone.

    x = (r/r*)⁴ relaxes to 1 as e^{−t/τ}, is multiplied by k when lr becomes lr/k, and by
    c⁴ when the weight is multiplied by c; Δ/Δ* = x^{−1/2}. After one drop from
    equilibrium this is [1 + (k−1)·e^{−t/τ}]^{−1/2}.

    Args:
        rule: Momentum and dampening; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,).
        lr: η at each sample, positive, shape (samples,).
        weight_decay: λ at each sample, positive, shape (samples,).
        rescale: Cumulative factor put on the weight from outside, shape (samples,).
        initial: r/r* at the first sample.

    Returns:
        Shape (samples,).

    Raises:
        NoPrediction: A learning rate or weight decay is not positive.

    Source: derived from Theorem 2 of Wan et al., *Spherical Motion Dynamics*.
    """
    steps, lr, decay = (np.asarray(a, float) for a in (steps, lr, weight_decay))
    c = np.ones_like(lr) if rescale is None else np.asarray(rescale, float)
    x, ratio = initial**4, np.empty_like(lr)
    for i in range(len(lr)):
        if i:
            tau = relaxation_time(rule.at(float(lr[i - 1]), float(decay[i - 1])))
            x = 1 + (x - 1) * math.exp(-(steps[i] - steps[i - 1]) / tau)
            # r*⁴ goes as η/λ
            x *= lr[i - 1] / lr[i] * decay[i] / decay[i - 1] * (c[i] / c[i - 1]) ** 4
        ratio[i] = x**-0.5
    return ratio


def driving_moment(
    rule: UpdateRule, gradient_moment: ArrayLike, alignment_moment: ArrayLike
) -> Floats:
    """h̃, the second moment that drives the norm.

    Args:
        rule: The update rule.
        gradient_moment: ‖g‖²·‖w‖².
        alignment_moment: ⟨v₋₁, g⟩·‖w‖², v₋₁ the momentum buffer before the step.

    Returns:
        (‖g‖² + 2α⟨v₋₁, g⟩)·‖w‖² for SGD and heavy ball, with 2α² for Nesterov.

    Source: Wan et al., *Spherical Motion Dynamics*, Theorem 2; Nesterov derived.
    """
    weight = 2 * rule.momentum ** (2 if rule.nesterov else 1) / (1 - rule.dampening)
    return np.asarray(gradient_moment, float) + weight * np.asarray(alignment_moment, float)


def second_moment_trajectory(
    rule: UpdateRule,
    steps: ArrayLike,
    lr: Floats,
    weight_decay: Floats,
    gradient_moment: Floats,
    alignment_moment: Floats,
    initial_norm: Floats,
    rescale: Floats | None = None,
    from_first_step: bool = True,
) -> Trajectory:
    """Carry E‖w‖², E⟨w,v⟩ and E‖v‖² of each layer along the schedule, step by step.

    Between samples everything measured is held at the earlier sample's value.

    Args:
        rule: Momentum, dampening and Nesterov; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,).
        lr: η at each sample, shape (samples, layers).
        weight_decay: λ at each sample, shape (samples, layers).
        gradient_moment: Window mean of ‖g‖²·‖w‖², shape (samples, layers).
        alignment_moment: Window mean of ⟨v₋₁, g⟩·‖w‖², shape (samples, layers).
        initial_norm: ‖w‖ at the first sample, shape (layers,).
        rescale: Cumulative factor that was applied to the weights from outside the
            optimizer (EquilibriumRescaleHook), shape (samples, layers).
        from_first_step: Whether the momentum buffer was empty at the first sample.
            If not, it starts in its quasi-stationary state.

    Source: second moments of the heavy-ball recursion in Wan et al., *Spherical Motion
    Dynamics*, proof of Theorem 2; the Nesterov form is derived.
    """
    steps = np.asarray(steps, int)
    alpha, undamped = rule.momentum, 1.0 - rule.dampening
    norm = np.empty_like(gradient_moment)
    angle = np.empty_like(gradient_moment)
    r2 = initial_norm.astype(float) ** 2
    v2, wv = np.zeros_like(r2), np.zeros_like(r2)
    for i, step in enumerate(steps):
        if i and rescale is not None:
            # the gradient grows as 1/‖w‖, so a buffer carried along shrinks as w grows
            c2 = (rescale[i] / rescale[i - 1]) ** 2
            r2, v2 = r2 * c2, v2 / c2
        eta, decay = lr[i] * undamped, weight_decay[i]
        a, b = gradient_moment[i], alignment_moment[i] / undamped
        if i == 0 and not from_first_step:
            v2 = np.maximum(a + 2 * alpha * b, 0) / r2 / (1 - alpha**2)
            wv = (decay * r2 - eta * v2) / (1 - alpha)
        norm[i] = np.sqrt(r2)
        last = steps[i + 1] if i + 1 < len(steps) else step + 1
        for t in range(step, last):
            g2 = a / r2 + decay**2 * r2
            vg = b / r2 + decay * wv
            v2 = np.maximum(alpha**2 * v2 + g2 + 2 * alpha * vg, 0.0)
            wv = alpha * wv + decay * r2
            if t == 0 and from_first_step:  # torch does not dampen the first step
                v2, wv = v2 / undamped**2, wv / undamped
            if rule.nesterov:
                gv = alpha * vg + g2
                wd = decay * r2 + alpha * wv
                d2 = g2 + 2 * alpha * gv + alpha**2 * v2
                vd = gv + alpha * v2
            else:
                wd, d2, vd = wv, v2, v2
            if t == step:
                # |w × d| over ⟨w, w − ηd⟩: no cancellation at small angles
                across = eta * np.sqrt(np.maximum(r2 * d2 - wd**2, 0.0))
                angle[i] = np.arctan2(across, r2 - eta * wd)
            r2 = np.maximum(r2 - 2 * eta * wd + eta**2 * d2, np.finfo(float).tiny)
            wv = wv - eta * vd
    return Trajectory(norm, angle)
