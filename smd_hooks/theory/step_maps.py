"""The law's steps as small matrices, for layers that share a schedule.

Where η and λ stand, every rule's second moments move linearly, all layers by one matrix.
What moves and what drives it stand below each other in a vector z for each layer::

    SGD family    state ‖v‖², ⟨w,v⟩, ‖w‖²     drive ‖g‖², ⟨v₋₁,g⟩
    AdamW         state ⟨w,u⟩, ‖w‖²           drive ⟨w, (D − d)g⟩, ‖u‖²
    sign rules    state ‖w‖²                  drive ⟨w,u⟩, ‖u‖²

The first two rows of a map give the step's ⟨w,u⟩ and ‖u‖², the others the next state. The
same is said readably, rule by rule, in :mod:`smd_hooks.theory.memories`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .diffusion import L2_ADAM
from .second_moments import Floats, StepMoments, bias_excess
from .update_rules import AdamRule, LionRule, NoPrediction, SGDRule, UpdateRule

TOLD = 2
"""Rows of a map that are no state; as many entries of z are none."""
FORGOTTEN = 2.0**-60
"""Share of an empty start that no float notices any more."""


def drives(rule: UpdateRule, moments: StepMoments) -> Floats:
    """Return what drives the state at each sample, shape (samples, 2, layers).

    The SGD family's is what was measured, ‖w‖² times the drive.

    Raises:
        NoPrediction: Adam with L2, or a rule of no known family.
        ValueError: A moment that the rule needs was not given.
    """
    if isinstance(rule, SGDRule):
        first = moments.need("gradient")
        second = moments.need("alignment") if rule.momentum else np.zeros_like(first)
        return np.stack([first, second / (1 - rule.dampening)], axis=1)
    if isinstance(rule, LionRule):
        return np.stack([moments.need("radial"), moments.need("direction")], axis=1)
    if not isinstance(rule, AdamRule):
        raise NoPrediction(f"no prediction for {type(rule).__name__}: its family is not known")
    if not rule.decoupled:
        raise NoPrediction(L2_ADAM)
    square, unlike = moments.need("direction"), moments.unlike
    first = np.zeros_like(square) if unlike is None else np.nan_to_num(unlike)
    return np.stack([first, square], axis=1)


def stays_real(rule: UpdateRule, drive: Floats) -> np.ndarray:
    """Say of each layer whether ‖v‖² and ‖w‖² stay positive by themselves, shape (layers,).

    Maps are linear and cannot stop at 0; where no drive is negative they need not.
    """
    if not isinstance(rule, SGDRule):
        return np.ones(drive.shape[2], bool)
    least = drive[:, 0] + 2 * rule.momentum * np.minimum(drive[:, 1], 0)
    return np.logical_not(np.any(least < 0, axis=0))


def step_maps(rule: UpdateRule, lr: Floats, weight_decay: Floats, seen: Floats) -> Floats:
    """Return the maps of single steps, shape (steps, 2 + state, state + 2).

    Args:
        rule: The update rule; its lr and weight decay are not used.
        lr: η of each step, shape (steps,).
        weight_decay: λ of each step, likewise.
        seen: Gradients since an empty start before each step; infinity if that is long ago.
    """
    eta, decay, seen = (np.asarray(a, float)[:, None] for a in (lr, weight_decay, seen))
    if isinstance(rule, SGDRule):
        return _momentum_maps(rule, eta, decay, seen)
    q = 1 - eta * decay
    if isinstance(rule, AdamRule):
        beta, before = rule.beta1, rule.beta1**seen
        wu, r2, unlike, u2 = np.eye(4)
        kept = (1 - before) / (1 - beta * before) * beta
        wu, u2 = kept * wu + (1 - kept) * unlike, bias_excess(beta * before) * u2
        return _stacked(q, eta, r2, wu, u2, [q * wu - eta * u2])
    r2, wu, u2 = np.eye(3)
    return _stacked(q, eta, r2, wu, u2, [])


def _momentum_maps(rule: SGDRule, eta: Floats, decay: Floats, seen: Floats) -> Floats:
    a, undamped = rule.momentum, 1 - rule.dampening
    q = 1 - eta * decay if rule.decoupled else np.ones_like(eta)
    coupled = np.zeros_like(decay) if rule.decoupled else decay
    v2, wv, r2, g2, vg = np.eye(5)
    g2, vg = g2 + coupled**2 * r2, vg + coupled * wv
    v2, wv = a**2 * v2 + g2 + 2 * a * vg, a * wv + coupled * r2
    damped = np.where(seen == 0, undamped, 1.0)  # torch does not dampen the first step
    v2, wv = v2 / damped**2, wv / damped
    vu, wu, u2 = v2, wv, v2
    if rule.nesterov:
        gv = a * vg + g2
        vu, wu, u2 = gv + a * v2, coupled * r2 + a * wv, g2 + 2 * a * gv + a**2 * v2
    eta = eta * undamped
    return _stacked(q, eta, r2, wu, u2, [v2, q * wv - eta * vu])


def _stacked(
    q: Floats, eta: Floats, r2: Floats, wu: Floats, u2: Floats, memory: Sequence[Floats]
) -> Floats:
    """What is told of the step, what is remembered of it, and ‖w'‖² of w' = q·w − η·u."""
    norm = q**2 * r2 - 2 * q * eta * wu + eta**2 * u2
    rows = [np.broadcast_to(row, norm.shape) for row in (wu, u2, *memory, norm)]
    return np.stack(rows, axis=1)


def maps_between(
    rule: UpdateRule, lr: Floats, weight_decay: Floats, seen: Floats, lengths: np.ndarray
) -> Floats:
    """Return the maps of many steps each, the drive held: shape (stretches, state, state + 2).

    Args:
        rule: AdamW or a sign rule: what drives them does not depend on the state.
        lr: η of each stretch, shape (stretches,).
        weight_decay: λ of each stretch, likewise.
        seen: Gradients since an empty start before each stretch.
        lengths: Steps of each stretch.
    """
    square = _square(step_maps(rule, lr, weight_decay, seen))
    result = np.empty_like(square)
    for length in np.unique(lengths):
        of_it = lengths == length
        result[of_it] = np.linalg.matrix_power(square[of_it], length)
    if isinstance(rule, AdamRule):
        # bias correction is another one at each step
        for i in np.flatnonzero((rule.beta1**seen > FORGOTTEN) & (lengths > 1)):
            here = np.full(lengths[i], lr[i]), np.full(lengths[i], weight_decay[i])
            result[i] = np.eye(result.shape[1])
            for one in _square(step_maps(rule, *here, seen[i] + np.arange(lengths[i]))):
                result[i] = one @ result[i]
    return result[:, :-TOLD]


def _square(maps: Floats) -> Floats:
    """Maps of z to z: the drive stays what it is."""
    kept = np.eye(maps.shape[2])[-TOLD:]
    return np.concatenate([maps[:, TOLD:], np.broadcast_to(kept, (len(maps), *kept.shape))], axis=1)
