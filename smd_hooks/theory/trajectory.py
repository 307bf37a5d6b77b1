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
from numpy.typing import ArrayLike

from .diffusion import step_exponent
from .equilibrium import relaxation_time
from .memories import Memory, first_memory
from .rotation import step_angle
from .second_moments import Floats, StepMoments, early_excess
from .update_rules import RotationalRule, SGDRule, UpdateRule

TINY = float(np.finfo(float).tiny)


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

    With step exponent p, x = (r/r*)^(2+2p) relaxes to 1 as e^(−t/τ), is multiplied by k
    when lr becomes lr/k, and by c^(2+2p) when the weight is multiplied by c;
    Δ/Δ* = x^(−1/2). After one drop from equilibrium this is [1 + (k−1)·e^(−t/τ)]^(−1/2).
    It is 1 throughout for a rotational rule.

    Args:
        rule: The update rule; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,).
        lr: η at each sample, positive, shape (samples,).
        weight_decay: λ at each sample, positive, shape (samples,).
        rescale: Cumulative factor put on the weight from outside, shape (samples,).
        initial: r/r* at the first sample.

    Returns:
        Shape (samples,).

    Raises:
        NoPrediction: A learning rate or weight decay is not positive; Adam with L2.

    Source: derived from Theorem 2 of Wan et al., *Spherical Motion Dynamics*.
    """
    steps, lr, decay = (np.asarray(a, float) for a in (steps, lr, weight_decay))
    if isinstance(rule, RotationalRule):
        return np.ones_like(lr)
    c = np.ones_like(lr) if rescale is None else np.asarray(rescale, float)
    power = 2 + 2 * step_exponent(rule)
    x, ratio = initial**power, np.empty_like(lr)
    for i in range(len(lr)):
        if i:
            tau = relaxation_time(rule.at(float(lr[i - 1]), float(decay[i - 1])))
            x = 1 + (x - 1) * math.exp(-(steps[i] - steps[i - 1]) / tau)
            # r*^power goes as η/λ
            x *= lr[i - 1] / lr[i] * decay[i] / decay[i - 1] * (c[i] / c[i - 1]) ** power
        ratio[i] = x**-0.5
    return ratio


def second_moment_trajectory(
    rule: UpdateRule,
    steps: ArrayLike,
    lr: Floats,
    weight_decay: Floats,
    moments: StepMoments,
    initial_norm: Floats,
    rescale: Floats | None = None,
    from_first_step: bool = True,
) -> Trajectory:
    """Carry each layer's norm and memory of earlier steps along the schedule, step by step.

    Between samples everything measured is held at the earlier sample's value. A rotational
    rule needs nothing measured: each step turns by the angle that is set, and no norm changes.

    Args:
        rule: The update rule; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,). Only steps that moved
            the weights count.
        lr: η at each sample, shape (samples, layers).
        weight_decay: λ at each sample, shape (samples, layers).
        moments: Window means of what was measured, each of shape (samples, layers).
        initial_norm: ‖w‖ at the first sample, shape (layers,).
        rescale: Cumulative factor that was applied to the weights from outside the
            optimizer (EquilibriumRescaleHook), shape (samples, layers).
        from_first_step: Whether the first sample is the weight's first step, its optimizer
            state empty. If not, that starts in its quasi-stationary state.

    Raises:
        NoPrediction: The rule has no such law (Adam with L2).
        ValueError: A moment that the rule needs was not given.

    Source: second moments of the heavy-ball recursion in Wan et al., *Spherical Motion
    Dynamics*, proof of Theorem 2; the other forms are derived.
    """
    steps = np.asarray(steps, int)
    if isinstance(rule, RotationalRule):
        seen = steps - steps[0] + 1.0 if from_first_step else np.full(len(steps), np.inf)
        return _set_trajectory(rule, seen, lr, weight_decay, initial_norm)
    norm, angle = np.empty_like(lr, float), np.empty_like(lr, float)
    r2 = np.asarray(initial_norm, float) ** 2
    memory: Memory | None = None
    for i, step in enumerate(steps):
        decay, eta, q, here = weight_decay[i], lr[i], np.ones_like(r2), moments[i]
        if not isinstance(rule, SGDRule) or rule.decoupled:
            q = q - eta * decay
        if isinstance(rule, SGDRule):
            eta = eta * (1 - rule.dampening)
        if memory is None:
            memory = first_memory(rule, r2, decay, here, q, eta, empty=from_first_step)
        elif rescale is not None:
            c2 = (rescale[i] / rescale[i - 1]) ** 2
            r2 = r2 * c2
            memory.rescale(c2)
        norm[i] = np.sqrt(r2)
        last = steps[i + 1] if i + 1 < len(steps) else step + 1
        for t in range(step, last):
            wu, u2 = memory.direction(r2, decay, here)
            if t == step:
                # |w × u| over ⟨w, q·w − ηu⟩: no cancellation at small angles
                across = eta * np.sqrt(np.maximum(r2 * u2 - wu**2, 0.0))
                angle[i] = np.arctan2(across, q * r2 - eta * wu)
            r2 = np.maximum(q**2 * r2 - 2 * q * eta * wu + eta**2 * u2, TINY)
            memory.move(q, eta)
    return Trajectory(norm, angle)


def _set_trajectory(
    rule: RotationalRule, seen: Floats, lr: Floats, weight_decay: Floats, initial_norm: Floats
) -> Trajectory:
    lr, weight_decay = np.asarray(lr, float), np.asarray(weight_decay, float)
    settings = (rule.constant, rule.peak_lr, rule.schedule, rule.angle)
    angle: Floats = step_angle(lr, weight_decay, *settings)
    early = np.sqrt(early_excess(rule, seen))[:, None]
    return Trajectory(np.broadcast_to(initial_norm, np.shape(lr)).astype(float), angle * early)
