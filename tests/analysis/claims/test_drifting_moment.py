"""The drift-corrected form against walks on the sphere whose driving moment drifts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smd_hooks.theory import (
    SGDRule,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_ratio,
    rescale_factor,
)

RULE = SGDRule(0.1, 0.005, 0.9)  # τ is 50 steps, and 500 after a drop by 10
STEPS = np.arange(1000)
RATES = np.where(STEPS < 200, 0.1, 0.01)
DECAY = np.full(len(STEPS), RULE.weight_decay)
SIZE = (64, 256)
GROWING = np.exp(STEPS / 1500)


def random_walk(rescale: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """RMS angle of each step of 64 vectors under heavy ball on random tangent gradients."""
    random = np.random.default_rng(0)
    w, v = random.normal(size=SIZE), np.zeros(SIZE)
    w *= equilibrium_norm(RULE, 1.0) / np.linalg.norm(w, axis=1, keepdims=True)
    angles = []
    for step in range(-300, len(STEPS)):  # the momentum's own start is over by 0
        i = max(step, 0)
        if i:
            c = rescale[i] / rescale[i - 1]
            w, v = w * c, v / c
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        g = random.normal(size=SIZE)
        g -= (g * w).sum(1, keepdims=True) / norm**2 * w
        g *= math.sqrt(drive[i]) / np.linalg.norm(g, axis=1, keepdims=True) / norm
        v = 0.9 * v + g + DECAY[i] * w
        old, w = w, w - RATES[i] * v
        cosine = (old * w).sum(1) / norm[:, 0] / np.linalg.norm(w, axis=1)
        angles.append(math.sqrt(np.mean(np.arccos(cosine) ** 2)))
    return np.array(angles[300:])


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("drive", [GROWING, 1 / GROWING], ids=["growing", "fading"])
def test_random_walk_with_a_drifting_moment(rescaled: bool, drive: np.ndarray) -> None:
    rescale = np.ones(len(STEPS))
    if rescaled:
        rescale[200:] = rescale_factor(RULE, 10)
    equilibrium = np.array([equilibrium_angle(RULE.at(lr, RULE.weight_decay)) for lr in RATES])
    settings = (STEPS, RATES, DECAY, rescale)
    measured = in_tens(random_walk(rescale, drive) / equilibrium)
    predicted = in_tens(relaxation_ratio(RULE, *settings, moment=drive))
    # of a mean over the vectors: |v|² is that of about SIZE numbers, and stays so for ten steps
    standard_error = math.sqrt(2 / SIZE[1]) / 2 / math.sqrt(SIZE[0])
    apart = np.delete(np.log(measured / predicted), [20, 21])  # the momentum is of before the drop
    assert np.abs(apart).max() < 3 * standard_error
    assert abs(apart.mean()) < standard_error
    # what the closed form is off by, since it does not know that h moved
    closed = in_tens(relaxation_ratio(RULE, *settings))
    assert np.abs(np.log(measured / closed))[-50:].mean() > 10 * standard_error


def in_tens(angles: np.ndarray) -> np.ndarray:
    """RMS over ten steps each."""
    return np.sqrt((angles**2).reshape(-1, 10).mean(1))
