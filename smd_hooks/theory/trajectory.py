"""Norm and angle along a learning-rate schedule, not only where they end.

Two laws of different kind live here and must not be confused when they are shown:

* :func:`relaxation_ratio` is the a-priori law. It knows hyperparameters only.
* :func:`second_moment_trajectory` is fed with measured gradient moments. It tests
  whether weight, rule and measurement are consistent with scale invariance; for plain
  SGD it is close to an identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .diffusion import step_exponent
from .equilibrium import relaxation_times
from .map_walk import starts_real, walk_by_maps
from .memories import Memory, first_memory, kept_and_step
from .rotation import step_angle
from .second_moments import Floats, StepMoments, early_excess
from .step_maps import drives, stays_real
from .update_rules import RotationalRule, UpdateRule

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
    moment: ArrayLike | None = None,
) -> Floats:
    """Δ/Δ* along a schedule, from hyperparameters alone, or with a driving moment that drifts.

    With step exponent p, x = (r/r*)^(2+2p) relaxes to 1 as e^(−t/τ), is multiplied by k
    when lr becomes lr/k, and by c^(2+2p) when the weight is multiplied by c;
    Δ/Δ* = x^(−1/2). After one drop from equilibrium this is [1 + (k−1)·e^(−t/τ)]^(−1/2).
    It is 1 throughout for a rotational rule. With a driving moment h, x relaxes to h, and
    Δ/Δ* is √(h/x): for h ∝ e^(μt) it ends at √(1 + μτ).

    Args:
        rule: The update rule; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,).
        lr: η at each sample, positive, shape (samples,).
        weight_decay: λ at each sample, positive, shape (samples,).
        rescale: Cumulative factor put on the weight from outside, shape (samples,).
        initial: r/r* at the first sample.
        moment: h at each sample, held up to the next, over that which r* of ``initial`` is
            for, shape (samples,); 1 if left out.

    Returns:
        Shape (samples,); NaN where the moment is negative.

    Raises:
        NoPrediction: A learning rate or weight decay is not positive; Adam with L2.

    Source: derived from Theorem 2 of Wan et al., *Spherical Motion Dynamics*.
    """
    steps, lr, decay = (np.asarray(a, float) for a in (steps, lr, weight_decay))
    if isinstance(rule, RotationalRule) or not len(lr):
        return np.ones_like(lr)
    c = np.ones_like(lr) if rescale is None else np.asarray(rescale, float)
    power = 2 + 2 * step_exponent(rule)
    left = np.exp(-np.diff(steps) / relaxation_times(rule, lr, decay)[:-1])
    # r*^power goes as η/λ
    radius = lr / decay / c**power
    jumps = radius[:-1] / radius[1:]
    h = np.ones_like(lr) if moment is None else np.asarray(moment, float)
    x = [float(initial) ** power]
    for kept, jump, to in zip(left.tolist(), jumps.tolist(), h.tolist(), strict=False):
        x.append((to + (x[-1] - to) * kept) * jump)
    with np.errstate(invalid="ignore"):
        ratio: Floats = np.sqrt(h / np.array(x))
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
    lr, weight_decay = np.asarray(lr, float), np.asarray(weight_decay, float)
    norm, angle = np.empty(lr.shape), np.empty(lr.shape)
    for layers in _of_one_schedule(lr, weight_decay):
        arguments = (
            steps,
            lr[:, layers],
            weight_decay[:, layers],
            moments[:, layers],
            np.asarray(initial_norm, float)[layers],
            None if rescale is None else rescale[:, layers],
            from_first_step,
        )
        norm[:, layers], angle[:, layers] = _walk(rule, *arguments)
    return Trajectory(norm, angle)


def _of_one_schedule(lr: Floats, weight_decay: Floats) -> list[list[int]]:
    together: dict[tuple[bytes, bytes], list[int]] = {}
    for layer, schedule in enumerate(zip(lr.T, weight_decay.T, strict=True)):
        key = (schedule[0].tobytes(), schedule[1].tobytes())
        together.setdefault(key, []).append(layer)
    return list(together.values())


def _walk(
    rule: UpdateRule,
    steps: np.ndarray,
    lr: Floats,
    weight_decay: Floats,
    moments: StepMoments,
    initial_norm: Floats,
    rescale: Floats | None,
    from_first_step: bool,
) -> tuple[Floats, Floats]:
    """Do as :func:`walk_step_by_step` for layers of one schedule, by maps where these can."""
    shared = lr[:, 0], weight_decay[:, 0]
    with np.errstate(all="ignore"):  # a run that diverged ends in NaN, as its law does
        r2, wu, u2 = walk_by_maps(
            rule, steps, *shared, moments, initial_norm, rescale, from_first_step
        )
        norm, angle = np.sqrt(r2), _angle(r2, wu, u2, *kept_and_step(rule, lr, weight_decay))
    real = stays_real(rule, drives(rule, moments))
    real &= starts_real(rule, *shared, moments, initial_norm, from_first_step)
    stopped = ~real | np.any(r2 <= TINY, axis=0)
    if stopped.any():
        norm[:, stopped], angle[:, stopped] = walk_step_by_step(
            rule,
            steps,
            lr[:, stopped],
            weight_decay[:, stopped],
            moments[:, stopped],
            initial_norm[stopped],
            None if rescale is None else rescale[:, stopped],
            from_first_step,
        )
    return norm, angle


def walk_step_by_step(
    rule: UpdateRule,
    steps: np.ndarray,
    lr: Floats,
    weight_decay: Floats,
    moments: StepMoments,
    initial_norm: Floats,
    rescale: Floats | None,
    from_first_step: bool,
) -> tuple[Floats, Floats]:
    """Take every step by itself, as one reads it: what the fast walk is held equal to.

    The arguments are those of :func:`second_moment_trajectory`. Layers whose gradients
    oppose the momentum more than they are large need it: second moments of no real
    vectors, which must be stopped at 0.

    Returns:
        ‖w‖ before each sampled step and its angle, each of shape (samples, layers).
    """
    norm, angle = np.empty_like(lr), np.empty_like(lr)
    r2 = np.asarray(initial_norm, float) ** 2
    memory: Memory | None = None
    for i, step in enumerate(steps):
        decay, here = weight_decay[i], moments[i]
        q, eta = kept_and_step(rule, lr[i], decay)
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
                angle[i] = _angle(r2, wu, u2, q, eta)
            r2 = np.maximum(q**2 * r2 - 2 * q * eta * wu + eta**2 * u2, TINY)
            memory.move(q, eta)
    return norm, angle


def _angle(r2: Floats, wu: Floats, u2: Floats, q: Floats, eta: Floats) -> Floats:
    """Angle between w and q·w − ηu: |w × u| over ⟨w, q·w − ηu⟩ cancels nothing if it is small."""
    across = eta * np.sqrt(np.maximum(r2 * u2 - wu**2, 0.0))
    return np.arctan2(across, q * r2 - eta * wu)


def _set_trajectory(
    rule: RotationalRule, seen: Floats, lr: Floats, weight_decay: Floats, initial_norm: Floats
) -> Trajectory:
    lr, weight_decay = np.asarray(lr, float), np.asarray(weight_decay, float)
    settings = (rule.constant, rule.peak_lr, rule.schedule, rule.angle)
    angle: Floats = step_angle(lr, weight_decay, *settings)
    early = np.sqrt(early_excess(rule, seen))[:, None]
    return Trajectory(np.broadcast_to(initial_norm, np.shape(lr)).astype(float), angle * early)
