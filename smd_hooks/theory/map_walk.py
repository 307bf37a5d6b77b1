"""The law's walk with next to nothing to do in a step.

Between two samples everything measured is held. AdamW's and the sign rules' steps are then
one power of a matrix; SGD's drive is divided by ‖w‖² anew at each step, so that a division
and a product of small matrices are left of it. A test holds the walk equal to the one that
:mod:`smd_hooks.theory.trajectory` takes step by step.
"""

from __future__ import annotations

import numpy as np

from .memories import MomentumMemory, RunningMeanMemory, first_memory, kept_and_step
from .second_moments import Floats, StepMoments
from .step_maps import TOLD, drives, maps_between, step_maps
from .update_rules import AdamRule, SGDRule, UpdateRule


def walk_by_maps(
    rule: UpdateRule,
    steps: np.ndarray,
    lr: Floats,
    weight_decay: Floats,
    moments: StepMoments,
    initial_norm: Floats,
    rescale: Floats | None,
    from_first_step: bool,
) -> tuple[Floats, Floats, Floats]:
    """Follow layers whose moments :func:`~smd_hooks.theory.step_maps.stays_real`.

    Args:
        rule: The update rule; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,).
        lr: η, shape (samples,).
        weight_decay: λ, shape (samples,).
        moments: Each of shape (samples, layers).
        initial_norm: Shape (layers,).
        rescale: Cumulative factor put on the weights, shape (samples, layers), or None.
        from_first_step: Whether the optimizer state is empty at the first sample.

    Returns:
        ‖w‖² before each sampled step, ⟨w,u⟩ and ‖u‖² of it, each of shape (samples, layers).
    """
    drive = drives(rule, moments)
    seen = steps - steps[0] if from_first_step else np.full(len(steps), np.inf)
    maps = step_maps(rule, lr, weight_decay, seen)
    z = np.empty((len(steps), maps.shape[2], drive.shape[2]))
    state = z.shape[1] - TOLD
    z[:, state:] = drive
    z[0, :state] = _first_state(rule, lr, weight_decay, moments, initial_norm, from_first_step)
    lengths, outside = np.diff(steps), _outside_factors(rule, rescale)
    if isinstance(rule, SGDRule):
        later = step_maps(rule, lr, weight_decay, np.full(len(steps), np.inf))
        _walk_divided(z, maps[:, TOLD:], later[:, TOLD:], lengths, outside)
    else:
        between = maps_between(rule, lr[:-1], weight_decay[:-1], seen[:-1], lengths)
        _walk_linear(z, between, outside)
    told = maps[:, :TOLD] @ z
    return z[:, state - 1], told[:, 0], told[:, 1]


def starts_real(
    rule: UpdateRule,
    lr: Floats,
    weight_decay: Floats,
    moments: StepMoments,
    initial_norm: Floats,
    from_first_step: bool,
) -> np.ndarray:
    """Say of each layer whether its first state can be that of vectors, shape (layers,).

    A buffer that is taken to have settled may have more of a product with a weight far below
    its equilibrium than both their lengths allow. Where ⟨w,v⟩² ≤ ‖w‖²‖v‖² once, and h̃ is
    never negative, it stays so: a step is linear, and what it adds is the second moment of
    something orthogonal to w. Arguments as of :func:`walk_by_maps`.
    """
    if not isinstance(rule, SGDRule):
        return np.ones(np.shape(initial_norm), bool)
    v2, wv, r2 = _first_state(rule, lr, weight_decay, moments, initial_norm, from_first_step)
    return np.asarray(wv**2 <= v2 * r2)


def _walk_linear(z: Floats, between: Floats, outside: dict[int, Floats]) -> None:
    """Fill in the states of z, shape (samples, state + 2, layers), from the first one on."""
    state = between.shape[1]
    for i, stretch in enumerate(between):
        stretch.dot(z[i], out=z[i + 1, :state])
        if i + 1 in outside:
            z[i + 1, :state] *= outside[i + 1]


def _walk_divided(
    z: Floats, first: Floats, later: Floats, lengths: np.ndarray, outside: dict[int, Floats]
) -> None:
    """Fill in the states of z, and divide its drives by ‖w‖².

    Args:
        z: Shape (samples, state + 2, layers).
        first: Maps of the sampled steps, shape (samples, state, state + 2).
        later: Maps of the steps until the next sample, likewise.
        lengths: Steps between samples, shape (samples − 1,).
        outside: Factors on the state before a sample.
    """
    first, later = np.ascontiguousarray(first), np.ascontiguousarray(later)
    state, divide = first.shape[1], np.divide
    # two vectors that take turns: a step's source is not its target
    (here, here_state, here_drive, here_r2), (there, there_state, there_drive, there_r2) = (
        (v, v[:state], v[state:], v[state - 1]) for v in np.empty((2, *z.shape[1:]))
    )
    for i in range(len(z)):
        source = z[i]
        held = source[state:].copy()
        divide(held, source[state - 1], out=source[state:])
        if i == len(lengths):
            return
        length, product = int(lengths[i]), later[i].dot
        after = z[i + 1, :state]
        if length == 1:
            first[i].dot(source, out=after)
        else:
            first[i].dot(source, out=here_state)
            for _ in range((length - 1) // 2):
                divide(held, here_r2, out=here_drive)
                product(here, out=there_state)
                divide(held, there_r2, out=there_drive)
                product(there, out=here_state)
            if length % 2 == 0:
                divide(held, here_r2, out=here_drive)
                product(here, out=after)
            else:
                after[:] = here_state
        if i + 1 in outside:
            after *= outside[i + 1]


def _first_state(
    rule: UpdateRule,
    lr: Floats,
    weight_decay: Floats,
    moments: StepMoments,
    initial_norm: Floats,
    empty: bool,
) -> Floats:
    """The state before the first sampled step, shape (state, layers)."""
    r2 = np.asarray(initial_norm, float) ** 2
    decay = np.full_like(r2, weight_decay[0])
    q, eta = kept_and_step(rule, np.full_like(r2, lr[0]), decay)
    memory = first_memory(rule, r2, decay, moments[0], q, eta, empty)
    if isinstance(memory, MomentumMemory):
        return np.stack([memory.v2, memory.wv, r2])
    if isinstance(memory, RunningMeanMemory):
        return np.stack([np.broadcast_to(memory.wu, r2.shape), r2])
    return r2[None]


def _outside_factors(rule: UpdateRule, rescale: Floats | None) -> dict[int, Floats]:
    """What multiplies the state before a sample, (state, layers), where c multiplied the weights.

    ‖w‖² grows by c², ⟨w,u⟩ of AdamW by c, and a buffer of gradients shrinks by c.
    """
    if rescale is None:
        return {}
    powers = {SGDRule: (-2, 0, 2), AdamRule: (1, 2)}.get(type(rule), (2,))
    c = rescale[1:] / rescale[:-1]
    changed = np.flatnonzero((c != 1).any(axis=1))
    return {int(i) + 1: c[i] ** np.array(powers, float)[:, None] for i in changed}
